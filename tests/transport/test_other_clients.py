"""Clients that share no code with us or with grpcio, where they are installed: nghttp2's."""

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from tests.http2 import wire
from tests.support.waiting import soon
from tests.transport.support import INSECURE, SHOP, listening


@pytest.fixture
def body(tmp_path: Path) -> Path:
    """A gRPC message in a file."""
    file = tmp_path / "body"
    file.write_bytes(wire.framed(b"hello"))
    return file


async def run(tool: str, *arguments: str | Path) -> str:
    """What a tool says; skips the test if there is none."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian: nghttp2-client)")
    process = await asyncio.create_subprocess_exec(
        tool, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await soon(process.communicate())
    assert process.returncode == 0, said.decode()
    return said.decode()


HEADERS = (
    *("-H", "content-type: application/grpc"),
    *("-H", "te: trailers"),
    *("-H", f"{INSECURE}: {SHOP}"),
)


async def test_nghttp_gets_an_answer(body: Path) -> None:
    async with listening() as server:
        url = f"http://127.0.0.1:{server.port}{wire.CHECK}"
        said = await run("nghttp", "-v", "-n", "-d", body, *HEADERS, url)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert ":status: 200" in plain
    assert "grpc-status: 0" in plain
    assert "GOAWAY" not in plain.partition("send GOAWAY")[0]
    assert server.asked.requests == [b"hello"]
    assert server.asked.callers == [SHOP]


@pytest.mark.parametrize("window", [(), ("-w", "8", "-W", "8")], ids=["wide", "narrow"])
async def test_h2load_gets_all_of_its_answers(body: Path, window: tuple[str, ...]) -> None:
    async with listening() as server:
        server.asked.answer = bytes(300)
        url = f"http://127.0.0.1:{server.port}{wire.CHECK}"
        load = "-n", "5000", "-c", "10", "-m", "50"
        said = await run("h2load", *load, *window, "-d", body, *HEADERS, url)
    assert "5000 done, 5000 succeeded, 0 failed, 0 errored, 0 timeout" in said
    assert server.asked.requests == [b"hello"] * 5000
    assert set(server.closed) == {"client"}
