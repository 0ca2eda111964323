"""The attacks that are played in the box: see `table`."""

from __future__ import annotations

import pytest

from tests.attacks.row import Attack, Played
from tests.attacks.stage import Stage
from tests.attacks.table import ATTACKS

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

PLAYED = [it for it in ATTACKS if isinstance(it.attack, Played)]
TWINS = [it for it in ATTACKS if isinstance(it.twin, Played)]
REMOVED = sorted((it for it in PLAYED if it.without), key=lambda it: it.without.what)  # type: ignore[union-attr]


@pytest.mark.parametrize("attack", PLAYED, ids=lambda it: it.name)
async def test_an_attack_gets_nothing(stage: Stage, attack: Attack) -> None:
    assert isinstance(attack.attack, Played)
    await stage.use(None)
    assert await attack.attack.move(stage) == attack.attack.outcome


@pytest.mark.parametrize("attack", TWINS, ids=lambda it: it.name)
async def test_its_legitimate_twin_passes(stage: Stage, attack: Attack) -> None:
    assert isinstance(attack.twin, Played)
    await stage.use(None)
    assert await attack.twin.move(stage) == attack.twin.outcome


@pytest.mark.parametrize("attack", REMOVED, ids=lambda it: it.name)
async def test_without_its_rule_it_gets_through(stage: Stage, attack: Attack) -> None:
    assert isinstance(attack.attack, Played)
    await stage.use(attack.without)
    outcome = await attack.attack.move(stage)
    assert outcome == attack.gets != attack.attack.outcome
