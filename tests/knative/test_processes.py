"""The stand-ins as processes, as the model mesh starts them."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from authz.lab.box.knative.messages import Headers, Request
from authz.lab.box.knative.net import call
from tests.envoy.bench import free_port
from tests.knative.support import HOST, REVISION, get
from tests.support.waiting import PATIENCE, eventually

SIZE = 20 << 20
NAMES = ["app", "queue_proxy", "pod", "activator", "eventing", "autoscaler", "callers"]


@contextmanager
def process(name: str, *options: object) -> Iterator[subprocess.Popen[str]]:
    """Run one until the block ends; it must then end by itself, well."""
    argv = [sys.executable, "-m", f"authz.lab.box.knative.{name}", *map(str, options)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
            yield child
            child.send_signal(signal.SIGTERM)
            assert child.wait(PATIENCE) == 0
        finally:
            child.kill()


def pod_options(control: Path) -> tuple[list[object], str]:
    """Free ports for a pod, and where its queue-proxy then is."""
    http1, app = free_port(), free_port()
    options: list[object] = ["--address", http1.host, "--app-address", app.host]
    options += ["--port", app.port, "--http1-port", http1.port, "--quiet-seconds", 0.01]
    for name in ("http2", "autoscaler", "metrics", "admin"):
        options += [f"--{name}-port", 0]
    return [*options, "--control", control], f"{http1.host}:{http1.port}"


@pytest.mark.parametrize("name", NAMES)
def test_each_tells_its_options(name: str) -> None:
    argv = [sys.executable, "-m", f"authz.lab.box.knative.{name}", "--help"]
    started = time.monotonic()
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert f"python -m authz.lab.box.knative.{name}" in text
    assert time.monotonic() - started < PATIENCE


async def test_a_pod_behind_an_activator(tmp_path: Path) -> None:
    """Scaled from zero over the control socket; 20 MB pass and are not held."""
    at = free_port()
    sockets = tmp_path / "pod", tmp_path / "activator"
    options, queue_proxy = pod_options(sockets[0])
    with ExitStack() as stack:
        pod = stack.enter_context(process("pod", *options))
        listen = ["--address", at.host, "--http1-port", at.port, "--http2-port", 0]
        activator = stack.enter_context(process("activator", *listen, "--control", sockets[1]))
        wanted = json.dumps({"pods": [queue_proxy]}).encode()
        change = Request("PUT", f"/revisions/{REVISION}", "_")
        response, _ = await call(sockets[1], change, wanted)
        assert response.status == 200

        async def ready() -> dict[str, Any] | None:
            _, answer = await call(sockets[1], get("/revisions"))
            status: dict[str, Any] = json.loads(answer)[REVISION]
            return status if status["ready"] else None

        assert (await eventually(ready, "it is ready"))["wakeups"] == 0
        where = f"{at.host}:{at.port}"
        await call(where, Request("POST", "/first", HOST), b"x")
        before = peak(pod.pid), peak(activator.pid)
        for version in (1, 2):
            request = Request("POST", "/store", HOST, Headers(), version=version)
            response, answer = await call(where, request, bytes(SIZE))
            assert (response.status, json.loads(answer)["length"]) == (200, SIZE)
        after = peak(pod.pid), peak(activator.pid)
        assert all(b - a < SIZE / 2 for a, b in zip(before, after, strict=True)), (before, after)
        _, answer = await call(sockets[0], get("/seen"))
        assert [one["path"] for one in json.loads(answer)] == ["/first", "/store", "/store"]
        await call(sockets[0], Request("DELETE", "/seen", "_"))
        _, answer = await call(sockets[0], get("/seen"))
        assert json.loads(answer) == []
        response, _ = await call(where, get("/seen"))
        assert response.status == 200  # which the app took for any other path
        _, answer = await call(sockets[0], get("/seen"))
        assert [one["path"] for one in json.loads(answer)] == ["/seen"]


def peak(pid: int) -> int:
    """The most memory that a process has had resident, in octets."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("/revisions/shop", b'{"pods": []}', "is not NS/NAME"),
        (f"/revisions/{REVISION}", b'{"pods": ["10.0.0.1"]}', "is not host:port"),
        (f"/revisions/{REVISION}", b"{}", "pods"),
        (f"/revisions/{REVISION}", b"[", "JSON"),
    ],
)
async def test_a_wrong_change_changes_nothing_and_says_why(
    tmp_path: Path, path: str, content: bytes, problem: str
) -> None:
    at = free_port()
    control = tmp_path / "activator"
    listen = ["--address", at.host, "--http1-port", 0, "--http2-port", 0, "--control", control]
    with process("activator", *listen):
        response, answer = await call(control, Request("PUT", path, "_"), content)
        assert response.status == 400
        assert problem in answer.decode()
        _, answer = await call(control, get("/revisions"))
        assert answer == b"{}"


async def test_the_app_greets_first_on_its_raw_port() -> None:
    """As MySQL, SMTP or FTP do: what a proxy in front has to keep from strangers."""
    tcp = free_port()
    listen = ["--app-address", tcp.host, "--port", 0, "--tcp-port", tcp.port]
    with process("app", *listen):
        reader, writer = await asyncio.open_connection(*tcp)
        assert await reader.readline() == b"220 welcome\r\n"
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()
