"""What another policy opens and closes."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from authz.domain.policy import Policy
from authz.reach.matrix import Matrix
from authz.reach.pairs import Answers
from authz.reach.rows import Row, rows
from authz.reach.ways import Request


class Turn(enum.StrEnum):
    """What becomes of requests."""

    OPENS = "opens"
    CLOSES = "closes"


@dataclass(frozen=True, slots=True)
class Change:
    """Requests get in that did not, or not as long; or the other way round."""

    turn: Turn
    before: float | None
    """Until when they got in, in seconds since the epoch; `None`: they did not."""
    after: float | None
    because: str
    """Why they get in, or did."""


class Difference:
    """All that two policies answer differently at `now` or later, in seconds since the epoch."""

    def __init__(self, old: Policy, new: Policy, now: float) -> None:
        self.matrix: Final = Matrix([old, new], now)
        self.rows: Final[list[Row[Change]]] = list(rows(self.matrix, changes))
        self.besides: Final = list(_besides(old, new))
        """Fields that say where a request goes or who is trusted, and not who may reach whom."""

    def turns(self) -> set[Turn]:
        """What happens at all. What no pair shows counts as both: it may be either."""
        return set(Turn) if self.besides else {row.line.value.turn for row in self.rows}


def changes(answers: Answers) -> dict[Request, Change]:
    """The requests of a pair that change."""
    found = {}
    old, new = answers.open
    for request in answers.asked:
        before, after = old.get(request), new.get(request)
        until = None if before is None else before.until, None if after is None else after.until
        if after is not None and after.until > (until[0] or -inf):
            found[request] = Change(Turn.OPENS, *until, after.because)
        elif before is not None and before.until > (until[1] or -inf):
            found[request] = Change(Turn.CLOSES, *until, before.because)
    return found


def _besides(old: Policy, new: Policy) -> Iterator[str]:
    for name in (
        "cluster_domains",
        "trust_domains",
        "relays",
        "roles",
        "hosts",
        "host_templates",
        "claims",
    ):
        if getattr(old, name) != getattr(new, name):
            yield name
