"""Days as policies write them: the last one on which a grant counts."""

import datetime as dt
from contextlib import suppress
from typing import Final

_EPOCH: Final = dt.date(1970, 1, 1)


def parse_day(text: str) -> dt.date:
    """Read a day, written as 2027-12-31 and in no other way of ISO 8601.

    Raises:
        ValueError: it is something else.
    """
    day = dt.date.fromisoformat(text)
    if day.isoformat() != text:  # Python takes weeks, and days without hyphens, too
        raise ValueError(f"{text!r} is not a day such as 2027-12-31")
    return day


def end_of(day: dt.date) -> int:
    """The end of a day in UTC, in seconds since the epoch: a last day counts to its end."""
    return ((day - _EPOCH).days + 1) * 86400


def day_or_text(value: object) -> object:
    """A day in quotation marks is the same day: tools quote every text, and JSON has no days."""
    if isinstance(value, str):
        with suppress(ValueError):
            return parse_day(value)
    return value
