"""Side by side: what is compared decides rightly, and nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from authz._proto.ext_authz_pb2 import CheckResponse
from loadtest import processes
from loadtest.compare.rounds import WrongOutcome, compare
from loadtest.compare.schedule import Comparison, Schedule
from loadtest.compare.variants import PLAIN, Variant, built_in, cheaper, external
from loadtest.plan import BadPlan
from loadtest.stack import Stack

QUICK = Schedule(connections=[2], rates=[50], repeat=1, seconds=0.1, warmup=0.05)
SHORT = (
    *("--connections", "2", "--rate", "50"),
    *("--repeat", "1", "--seconds", "0.1", "--warmup", "0.05"),
)


def of(word: str) -> Variant:
    (found,) = [each for each in built_in() if word in each.name]
    return found


async def compared(*variants: Variant, schedule: Schedule = QUICK) -> Comparison:
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory))
        await stack.keys.make_keys()
        return await compare(stack, Path(directory), variants, schedule, lambda text: None)


@pytest.fixture
async def another() -> AsyncIterator[str]:
    """Somebody else's ext_authz server, which lets everybody in."""

    async def check(request: bytes, context: object) -> bytes:
        del request, context
        return CheckResponse().SerializeToString()

    handler: Any = grpc.unary_unary_rpc_method_handler(check)
    service = "envoy.service.auth.v3.Authorization"
    server = aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"Check": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"another=127.0.0.1:{port}"
    await server.stop(0)


@pytest.mark.envoy
async def test_every_variant_answers_rightly_and_is_measured(another: str) -> None:
    variants = [*built_in(), *cheaper(), external(another)]
    done = await compared(*variants, schedule=replace(QUICK, processes=2))
    assert len(done.samples) == 10 * 2
    for sample in done.samples:
        assert not sample.outcome.problems, sample.variant
        assert sample.outcome.right
        assert min(sample.client_envoy, sample.server_envoy) > 0
        # The other server runs in this very process.
        assert (sample.authz is not None) == (
            sample.variant.split(",")[0] in {"tenant-authz", "asking otherwise", "another"}
        )


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inbound": []}, "Lua per namespace: the app saw the token"),
        ({"outbound": []}, "Lua per namespace: HTTP status 403 in place of 200"),
        (
            {"outbound": [], "inbound": []},
            "Lua per namespace: 200 in place of 403 without a token",
        ),
    ],
)
async def test_a_variant_that_decides_wrongly_is_not_measured(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(WrongOutcome) as found:
        await compared(replace(of("Lua"), **changes))
    assert str(found.value) == said


def test_static_secrets_are_new_and_hidden() -> None:
    first, second = (of("Lua") for _ in range(2))
    assert first.outbound != second.outbound
    assert first.note == second.note


@pytest.mark.parametrize(
    "given", ["opa", "opa=", "=127.0.0.1:1", "opa=127.0.0.1", "opa=h:0", "opa=h:x"]
)
def test_a_target_that_cannot_be_is_a_usage_error(given: str) -> None:
    with pytest.raises(BadPlan, match="name=host:port"):
        external(given)


def test_a_target_without_an_address_is_a_usage_error() -> None:
    with pytest.raises(BadPlan, match="no IPv4 address"):
        external("opa=nowhere.invalid:1")


@pytest.mark.parametrize(
    "given",
    [
        {"connections": [0]},
        {"rates": [0.5]},
        {"repeat": 0},
        {"seconds": 0},
        {"connections": [], "rates": []},
    ],
)
def test_a_course_that_cannot_be_is_a_usage_error(given: dict[str, Any]) -> None:
    with pytest.raises(BadPlan):
        Schedule(**given)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "loadtest", *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.envoy
def test_one_command_makes_results_table_and_page(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("json", "page", "markdown")}
    options = [f"--{name}={file}" for name, file in files.items()]
    done = run("compare", "--only", PLAIN, "--only", "http2", *SHORT, *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(files["json"].read_text())
    names = [each["name"] for each in report["results"]]
    assert names == [
        f"{v}, {p}" for v in (PLAIN, "tenant-authz, http2") for p in ("2 connections", "50/s")
    ]
    assert report["envoy"].count(".") == 2
    assert "| tenant-authz, http2 |" in files["markdown"].read_text()
    assert "What the numbers do not say" in files["page"].read_text()
    # The same once more, without measuring.
    again = run("compare", "--from", str(files["json"]), "--markdown", "-")
    assert again.stdout == files["markdown"].read_text()


@pytest.mark.envoy
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_behind_when_it_is_interrupted(how: signal.Signals) -> None:
    """SIGINT goes to all processes, as Ctrl-C on a terminal does."""
    with subprocess.Popen(
        [sys.executable, "-m", "loadtest", "compare", "--only", "http2", "--seconds", "30"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "1/3" in line:
                break
        started = processes.family(process.pid)
        assert len(started) > 4
        if how is signal.SIGINT:
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        rest = process.stderr.read()
        assert process.wait(60) == {signal.SIGINT: 130, signal.SIGTERM: 3}[how], rest
    assert "Traceback" not in rest
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
