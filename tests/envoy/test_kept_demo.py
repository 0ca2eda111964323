"""Every scenario of the demo a second time, with sidecars that give answers again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Final

import pytest

from authz.lab.harness.envoy import Envoy
from authz.lab.harness.service import KEPT
from authz.lab.loopback import mesh, server
from authz.lab.loopback.actions import Action
from authz.lab.loopback.environment import Environment
from authz.lab.loopback.scenarios import SCENARIOS
from authz.testing import Case, Outcome, Result
from tests.envoy.keeping import patiently

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(600)]

CHANGES: Final = ("root-", "namespace-", "service-")
"""How the names of scenarios begin that change something, or come after it."""
PATIENCE: Final = 60.0
"""Seconds; a busy machine is slower than two."""


async def test_every_scenario_comes_out_as_without_it(tmp_path: Path) -> None:
    cluster = mesh.plan(tmp_path)
    configs = mesh.configs(cluster, "reuse")
    for config in configs.values():
        patiently(config)
    async with (
        server.running(cluster, tmp_path, KEPT) as authz,
        mesh.running(cluster, tmp_path, configs) as envoys,
    ):
        environment = Environment(cluster, authz, tmp_path)

        async def played(case: Case[Action]) -> Result[Action]:
            own = Path(mkdtemp(dir=tmp_path))  # for what a case writes
            return Result(case, await case.call(replace(environment, directory=own)))

        still = [scenario for scenario in SCENARIOS if not scenario.name.startswith(CHANGES)]
        assert still != list(SCENARIOS)
        for case in (*still, *still):  # cold, then warm
            await _comes_out(case, played)
        assert await _not_asked(envoys)
        for case in SCENARIOS:
            await _comes_out(case, played)


async def _comes_out(
    case: Case[Action], played: Callable[[Case[Action]], Awaitable[Result[Action]]]
) -> None:
    """In the end. What a change takes back may be let in for as long as answers are kept."""
    begun = monotonic()
    while not (result := await played(case)).ok:
        too_much = result.outcome.status == 200 and Outcome(case.expected).status != 200
        assert case.name.startswith(CHANGES) or not too_much, result
        assert monotonic() < begun + PATIENCE, result


async def _not_asked(envoys: list[Envoy]) -> int:
    """Requests that needed no question."""
    told = [await envoy.admin("/stats?filter=tenant_authz_.*disabled$") for envoy in envoys]
    return sum(int(line.rpartition(": ")[2]) for text in told for line in text.splitlines())
