"""The table of targets: which runs it takes, and when a target is met."""

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from authz.config import Transport
from loadtest import targets
from loadtest.bench import Measured
from loadtest.client_run import ClientRun, histogram
from loadtest.processes import Cpu
from loadtest.stack import Stack
from loadtest.targets import Runs

MIB = 1 << 20


def run(transport: Transport, *, cpu_us: float, p50_us: int = 100) -> Measured:
    latencies = histogram()
    latencies.record_value(p50_us, 1000)
    encoded = str(latencies.encode(), "ascii")
    return Measured(
        plan=targets.PLANS["verify"],
        transport=transport,
        workers=1,
        outcome=ClientRun(100_000, 2.5, 1.0, encoded, encoded),
        cpu=Cpu(cpu_us / 10, cpu_us / 10, 0),
        resident_before=100 * MIB,
        resident_warm=101 * MIB,
        resident_after=120 * MIB,
    )


def runs(**cpu_us: float) -> Runs:
    """Runs in which all is well, but for what is given another cost."""
    made: Runs = {}
    for name in [*targets.PLANS, "idle connections"]:
        ours = cpu_us.get(name.replace(" ", "_"), 20.0)
        plan = replace(targets.PLANS["verify"], connections=100)
        made[name, "http2"] = [replace(run(Transport.HTTP2, cpu_us=ours), plan=plan)]
        made[name, "grpcio"] = [run(Transport.GRPCIO, cpu_us=300, p50_us=900)]
    return made


def test_all_targets_can_be_met() -> None:
    rows = targets.rows(runs())
    assert [row.what for row in rows if row.met is False] == []
    assert len([row for row in rows if row.met]) == 15


@pytest.mark.parametrize(
    ("name", "cpu_us", "missed"),
    [
        ("verify", 25.5, "CPU per Check, verify"),
        ("sign", 25.5, "CPU per Check, sign"),
        ("10,000_namespaces", 25, "traffic of 10,000 namespaces"),
        ("sign,_first_sight", 81, "first sight: sign"),
    ],
)
def test_a_target_that_is_missed_is_said(name: str, cpu_us: float, missed: str) -> None:
    rows = targets.rows(runs(**{name: cpu_us}))
    (row,) = [row for row in rows if row.met is False]
    assert row.what.startswith(missed)
    assert f"{cpu_us:g} µs" in row.measured
    assert "**no**" in targets.markdown([row])


def test_a_tenth_of_grpcio_is_not_enough() -> None:
    slow = runs()
    slow["sign", "grpcio"] = [run(Transport.GRPCIO, cpu_us=200)]
    assert [row.what for row in targets.rows(slow) if row.met is False] == [
        "CPU per Check, sign, warm, 32 in flight, plaintext"
    ]


async def test_runs_are_repeated_in_turn_on_servers_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "PLANS", {"verify": replace(targets.PLANS["verify"], warmup=0)})
    monkeypatch.setattr(targets, "_IDLE", replace(targets._IDLE, connections=100))
    told: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory))
        await stack.keys.make_keys()
        done = await targets.measure(stack, repeat=2, seconds=0.1, tell=told.append)
    assert {place: len(each) for place, each in done.items()} == {
        ("verify", "http2"): 2,
        ("verify", "grpcio"): 2,
        ("idle connections", "http2"): 1,
    }
    assert not any(one.problems for each in done.values() for one in each)
    (idle,) = done["idle connections", "http2"]
    assert 10 < (idle.resident_warm - idle.resident_before) / 100 / 1024 < 500
    assert len(told) == 5
