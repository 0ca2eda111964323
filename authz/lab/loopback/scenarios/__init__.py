"""The matrix: who calls whom on which way, and what must come of it.

Each denial has its twin near by, the closest call that is right and passes. They are played in
this order: the last ones change keys and stop the service, and go on with what is left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

from authz.lab.loopback.scenarios.attacks import NO_SIDECAR, TOKENS
from authz.lab.loopback.scenarios.calls import CALLS
from authz.lab.loopback.scenarios.operations import OPERATIONS
from authz.lab.loopback.scenarios.outside import OUTSIDE
from authz.lab.loopback.scenarios.questions import QUESTIONS
from authz.lab.loopback.scenarios.row import Result, S, Scenario
from authz.lab.loopback.stage import Stage

SCENARIOS: Final[tuple[Scenario[Stage], ...]] = (
    *CALLS,
    *OUTSIDE,
    *TOKENS,
    *NO_SIDECAR,
    *QUESTIONS,
    *OPERATIONS,
)

_MOST: Final = 300  # characters of an error


async def played(scenarios: Iterable[Scenario[S]], stage: S) -> AsyncIterator[Result]:
    """Play scenarios, one after the other."""
    for scenario in scenarios:
        try:
            seen = await scenario.play(stage)
        except Exception as error:  # noqa: BLE001 - one that breaks is a difference, not the end
            seen = " ".join(f"{type(error).__name__}: {error}".split())[:_MOST]
        yield Result(scenario, seen)
