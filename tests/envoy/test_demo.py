"""The demo, as somebody types it: every scenario as expected, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

SCENARIOS = """
    own-namespace own-namespace-by-ip own-namespace-through-hop
    sibling sibling-through-hop sibling-by-short-name
    foreign foreign-through-hop foreign-by-ip
    granted granted-through-hop granted-elsewhere granted-backwards
    shadow shadow-through-hop shadow-outwards
    external hostile-pod-by-ip hostile-pod-by-name
    public public-through-hop public-refused public-with-stolen-token
    own-token forged-behind-sidecar forged forged-through-hop nearly-expired expired duplicated
    stolen stolen-through-hop stolen-through-hop-by-friend stolen-from-gateway
    replayed-elsewhere replayed-elsewhere-through-hop
    own-tls-own-tenant own-tls-foreign own-tls-hop own-tls-hop-steered own-tls-claims-platform
    no-sidecar-plaintext no-sidecar-tls no-sidecar-impostor pod-by-ip-plaintext
    ask-sign ask-sign-as-another ask-verify ask-verify-stolen ask-transit ask-public
    ask-tcp ask-tcp-own ask-unknown ask-nothing ask-twice ask-impostor
    root-rotated root-rotated-new namespace-rotated
    namespace-revoked namespace-revoked-new namespace-revoked-others
    service-down service-down-hop service-down-public service-down-shadow service-down-external
    service-back service-back-denies
"""


@asynccontextmanager
async def demo(
    executable: Path, directory: Path, *flags: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the demo with `directory` for its temporary files."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "authz", "demo", *flags),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "AUTHZ_ENVOY": str(executable), "TMPDIR": str(directory)},
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def left_behind(directory: Path) -> list[str]:
    """Files in `directory`, and processes that were started with something in it."""
    processes = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = command.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            processes += [line] if str(directory) in line else []
    return processes + [str(path) for path in directory.iterdir()]


async def test_all_scenarios_are_as_expected(executable: Path, tmp_path: Path) -> None:
    async with demo(executable, tmp_path, "--once", "--json") as process:
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    result = json.loads(output)
    assert [scenario["name"] for scenario in result["scenarios"]] == SCENARIOS.split()
    assert [it for it in result["scenarios"] if not it["ok"]] == []
    assert result["differences"] == 0
    assert left_behind(tmp_path) == []


async def test_it_stays_up_until_it_is_interrupted(executable: Path, tmp_path: Path) -> None:
    async with demo(executable, tmp_path, "--json") as process:
        assert process.stderr is not None
        await process.stderr.readuntil(b"Ctrl-C ends it.")
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(output)["differences"] == 0
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("moment", [b"starting 8 Envoys", b"playing the scenarios"])
async def test_it_cleans_up_after_ctrl_c(executable: Path, tmp_path: Path, moment: bytes) -> None:
    async with demo(executable, tmp_path) as process:
        assert process.stderr is not None
        await process.stderr.readuntil(moment)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all processes of the demo
        await process.communicate()
    assert process.returncode == 3
    assert left_behind(tmp_path) == []


async def test_it_says_when_there_is_no_envoy(tmp_path: Path) -> None:
    async with demo(tmp_path / "no-envoy", tmp_path, "--once") as process:
        _, errors = await process.communicate()
    assert process.returncode == 3
    assert b"no-envoy is not an executable file" in errors
