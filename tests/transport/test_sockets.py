"""Listening on Unix sockets, and on TCP addresses."""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc import aio

from authz.transport import Http2Listener, from_insecure_metadata, from_xfcc
from authz.transport.health import Health
from authz.transport.sockets import every_address, listen_tcp, listen_unix
from tests.support.certificates import SERVICE, Issuer
from tests.support.clients import Client
from tests.support.waiting import PATIENCE, soon
from tests.transport.raw import h2_context, raw
from tests.transport.support import LIMITS, SHOP, XFCC, Answering, element, listening, material


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Short enough: the path of a Unix socket has 108 bytes."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield Path("authz.sock")
    os.chdir(before)


async def test_a_unix_socket_is_served_with_the_header_of_a_sidecar(path: Path) -> None:
    async with listening(path=path, caller_of=from_xfcc(SERVICE)) as server:
        assert server.port == 0
        async with aio.insecure_channel(f"unix:{path}") as channel:
            assert await Client(channel).ask(b"", {XFCC: element(SHOP)}) == b"answer"
    assert server.asked.callers == [SHOP]


async def test_a_unix_socket_is_served_with_tls(path: Path, issuer: Issuer) -> None:
    async with (
        listening(path=path, tls=material(issuer.server())) as server,
        raw(path, h2_context(issuer.issue(SHOP))) as client,
    ):
        assert await client.ask(1) == "0"
    assert server.asked.callers == [SHOP]


async def test_a_unix_socket_is_for_our_user_and_group_and_gone_afterwards(path: Path) -> None:
    async with listening(path=path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with listening(path=path) as server, raw(path) as client:
        assert await client.ask(1) == "0"
        assert server.http2.connections == 1


async def test_a_unix_socket_in_use_is_not_replaced(path: Path) -> None:
    async with listening(path=path) as server, raw(path) as client:
        second = Http2Listener(
            Answering(), Health(), path=path, limits=LIMITS, caller_of=from_insecure_metadata()
        )
        with pytest.raises(OSError, match="in use"):
            await second.start()
        assert await client.ask(1) == "0"
        async with raw(path) as another:
            assert await another.ask(1) == "0"
        assert server.errors == []


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_not_replaced(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        Path("elsewhere").write_text("precious")
        path.symlink_to("elsewhere")
    with pytest.raises(OSError, match="in use") as problem:
        listen_unix(path)
    assert problem.value.errno == errno.EADDRINUSE
    assert path.exists()


async def test_a_socket_that_has_taken_the_place_of_ours_is_left_there(path: Path) -> None:
    async with listening(path=path):
        path.unlink()
        other = listen_unix(path)
    assert path.exists()
    other.close()


def test_a_path_that_is_too_long_is_told() -> None:
    with pytest.raises(OSError, match="too long"):
        listen_unix(Path("a" * 200))


def test_a_folder_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        listen_unix(path.parent / "nowhere" / "authz.sock")


def test_a_port_in_use_is_told_in_a_few_words() -> None:
    with listen_tcp("127.0.0.1", 0) as first:
        with pytest.raises(OSError, match="in use") as problem:
            listen_tcp("127.0.0.1", first.getsockname()[1])
        assert problem.value.strerror == "Address already in use"


async def test_several_listeners_share_a_port_if_all_of_them_want_to() -> None:
    with listen_tcp("127.0.0.1", 0, reuse_port=True) as first:
        port = first.getsockname()[1]
        listen_tcp("127.0.0.1", port, reuse_port=True).close()
        with pytest.raises(OSError, match="in use"):
            listen_tcp("127.0.0.1", port)


async def test_the_address_of_ipv6_that_means_all_takes_ipv4_too() -> None:
    with listen_tcp("::", 0) as bound:
        _, writer = await soon(asyncio.open_connection("127.0.0.1", bound.getsockname()[1]))
        writer.close()
        await writer.wait_closed()


def test_every_address_is_both_families() -> None:
    with listen_tcp(every_address(), 0) as bound:
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, bound.getsockname()[1]), timeout=PATIENCE).close()


def test_every_address_is_that_of_ipv4_where_there_is_no_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def without_ipv6(family: int = socket.AF_INET, *rest: int, **named: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *rest, **named)

    real = socket.socket
    monkeypatch.setattr(socket, "socket", without_ipv6)
    assert every_address() == "0.0.0.0"  # noqa: S104


async def test_grpc_is_refused_where_nobody_listens_any_more(path: Path) -> None:
    async with listening(path=path, caller_of=from_xfcc(SERVICE)):
        pass
    async with aio.insecure_channel(f"unix:{path}") as channel:
        with pytest.raises(aio.AioRpcError) as failed:
            await Client(channel).ask(b"", {})
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
