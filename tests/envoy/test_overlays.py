"""What each overlay does when the service answers, denies, hangs or is gone."""

from __future__ import annotations

import pytest

from tests.envoy.bench import Workbench, seen_by_app, values
from tests.envoy.chains import CHAINS, TOKEN, token_of
from tests.envoy.scripted import allowing, always, denying

every_filter = pytest.mark.parametrize("name", CHAINS)
FORGED = [(TOKEN, "forged"), (TOKEN, "again"), ("x-other", "client's")]
STRIPPED = {"verify", "public"}  # natively, whoever answers


def left_of(headers: list[tuple[str, str]], name: str) -> list[str]:
    """What goes on of the tokens that a client sent; where one is carried, joined to one value."""
    return [part for value in values(headers, token_of(name)) for part in value.split(",")]


@every_filter
async def test_shadow_lets_in_when_nobody_answers(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name], "shadow") as proxy:
        await workbench.authz.stop()
        headers = seen_by_app(await proxy.get(FORGED))
    assert left_of(headers, name) == ([] if name in STRIPPED else ["forged", "again"])
    assert values(headers, "x-other") == ["client's"]


@every_filter
async def test_shadow_does_as_it_is_told(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name], "shadow") as proxy:
        workbench.authz.answer = always(denying("x-word", "not-allowed", "no"))
        assert (await proxy.get()).status_code == 403


@every_filter
async def test_break_glass_asks_nobody(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name], "break-glass") as proxy:
        workbench.authz.answer = always(denying("x-word", "not-allowed", "no"))
        headers = seen_by_app(await proxy.get(FORGED))
    assert workbench.authz.questions == []
    assert left_of(headers, name) == ([] if name in STRIPPED else ["forged", "again"])


@pytest.mark.parametrize("overlay", ["enforce", "shadow"])
async def test_a_public_client_s_own_token_is_gone_even_if_the_answer_says_nothing(
    workbench: Workbench, overlay: str
) -> None:
    async with workbench.proxy(CHAINS["public"], overlay) as proxy:
        workbench.authz.answer = always(allowing())
        headers = seen_by_app(await proxy.get(FORGED))
    assert len(workbench.authz.questions) == 1
    assert values(headers, TOKEN) == []
