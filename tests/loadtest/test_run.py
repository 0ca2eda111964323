"""Runs against real servers: what is reported, and what fails."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from authz.config import IdentitySource, Transport
from authz.lab.harness.keyfiles import KeyFiles
from authz.testing import LET_IN, NOT_ALLOWED
from loadtest import tenants
from loadtest.bench import Measured, measured
from loadtest.cli import app, main
from loadtest.client_run import histogram
from loadtest.grpc_client import Client
from loadtest.plan import Ask, Plan
from loadtest.result import figures
from loadtest.stack import Server, Setup, Stack

QUICK = Plan(seconds=0.3, warmup=0.1)
SHORT = ("--seconds", "0.3", "--warmup", "0.1")


@asynccontextmanager
async def serving(setup: Setup, policy: str | None = None) -> AsyncIterator[tuple[Stack, Server]]:
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory))
        await stack.keys.make_keys()
        async with stack.serving(setup, policy) as server:
            yield stack, server


def test_a_run_reports_what_it_cost_and_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loadtest", "hotpath", *SHORT, "--json", "-"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    (run,) = report["runs"]
    assert report["machine"]["packages"]["grpcio"]
    assert run["checks"] > 100
    assert run["problems"] == {}
    assert run["plan"]["ask"] == "verify"
    assert histogram(run["latencies"]).get_total_count() == run["checks"]
    found = run["figures"]
    assert 0 < found["cpu_us"] < 10_000
    assert found["p50_us"] <= found["p99_us"] <= found["p99.9_us"] <= found["max_us"]
    assert found["checks_per_second"] == pytest.approx(run["checks"] / run["seconds"])
    (result,) = report["results"]
    assert result["name"] == "ask verify, seconds 0.3, warmup 0.1, http2"
    assert result["figures"] == {name: [value] for name, value in found.items()}
    assert "starting http2" in done.stderr


def test_answers_that_may_be_kept_are_measured_beside_others(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    done = CliRunner().invoke(app, ["hotpath", *SHORT, "--kept", "--json", str(file)])
    assert done.exit_code == 0, done.output
    names = [run["transport"] for run in json.loads(file.read_text())["runs"]]
    assert names == ["http2", "http2, answers may be kept"]


def test_wrong_answers_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_belongs_together = f'roles: {{transit: ["{tenants.ACTIVATOR}"]}}\n'
    monkeypatch.setattr(tenants, "policy", lambda namespaces: nobody_belongs_together)
    done = CliRunner().invoke(app, ["hotpath", *SHORT])
    assert done.exit_code == 1, done.output
    assert f"x {NOT_ALLOWED}, and should be {LET_IN}" in done.output


def test_a_plan_that_cannot_be_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["loadtest", "hotpath", "--namespaces", "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "namespaces: 0 is not between 1 and 10000" in capsys.readouterr().err


@pytest.mark.parametrize("transport", Transport)
async def test_mtls_with_many_identities_and_processes(transport: Transport) -> None:
    plan = replace(
        QUICK, ask=Ask.BOTH, identity=IdentitySource.MTLS, namespaces=6, connections=6, in_flight=4,
        processes=2, destinations=2, traceparent=True,
    )  # fmt: skip
    setup = Setup(transport=transport, identity=IdentitySource.MTLS)
    async with serving(setup) as (stack, server):
        run = await measured(stack, server, plan)
    assert_right(run)


async def test_first_sight_and_other_ways_in_plaintext() -> None:
    async with serving(Setup(identity=IdentitySource.INSECURE_METADATA, namespaces=30)) as (
        stack,
        server,
    ):
        plain = replace(QUICK, identity=IdentitySource.INSECURE_METADATA, ask=Ask.BOTH)
        first = replace(plain, first_sight=True, max_calls=500, seconds=10)
        for plan in (plain, first, replace(plain, namespaces=30, connections=3, rate=300)):
            run = await measured(stack, server, plan)
            assert_right(run)
            assert run.checks <= 500 or not plan.first_sight
            assert ("client_late_p99_us" in figures(run)) == bool(plan.rate)


async def test_a_stall_counts_for_every_call_that_should_have_begun_in_it() -> None:
    plan = replace(QUICK, rate=1000, seconds=0.9, in_flight=4)
    async with serving(Setup()) as (stack, server):
        (share,) = stack.shares(plan, server)
        client = Client(share, await KeyFiles(Path(share.keys)).keyring())
        await client.prepare()
        running = asyncio.create_task(client.measure())
        await asyncio.sleep(0.2)
        os.kill(server.pid, signal.SIGSTOP)
        await asyncio.sleep(0.4)
        os.kill(server.pid, signal.SIGCONT)
        outcome = await running
        client.close()
    assert outcome.problems == {}
    assert outcome.right == 900
    latencies = histogram(outcome.latencies)
    late = sum(
        item.count_at_value_iterated_to
        for item in latencies.get_recorded_iterator()
        if item.value_iterated_to > 200_000
    )
    assert late > 150  # 200 calls should have begun in its first half; 4 were in flight
    assert latencies.get_max_value() > 350_000


def assert_right(run: Measured) -> None:
    assert not run.problems
    assert run.checks > 10
    assert run.cpu_us > 0
