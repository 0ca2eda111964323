"""The matrix: who calls whom on which way, and what must come of it.

Each denial has its twin near by, the closest call that is right and passes. They are played in
this order: the last ones change keys and stop the service, and go on with what is left.
"""

from __future__ import annotations

from typing import Final

from authz.lab.loopback.actions import Action
from authz.lab.loopback.scenarios.attacks import NO_SIDECAR, TOKENS
from authz.lab.loopback.scenarios.calls import CALLS
from authz.lab.loopback.scenarios.operations import OPERATIONS
from authz.lab.loopback.scenarios.outside import OUTSIDE
from authz.lab.loopback.scenarios.questions import QUESTIONS
from authz.testing import Case

SCENARIOS: Final[tuple[Case[Action], ...]] = (
    *CALLS,
    *OUTSIDE,
    *TOKENS,
    *NO_SIDECAR,
    *QUESTIONS,
    *OPERATIONS,
)
