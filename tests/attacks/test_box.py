"""The attacks that are played in the box: see `table`."""

from __future__ import annotations

import pytest

from authz.testing import Case, Outcome, Result
from tests.attacks.row import Attack
from tests.attacks.stage import Move, Stage, Without
from tests.attacks.table import ATTACKS
from tests.conftest import Kept

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

PLAYED = [it for it in ATTACKS if "attack" in it.cases]
TWINS = [it for it in ATTACKS if "twin" in it.cases]
REMOVED = sorted((it for it in PLAYED if it.without), key=lambda it: it.without.what)  # type: ignore[union-attr]


async def play(stage: Stage, case: Case[Move], without: Without | None = None) -> None:
    await stage.use(without)
    result = Result(case, Outcome(await case.call(stage)))
    assert result.ok, result


@pytest.mark.parametrize("attack", PLAYED, ids=lambda it: it.name)
async def test_an_attack_gets_nothing(stage: Stage, attack: Attack) -> None:
    await play(stage, attack.cases["attack"])


@pytest.mark.parametrize("attack", TWINS, ids=lambda it: it.name)
async def test_its_legitimate_twin_passes(stage: Stage, attack: Attack) -> None:
    await play(stage, attack.cases["twin"])


@pytest.mark.parametrize("attack", REMOVED, ids=lambda it: it.name)
async def test_without_its_rule_it_gets_through(stage: Stage, attack: Attack, kept: Kept) -> None:
    if kept:
        pytest.skip("what is taken away and brought back is answers that proxies keep")
    await play(stage, attack.cases["removal"], attack.without)
    assert attack.cases["removal"].expected != attack.cases["attack"].expected
