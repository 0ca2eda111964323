"""Locust itself, as somebody types it: good runs end with 0, and each kind of bad one with 1.

It patches the whole process that imports it, so all of it runs in processes of its own.
"""

import contextlib
import csv
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.lab.loopback.server import POLICY
from tests.support.waiting import at_last

ROOT = Path(__file__).parent.parent.parent
SECONDS = 90

# Envoys wait a quarter of a second for us, and the machine may be busy longer. A replica that is
# killed and not drained costs more than that.
TOLERANT = ("--max-fail-ratio", "0.005", "--max-p99-ms", "5000")


@pytest.fixture(scope="module")
def stack() -> Iterator[str]:
    """The control socket of a stack that all share."""
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest.swarm.stack", "--drain-seconds", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout is not None
        path = process.stdout.readline().strip()
        assert path
        yield path
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(SECONDS) == 0
    assert not Path(path).parent.exists()


def command(*flags: str) -> list[str]:
    file = str(ROOT / "loadtest" / "locustfile.py")
    return [sys.executable, "-m", "locust", "-f", file, *flags]


def run(*flags: str) -> tuple[int, str]:
    """A headless run: its exit code, and what it said."""
    done = subprocess.run(
        command("--headless", "--only-summary", *TOLERANT, *flags),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def rows(prefix: Path) -> list[dict[str, str]]:
    """The statistics that `--csv` wrote, but for the last row, which adds up the others."""
    with Path(f"{prefix}_stats.csv").open() as lines:
        return list(csv.DictReader(lines))[:-1]


def test_rotation_is_noticed_by_nobody(stack: str, tmp_path: Path) -> None:
    page = tmp_path / "run.html"
    code, said = run(
        *("--stack", stack, "--shape", "rotation", "-t", "4s"),
        *("--csv", str(tmp_path / "run"), "--html", str(page)),
    )
    assert code == 0, said
    assert said.count("now: all keys are rotated") == 2
    assert "0 wrong outcomes" in said
    found = {(row["Type"], row["Name"]) for row in rows(tmp_path / "run")}
    assert {("HTTP", "own namespace"), ("HTTP", "foreign"), ("CHECK", "verify, stolen")} <= found
    assert {kind for kind, _ in found} == {"HTTP", "CHECK"}
    html = page.read_text()
    assert "own namespace" in html
    assert html.count("GOOD: ") == 1
    assert html.count("<li>all keys are rotated: from ") == 2


def test_revocation_counts_within_its_window_in_all_processes(stack: str, tmp_path: Path) -> None:
    code, said = run(
        *("--stack", stack, "--shape", "revocation", "-t", "6s", "--processes", "2"),
        *("--csv", str(tmp_path / "run")),
    )
    assert code == 0, said
    assert said.count("done: initech's keys are revoked") == 2
    windows = [row for row in rows(tmp_path / "run") if row["Type"] == "WINDOW"]
    assert windows
    assert {row["Failure Count"] for row in windows} == {"0"}
    assert {row["Name"] for row in windows} <= {
        "granted", "granted, by the hop", "verify", "verify, foreign", "verify, held",
    }  # fmt: skip


def test_a_replaced_replica_fails_nobody(stack: str) -> None:
    code, said = run("--stack", stack, "--shape", "replacement", "-t", "6s")
    assert code == 0, said
    assert "done: a replica is replaced" in said


def test_new_tenants_need_nothing(stack: str, tmp_path: Path) -> None:
    code, said = run(
        "--stack", stack, "--shape", "churn", "-t", "3s", "--csv", str(tmp_path / "run")
    )
    assert code == 0, said
    counts = {row["Name"]: int(row["Request Count"]) for row in rows(tmp_path / "run")}
    assert counts["verify, new namespace"] > 0
    assert counts["verify, foreign to a new namespace"] > 0


def test_a_threshold_that_breaks_fails_the_run(stack: str) -> None:
    code, said = run("--stack", stack, "-t", "2s", "-u", "4", "--max-p99-ms", "0.01")
    assert code == 1
    assert re.search(r"FAILED: p99: [\d.]+ ms, more than --max-p99-ms 0.01", said)


def test_wrong_outcomes_fail_the_run_of_a_stack_of_its_own(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"{POLICY}  - {{to: acme-db, from: globex}}\n")
    code, said = run("-t", "5s", "--policy-file", str(policy), "--max-fail-ratio", "1")
    assert code == 1
    assert "wrong outcome: foreign: 200 acme-db, and should be 403 not-allowed" in said
    assert re.search(r"FAILED: wrong outcomes: [1-9]", said)
    assert re.search(r"^WRONG +verify, foreign +", said, re.MULTILINE)


def test_a_stack_that_is_not_there_fails_the_run(tmp_path: Path) -> None:
    code, said = run("--stack", str(tmp_path / "nothing"), "-t", "1s")
    assert code == 1
    assert "no answer from the stack at" in said


def test_the_web_ui_starts_runs_of_any_shape(stack: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command(*TOLERANT, "--stack", stack, "--web-host", "127.0.0.1", "--web-port", str(port)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    ) as process:
        at_last(lambda: _page(url), "the page is there")
        form = {"user_count": "5", "spawn_rate": "5", "run_time": "3s", "shape": "reload"}
        assert _page(f"{url}/swarm", form)
        at_last(lambda: _stats(url)["state"] == "stopped", "the run is over")
        stats = _stats(url)
        assert stats["total_rps"] >= 0
        assert {stat["method"] for stat in stats["stats"]} >= {"HTTP", "CHECK", "WINDOW"}
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, said
    assert "done: the grant for initech is back" in said


def _page(url: str, form: dict[str, str] | None = None) -> bytes:
    """What is there; nothing, if nobody listens yet."""
    data = urllib.parse.urlencode(form).encode() if form else None
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(urllib.request.Request(url, data), timeout=SECONDS) as answer,  # noqa: S310
    ):
        found: bytes = answer.read()
        return found
    return b""


def _stats(url: str) -> dict[str, Any]:
    stats: dict[str, Any] = json.loads(_page(f"{url}/stats/requests"))
    return stats
