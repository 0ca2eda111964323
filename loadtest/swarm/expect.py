"""What must come of a request, while keys and policy change under it.

A change is known to all servers within a stated time of its end. Requests that overlap this window
may go either way; those before and after it may not.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from authz.testing import MALFORMED, MISSING, Outcome

WINDOW: Final = 1.0
"""Seconds within which every server has taken a change."""
KEPT: Final = 2
"""Seconds for which sidecars may let in again whom they were told to, where they do."""


class Change(NamedTuple):
    """A change of something that outcomes hang on. Times are in seconds since the epoch."""

    subject: str
    opens: float
    closes: float = math.inf


@dataclass
class Timeline:
    """The changes of a run, in order."""

    changes: tuple[Change, ...] = ()

    def replace(self, changes: Iterable[Iterable[str | float]]) -> None:
        """Take another list of changes, as it comes out of JSON."""
        read = (tuple(each) for each in changes)
        self.changes = tuple(
            Change(str(subject), float(opens), float(closes)) for subject, opens, closes in read
        )

    def version(self, subject: str, begun: float, ended: float) -> int | None:
        """How many changes of `subject` counted for a request; `None` if one was under way."""
        here = [change for change in self.changes if change.subject == subject]
        if any(change.opens <= ended and begun <= change.closes for change in here):
            return None
        return sum(change.closes < begun for change in here)


class Worth(enum.Enum):
    """What a seen outcome is worth."""

    RIGHT = "right"
    WRONG = "wrong"
    EITHER = "either"
    """It came while that was being changed on which it hangs."""
    FAILED = "failed"
    """There was no answer, or it came of there having been none to a sidecar before."""


UNTOUCHED: Final = "with what its app wrote for a token"
UNSIGNED: Final = "unsigned"


def judge(seen: Outcome, expected: str | None) -> tuple[Worth, str]:
    """Compare an outcome with the expected one.

    Args:
        seen: what came of the request.
        expected: None where it may go either way.

    Returns:
        What it is worth and, unless it is right, what is the matter.
    """
    if seen.leaked:
        return Worth.WRONG, f"the app got the token: {seen}"
    if seen.startswith(MALFORMED):
        return Worth.WRONG, seen
    if seen == expected:
        return Worth.RIGHT, ""
    if seen.status not in {200, 403}:
        return Worth.FAILED, seen
    if expected is None:
        return Worth.EITHER, ""
    # Signing fails open. Whether it really was not answered is looked up after the run.
    if UNTOUCHED in seen:
        return Worth.FAILED, f"{UNSIGNED}: sent out as it was, for nobody had answered"
    if seen == MISSING:
        return Worth.FAILED, f"{UNSIGNED}: denied, for nobody had answered the caller's sidecar"
    if seen.status == Outcome(expected).status == 403:
        return Worth.FAILED, f"denied for another reason: {seen}, not {expected}"
    return Worth.WRONG, f"{seen}, and should be {expected}"
