"""The server as a process: sockets, descriptors, signals, starts that fail."""

import json
import re
import resource
import signal
import socket
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.testing import check_request, workload
from tests.server.support import TO_BANK, live, sign, verify
from tests.support.certificates import (
    SERVER_NAME,
    SERVICE,
)
from tests.support.clients import Client, connected, http_get, refused, token_in
from tests.support.processes import Folder, authz, serving
from tests.transport.support import XFCC, element

RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
BOTH = pytest.mark.parametrize("workers", ["1", "2"])


# A Unix socket ---------------------------------------------------------------------------------


async def test_a_sidecar_asks_over_a_unix_socket(folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "authz.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    flags = folder.flags(listen=f"unix:{path}", identity="xfcc", own_id=str(SERVICE))
    with serving(folder.path, flags) as process:
        assert process.line("listening")["path"] == str(path)
        process.ready()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            client = Client(channel)
            metadata = {
                "x-authz-question": "sign",
                "x-authz-upstream": TO_BANK,
                XFCC: element(workload("shop")),
            }
            answer = CheckResponse.FromString(await client.ask(check_request(), metadata))
            assert token_in(answer).startswith("v1.")
        second = authz("serve", *flags)
        assert second.returncode == 3
        assert f"listen: cannot listen on unix:{path}: Address already in use" in second.stderr
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0
        assert not path.exists()
        assert process.stderr == ""


async def test_a_unix_socket_may_ask_for_certificates(folder: Folder, tmp_path: Path) -> None:
    path = tmp_path / "authz.sock"
    certificate = folder.workload("shop")
    credentials = grpc.ssl_channel_credentials(
        certificate.ca_file.read_bytes(),
        certificate.key_file.read_bytes(),
        certificate.cert_file.read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with (
        live(folder, listen=f"unix:{path}") as here,
        grpc.aio.secure_channel(f"unix:{path}", credentials, options) as channel,
    ):
        await here.ready()
        assert (await sign(Client(channel))).startswith("v1.")


# File descriptors ------------------------------------------------------------------------------


def limited_to(soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_of_descriptors_is_raised_to_what_is_needed(folder: Folder) -> None:
    flags = folder.flags(max_connections="500", max_handshakes="100")
    with serving(folder.path, flags, limited_to(64, 2000)) as process:
        process.line("listening")
        limits = Path(f"/proc/{process.popen.pid}/limits").read_text()
        assert re.search(r"Max open files +728 +2000 ", limits)
        assert all(line["level"] == "info" for line in process.lines("listening"))
        assert "RLIMIT_NOFILE" not in process.stdout


async def test_connections_stay_below_the_hard_limit_of_descriptors(folder: Folder) -> None:
    flags = folder.flags(max_connections="5000")
    with serving(folder.path, flags, limited_to(64, 192)) as process:
        process.ready()
        (line,) = [json.loads(text) for text in process.stdout.splitlines() if "NOFILE" in text]
        assert line["level"] == "warning"
        assert (line["allowed"], line["needed"]) == (192, 5000 + 1024 + 128)
        assert (line["max_connections"], line["max_handshakes"]) == (48, 16)
        certificate = folder.workload("shop")
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connected(process.port, certificate))
                for _ in range(48)
            ]
            assert all([await sign(client) for client in clients])
            late = await stack.enter_async_context(connected(process.port, certificate))
            assert await refused(late.check("sign")) is grpc.StatusCode.UNAVAILABLE
            text = http_get(f"{process.http}/metrics")[1]
            assert 'authz_connections_closed_total{reason="limit"} 1.0' in text
            assert 'authz_connections_closed_total{reason="accept"} 0.0' in text
            assert await sign(clients[0])


async def test_limits_that_are_met_are_counted_by_name(folder: Folder) -> None:
    async with live(folder, max_message_bytes="1024") as here, here.asked_by("shop") as client:
        await here.ready()
        assert await refused(client.check("sign", bytes(2000))) is RESOURCE_EXHAUSTED
        assert await here.metric('authz_limits_met_total{limit="message"}') == 1
        assert await sign(client)


# As a process ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_it_with_0(folder: Folder, number: signal.Signals) -> None:
    with serving(folder.path, folder.flags(drain_seconds="1")) as process:
        process.ready()
        async with connected(process.port, folder.workload("shop")) as client:
            assert await sign(client)
            process.popen.send_signal(number)
            process.line("draining")
            assert http_get(f"{process.http}/readyz")[0] == 503
            assert await client.health() == "NOT_SERVING"
            assert await sign(client)
        assert process.ended() == 0
        assert process.lines("stopped")
        assert process.stderr == ""


@BOTH
async def test_signals_that_ask_for_a_reload_or_for_new_logs_end_nothing(
    folder: Folder, workers: str
) -> None:
    with serving(folder.path, folder.flags(workers=workers)) as process:
        process.ready()
        for number, name in enumerate(("SIGHUP", "SIGUSR1", "SIGUSR2"), 1):
            process.popen.send_signal(signal.Signals[name])
            assert process.line("signal without effect", number)["signal"] == name
        async with connected(process.port, folder.workload("shop")) as client:
            assert await sign(client)
        assert http_get(f"{process.http}/readyz")[0] == 200
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


@BOTH
async def test_every_address_of_both_families_is_served(folder: Folder, workers: str) -> None:
    everywhere = {"listen": "*:0", "http_listen": "*:0"}
    with serving(folder.path, folder.flags(workers=workers, **everywhere)) as process:
        side = process.ready().http.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            assert http_get(f"http://{host}:{side}/readyz")[0] == 200
            socket.create_connection((host.strip("[]"), process.port), timeout=5).close()


@pytest.mark.parametrize(("parser", "warned"), [("python", True), ("upb", False)])
def test_a_parser_that_is_not_compiled_is_warned_of(
    folder: Folder, parser: str, warned: bool
) -> None:
    chosen = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": parser}
    with serving(folder.path, folder.flags(), **chosen) as process:
        process.line("listening")
        lines = process.lines("protobuf parses in Python: a Check costs some ten times as much")
    assert bool(lines) == warned


async def test_a_second_signal_hurries_the_drain(folder: Folder) -> None:
    with serving(folder.path, folder.flags(drain_seconds="600")) as process:
        process.ready().popen.send_signal(signal.SIGTERM)
        process.line("draining")
        assert process.popen.poll() is None
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


def test_a_signal_ends_a_server_that_was_never_ready(keyless: Folder) -> None:
    with serving(keyless.path, keyless.flags()) as process:
        process.line("key store not usable")
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


@BOTH
def test_every_problem_of_a_bad_policy_is_on_stderr(folder: Folder, workers: str) -> None:
    folder.policy_file.write_text("x: 1\ngrants:\n- {to: a}\ndefault_mode: maybe\n")
    done = authz("serve", *folder.flags(workers=workers))
    assert done.returncode == 3
    assert "another takes its place" not in done.stdout  # no restart heals it
    named = f"policy_file: {folder.policy_file}: "
    assert done.stderr.splitlines() == [
        f"{named}line 4: default_mode: Input should be 'enforce', 'shadow' or 'off', not 'maybe'",
        f"{named}line 3: grants.0.from: is required",
        f"{named}line 1: x: there is no such field",
    ]


@BOTH
@pytest.mark.parametrize("setting", ["listen", "http_listen"])
def test_a_port_in_use_is_told_by_its_setting(folder: Folder, setting: str, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = authz("serve", *folder.flags(workers=workers, **{setting: address}))
    assert done.returncode == 3
    assert done.stderr == f"{setting}: cannot listen on {address}: Address already in use\n"


@BOTH
def test_only_workers_of_one_server_share_a_port(folder: Folder, workers: str) -> None:
    with serving(folder.path, folder.flags(workers=workers)) as process:
        for other in ("1", "2"):
            flags = folder.flags(listen=f"127.0.0.1:{process.port}", workers=other)
            assert authz("serve", *flags).returncode == 3
        assert process.ready().popen.poll() is None


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (
            {"listen": "9000", "token_seconds": "1", "tls_ca_file": None},
            ["token_seconds", "listen", "tls_ca_file"],
        ),
        ({"workers": "0"}, ["workers"]),
        ({"workers": "2", "tls_key_file": "/none"}, ["tls_key_file"]),
    ],
)
def test_bad_settings_are_told_all_at_once(
    folder: Folder, changed: dict[str, str | None], named: list[str]
) -> None:
    done = authz("serve", *folder.flags(**changed))
    assert done.returncode == 2
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == named
    assert "another takes its place" not in done.stdout


async def test_killing_a_server_harms_nobody_else(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    flags = folder.flags()
    with serving(tmp_path / "one", flags) as one, serving(tmp_path / "other", flags) as other:
        one.ready()
        other.ready()
        async with connected(one.port, folder.workload("shop")) as shop:
            token = await sign(shop)
        one.popen.kill()
        async with connected(other.port, folder.workload("bank")) as bank:
            assert await verify(bank, token) == "allowed"
