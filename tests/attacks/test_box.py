"""The attacks that are played in the box: see `table`."""

from __future__ import annotations

import pytest

from authz.testing import Case, Outcome, Result
from tests.attacks.box import Action, Box, Without
from tests.attacks.row import Attack
from tests.attacks.table import ATTACKS

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

PLAYED = [it for it in ATTACKS if "attack" in it.cases]
TWINS = [it for it in ATTACKS if "twin" in it.cases]
REMOVED = sorted(
    (attack for attack in PLAYED if attack.without),
    key=lambda attack: (attack.without.pods, attack.without.what),  # type: ignore[union-attr]
)
"""In an order in which little has to be brought back."""


async def play(box: Box, case: Case[Action], without: Without | None = None) -> None:
    await box.use(without)
    result = Result(case, Outcome(await case.call(box)))
    assert result.ok, result


@pytest.mark.parametrize("attack", PLAYED, ids=lambda it: it.name)
async def test_an_attack_gets_nothing(box: Box, attack: Attack) -> None:
    await play(box, attack.cases["attack"])


@pytest.mark.parametrize("attack", TWINS, ids=lambda it: it.name)
async def test_its_legitimate_twin_passes(box: Box, attack: Attack) -> None:
    await play(box, attack.cases["twin"])


@pytest.mark.parametrize("attack", REMOVED, ids=lambda it: it.name)
async def test_without_its_rule_it_gets_through(box: Box, attack: Attack) -> None:
    await play(box, attack.cases["removal"], attack.without)
    assert attack.cases["removal"].expected != attack.cases["attack"].expected
