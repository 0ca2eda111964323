"""What runs inside pods: its server and its calls, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz import wire
from authz.conformance import MATRIX, probe
from authz.conformance.matrix import ALLOWED, DENIED, KEPT_OUT
from authz.conformance.run import outcome
from authz.testing import Case, Result
from tests.support.waiting import at_last


@contextmanager
def serving(kind: str) -> Iterator[int]:
    server = probe.server(f"{kind}0")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_it_says_the_words_of_the_wire_as_we_do() -> None:
    assert (probe.TOKEN, probe.REASON) == (wire.TOKEN_HEADER, wire.REASON_HEADER)


def test_it_tells_what_came_of_calls_as_json(tmp_path: Path) -> None:
    with serving("") as http, serving("tcp:") as tcp:
        calls = [
            {"url": f"http://127.0.0.1:{http}/"},
            {
                "url": "http://name/",
                "connect": f"127.0.0.1:{http}",
                "headers": [["X-Tenant-Token", "a"]],
            },
            {"url": f"tcp://127.0.0.1:{tcp}"},
            {"url": "http://127.0.0.1:1/"},
            {"url": "tcp://127.0.0.1:1"},
        ]
        words = [sys.executable, probe.__file__, "call", json.dumps(calls)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        subprocess.run([*words, str(tmp_path / "said")], check=True)
    wanted = [
        {"status": 200},
        {"status": 200, "token": True},
        {"status": 200},
        {"status": 0, "error": "ConnectionRefusedError"},
        {"status": 0, "error": "ConnectionRefusedError"},
    ]
    assert json.loads(done.stdout) == json.loads((tmp_path / "said").read_text()) == wanted


@pytest.mark.parametrize("alone", [False, True], ids=["any process", "process 1"])
def test_it_ends_when_it_is_told_to(alone: bool) -> None:
    """The kernel passes process 1 no signal that it does not handle: its pod would live on."""
    words = [sys.executable, probe.__file__, "serve", "0"]
    if alone:
        if subprocess.run(["unshare", "--pid", "--kill-child", "true"], check=False).returncode:
            pytest.skip("only root may make a PID namespace")
        words = ["unshare", "--pid", "--kill-child", *words]
    with subprocess.Popen(words) as process:
        try:
            it = _served(process.pid)
            os.kill(it, signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
        finally:
            process.kill()


def _served(parent: int) -> int:
    """The probe's process, once it listens: the one that was started, or its child."""

    def listening() -> int | None:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        pid = int(children[0]) if children else parent
        files = [it.readlink().name for it in Path(f"/proc/{pid}/fd").iterdir() if it.is_symlink()]
        return pid if any(file.startswith("socket:") for file in files) else None

    return at_last(listening, "it listens")


def test_what_it_says_fits_into_a_termination_message() -> None:
    longest = {
        "status": 403,
        "reason": "token-invalid",
        "token": True,
        "error": "RemoteDisconnected",
    }
    rows = max(sum(row.call.caller == it for row in MATRIX) for it in ("a", "b", "bare"))
    assert len(json.dumps([longest] * rows)) < 4096


def test_it_imports_nothing_but_the_standard_library() -> None:
    isolated = [sys.executable, "-I", "-S", probe.__file__, "call", "[]"]
    assert subprocess.run(isolated, capture_output=True, check=True).stdout == b"[]\n"


@pytest.mark.parametrize(
    ("must", "came", "ok"),
    [
        (ALLOWED, {"status": 200}, True),
        (ALLOWED, {"status": 200, "token": True}, False),
        (ALLOWED, {"status": 403, "reason": "not-allowed"}, False),
        (ALLOWED, {"status": 0}, False),
        (DENIED, {"status": 403, "reason": "not-allowed"}, True),
        (DENIED, {"status": 403}, False),
        (DENIED, {"status": 503, "reason": "not-allowed"}, False),
        (DENIED, {"status": 200}, False),
        (KEPT_OUT, {"status": 0}, True),
        (KEPT_OUT, {"status": 503}, True),
        (KEPT_OUT, {"status": 200}, False),
        (KEPT_OUT, {"status": 204}, False),
    ],
)
def test_what_counts(must: str, came: dict[str, object], ok: bool) -> None:
    assert Result(Case("a call", "", must, None, is_pattern=True), outcome(came)).ok is ok
