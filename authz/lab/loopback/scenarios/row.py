"""One row of the matrix, and the words in which it is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from authz.lab.loopback import loot

NOT_ALLOWED: Final = "403 not-allowed"
MISSING: Final = "403 token-missing"
INVALID: Final = "403 token-invalid"
DENIED: Final = "denied not-allowed"
OUTAGE: Final = "503"

INITECH: Final = loot.stolen("initech", "acme-db")
"""The token that leaks: initech's, whom acme-db lets in."""


S = TypeVar("S")


@dataclass(frozen=True)
class Scenario(Generic[S]):
    """What is played on a stage `S`, and what must be seen."""

    name: str
    shows: str
    expected: str
    play: Callable[[S], Awaitable[str]]


@dataclass(frozen=True)
class Result:
    """What was seen."""

    scenario: Scenario[Any]
    seen: str

    @property
    def ok(self) -> bool:
        """Whether it is what was expected."""
        return self.seen == self.scenario.expected
