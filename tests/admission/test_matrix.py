"""Every attack is refused, its honest twin is not, and without the policy it gets through."""

from __future__ import annotations

import pytest

from tests.admission.cluster import Cluster
from tests.admission.rows import Row
from tests.admission.table import ROWS

pytestmark = pytest.mark.timeout(300)
in_session = pytest.mark.asyncio(loop_scope="session")
POLICIES = sorted({row.policy for row in ROWS})


def test_there_are_many() -> None:
    assert len(ROWS) >= 60
    assert len({row.name for row in ROWS}) == len(ROWS)


@in_session
@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_an_attack_is_refused_and_its_twin_is_not(cluster: Cluster, row: Row) -> None:
    refusal = await cluster.play(row)
    assert row.policy in refusal
    assert row.said in refusal
    assert not await cluster.play_twin(row)


@in_session
@pytest.mark.parametrize("policy", POLICIES)
async def test_without_the_policy_its_attacks_get_through(cluster: Cluster, policy: str) -> None:
    rows = [row for row in ROWS if row.policy == policy]
    async with cluster.without(policy, rows[0]):
        still = {row.name: refusal for row in rows if (refusal := await cluster.play(row))}
    assert not still
