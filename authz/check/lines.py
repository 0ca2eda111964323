"""What a check is, and what it answers."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from authz.check.site import Site

_SHOWN: Final = 4


class Level(enum.StrEnum):
    """How good an answer is. What could not be read is never good."""

    OK = "ok"
    WARNING = "warning"
    """It works, and is less than it could be, or somebody has to judge."""
    PROBLEM = "problem"
    """Tenants are not kept apart, or requests fail."""
    UNREAD = "not read"
    """Nobody knows, for it could not be read."""


class Answer(NamedTuple):
    """What a check found, and what to do about it."""

    level: Level
    what: str
    remedy: str = ""


def ok(what: str) -> Answer:
    """All is well."""
    return Answer(Level.OK, what)


def warning(what: str, remedy: str) -> Answer:
    """Somebody should look."""
    return Answer(Level.WARNING, what, remedy)


def problem(what: str, remedy: str) -> Answer:
    """Somebody must act."""
    return Answer(Level.PROBLEM, what, remedy)


def unread(what: str, remedy: str) -> Answer:
    """It could not be told."""
    return Answer(Level.UNREAD, what, remedy)


class Check(NamedTuple):
    """One question to a cluster."""

    name: str
    """Unique among all checks; scripts go by it."""
    title: str
    """What is so when the answer is ok."""
    page: str
    """Where it is written, from the root of the repository."""
    ask: Callable[[Site], Awaitable[Answer]]
    """Raises KubeError: what it needs cannot be read."""


class Group(NamedTuple):
    """Checks of one part."""

    title: str
    checks: Sequence[Check]
    before: bool
    """Whether they are asked before the installation, too."""


class Line(NamedTuple):
    """The answer to one check."""

    group: str
    check: Check
    answer: Answer

    def row(self) -> dict[str, str]:
        """For machines."""
        level, what, remedy = self.answer
        return {
            "group": self.group,
            "check": self.check.name,
            "title": self.check.title,
            "level": level.value,
            "what": what,
            "remedy": remedy,
            "page": self.check.page,
        }


def several(names: Sequence[str]) -> str:
    """A few of them, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
