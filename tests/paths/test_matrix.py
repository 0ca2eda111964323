"""Every path, probe, delivery and attack does what the tables say, and so envoyfilters/PATHS.md."""

from __future__ import annotations

import pytest

from authz.lab.box.istio.mesh import Mesh
from authz.lab.box.paths import table
from authz.lab.box.paths.attacks import Action
from authz.lab.box.paths.play import scenarios
from authz.testing import Case, Result
from tests.paths.conftest import in_the_box

pytestmark = in_the_box

SCENARIOS = list(scenarios())


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[it.name for it in SCENARIOS])
async def test_scenario(mesh: Mesh, scenario: Case[Action]) -> None:
    result = Result(scenario, await scenario.call(mesh))
    assert result.ok, result


async def test_no_two_scenarios_have_one_name() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


async def test_what_is_seen_tells_a_request_that_got_in(mesh: Mesh) -> None:
    """A scenario that expects too little would not pass: what is seen depends on who calls."""
    [path] = [it for it in table.PATHS if it.name == "activator"]
    assert await table.played(mesh, path, "sibling") != path.expected("foreign")
    assert await table.played(mesh, path, "foreign") != path.expected("sibling")
