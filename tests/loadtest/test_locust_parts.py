"""What decides whether a run of Locust was good, apart from Locust."""

import asyncio
import math
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from authz.lab.loopback import mesh as demo
from authz.lab.world.model import Json
from authz.testing import Outcome
from loadtest.swarm.control import StackFailed, listening, tell
from loadtest.swarm.expect import Change, Timeline, Worth, judge
from loadtest.swarm.report import Happened, put, timeline, verdict
from loadtest.swarm.result import Result, unanswered
from loadtest.swarm.stack import _with_endpoints

GOOD = Result(requests=1000, failed=0, wrong=0, either=5, unsigned=0, p50_ms=3, p99_ms=40)


@pytest.mark.parametrize(
    ("seen", "expected", "worth"),
    [
        ("200 acme-db", "200 acme-db", Worth.RIGHT),
        ("403 not-allowed", "403 not-allowed", Worth.RIGHT),
        ("403 token-missing", "403 token-missing", Worth.RIGHT),
        ("200 acme-db", "403 not-allowed", Worth.WRONG),
        ("403 not-allowed", "200 acme-db", Worth.WRONG),
        ("403 token-invalid", "200 acme-db", Worth.WRONG),
        ("403", "200 acme-db", Worth.WRONG),
        ("200 mallory", "200 acme-db", Worth.WRONG),
        ("200 acme-db, WITH A TOKEN", "200 acme-db", Worth.WRONG),
        ("200 acme-db, WITH A TOKEN", None, Worth.WRONG),
        ("200 acme-db", None, Worth.EITHER),
        ("403 not-allowed", None, Worth.EITHER),
        ("200 external, with what its app wrote for a token", "200 external", Worth.FAILED),
        ("503", None, Worth.FAILED),
        ("503", "403 not-allowed", Worth.FAILED),
        ("no answer: UNAVAILABLE", "200", Worth.FAILED),
        ("403 token-missing", "200 acme-db", Worth.FAILED),
        ("403 token-missing", "403 not-allowed", Worth.FAILED),
        ("403 token-invalid", "403 not-allowed", Worth.FAILED),
    ],
)
def test_an_outcome_is_judged(seen: str, expected: str | None, worth: Worth) -> None:
    found, why = judge(Outcome(seen), expected)
    assert found is worth
    assert bool(why) == (worth in {Worth.WRONG, Worth.FAILED})


def test_a_change_counts_before_and_after_its_window_and_not_in_it() -> None:
    timeline = Timeline((Change("keys", 10, 12), Change("grant", 30), Change("keys", 40, 41)))
    assert timeline.version("keys", 1, 9.9) == 0
    assert timeline.version("keys", 9, 10) is None
    assert timeline.version("keys", 11, 11.5) is None
    assert timeline.version("keys", 9, 50) is None  # it was there all the time
    assert timeline.version("keys", 12, 13) is None
    assert timeline.version("keys", 12.1, 39) == 1
    assert timeline.version("keys", 42, 43) == 2
    assert timeline.version("grant", 1, 2) == 0
    assert timeline.version("grant", 1_000, 1_001) is None  # nobody has said that it is done


def test_changes_survive_the_way_to_other_processes() -> None:
    timeline = Timeline()
    timeline.replace([["keys", 10, 12], ["grant", 30, math.inf]])
    assert timeline.changes == (Change("keys", 10, 12), Change("grant", 30))


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (Result(1000, 0, 1, 0, 0, 1, 2), "wrong outcomes: 1"),
        (Result(1000, 2, 0, 0, 2, 1, 2), "2 requests had no token, and only 1 times"),
        (Result(0, 0, 0, 0, 0, 0, 0), "there were no requests"),
        (Result(1000, 11, 0, 0, 0, 1, 2), "11 of 1000, more than --max-fail-ratio 0.01"),
        (Result(1000, 0, 0, 0, 0, 1, 101), "p99: 101 ms, more than --max-p99-ms 100"),
    ],
)
def test_each_threshold_breaks_alone(result: Result, problem: str) -> None:
    (found,) = result.broken(max_p99_ms=100, max_fail_ratio=0.01, unanswered=1)
    assert problem in found


def test_a_good_run_breaks_none() -> None:
    assert GOOD.broken(max_p99_ms=40, max_fail_ratio=0, unanswered=0) == []
    unsigned = Result(1000, 2, 0, 0, 2, 3, 40)
    assert unsigned.broken(max_p99_ms=40, max_fail_ratio=0.002, unanswered=2) == []
    assert unanswered({"unsigned": 3}, {"unsigned": 5}) == 2


async def _handle(order: Mapping[str, Any]) -> Mapping[str, Any]:
    if order["do"] == "fail":
        raise StackFailed("not today")
    return {"got": order["namespace"]}


async def test_orders_reach_the_stack_and_its_errors_come_back(tmp_path: Path) -> None:

    path = tmp_path / "control"
    async with listening(path, _handle):
        answer = await asyncio.to_thread(tell, str(path), "issue", namespace="n")
        assert answer == {"got": "n"}
        with pytest.raises(StackFailed, match="could not 'fail': StackFailed: not today"):
            await asyncio.to_thread(tell, str(path), "fail")
        with pytest.raises(StackFailed, match="KeyError: 'namespace'"):
            await asyncio.to_thread(tell, str(path), "issue")


def test_no_stack_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StackFailed, match="no answer from the stack"):
        tell(str(tmp_path / "control"), "site")


def test_a_stack_that_ends_early_is_said_so(tmp_path: Path) -> None:
    path = str(tmp_path / "control")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with pytest.raises(StackFailed, match="to 'site': timed out"):
            tell(path, "site", patience=0.05)


def test_sidecars_have_our_cluster_as_istiod_sent_it_but_for_where_endpoints_come_from(
    tmp_path: Path,
) -> None:
    mesh = demo.plan(tmp_path)
    for config in demo.configs(mesh).values():
        (before,) = (dict(it) for it in _ours(config))
        (cluster,) = _ours(_with_endpoints(config, tmp_path / "endpoints.json"))
        assert {k for k in cluster if cluster.get(k) != before.get(k)} == {
            "type",
            "eds_cluster_config",
        }
        assert cluster["outlier_detection"]["consecutive_5xx"] == 3
        assert cluster["eds_cluster_config"]["eds_config"]["path_config_source"] == {
            "path": str(tmp_path / "endpoints.json")
        }


def _ours(config: Json) -> list[Json]:
    return [it for it in config["static_resources"]["clusters"] if it["name"] == demo.AUTHZ_CLUSTER]


def test_the_report_says_why_a_run_was_bad_and_what_happened(tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text('<body><div id="root"></div></body>')
    result = Result(10, 1, 1, 0, 0, 1.0, 2.0)
    happened = [Happened("<b>rotated", 101.0, 102.5)]
    assert put(file, verdict(result, ["wrong outcomes: <1>"]), timeline(happened, 100.0, 110.0))
    text = file.read_text()
    assert text.index("FAILED: 10 legitimate") < text.index('id="root"')
    assert "<li>wrong outcomes: &lt;1&gt;</li>" in text
    assert "<li>&lt;b&gt;rotated: from 1.0 s to 2.5 s</li>" in text
    assert 'x="100.0" y="6" width="150.0"' in text
    assert "<b>" not in text
    file.write_text("another Locust's")
    assert not put(file, verdict(result, []))
    assert file.read_text() == "another Locust's"
