"""Who changed the keyring, when, what, and why: kept in the sealed record, the last changes of it.

It is for people, and no key depends on it. So whatever stands there that is none of ours, whoever
holds the KEK and wrote it, is left out, and never a reason to refuse a keyring with a revocation.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

MAX_CHANGES: Final = 100
"""Changes that are kept."""
MAX_BYTES: Final = 32 * 1024
"""Bytes that they take. The oldest go first."""
MAX_REASON: Final = 200
"""Characters of a reason."""
MAX_BY: Final = 128
MAX_WHAT: Final = 256
_END_OF_TIME: Final = 253_402_300_799  # 9999-12-31
_SECRET_BYTES: Final = 32


class Note(NamedTuple):
    """What is noted of a change. `at` is in seconds since the epoch, by the changer's clock."""

    at: int
    by: str
    what: str
    reason: str = ""


class Change(NamedTuple):
    """A change that was made, with the version that came of it."""

    version: int
    note: Note


History = tuple[Change, ...]


def checked_reason(text: str) -> str:
    """A reason as it is kept.

    Raises:
        ValueError: it is too long, cannot be printed, or is a secret by its look.
    """
    text = text.strip()
    if not 0 < len(text) <= MAX_REASON:
        raise ValueError(f"write 1 to {MAX_REASON} characters, not {len(text)}")
    if not text.isprintable():
        raise ValueError("write what can be printed, on one line")
    if any(map(_looks_secret, text.split())):
        raise ValueError("it looks like a key or a token, and logs show a reason: leave it out")
    return text


def shortened(text: str, longest: int) -> str:
    """A name that the machine gave, as it is kept."""
    return "".join(it if it.isprintable() else "?" for it in text)[:longest]


def noted(history: History, version: int, note: Note) -> History:
    """The history with one more change; the oldest go where there are too many."""
    kept = (*history, Change(version, note))[-MAX_CHANGES:]
    while len(kept) > 1 and len(json.dumps(as_json(kept))) > MAX_BYTES:
        kept = kept[1:]
    return kept


def as_json(history: History) -> list[list[Any]]:
    """As it stands in the record."""
    return [[version, *note] for version, note in history]


def from_json(value: Any, version: int) -> History:
    """What the record of a version holds of it, without what is none of ours."""
    found: list[Change] = []
    for one in value[-MAX_CHANGES:] if isinstance(value, list) else ():
        change = _read(one)
        before = found[-1].version if found else 0
        if change is not None and before < change.version <= version:
            found.append(change)
    return tuple(found)


def since(history: Sequence[Change], version: int, now: int) -> tuple[list[Change], int]:
    """Changes after one version until another, and how many there were that nobody noted."""
    fresh = [change for change in history if version < change.version <= now]
    return fresh, max(0, now - version - len(fresh))


def _read(one: Any) -> Change | None:
    match one:
        case [int(version), int(at), str(by), str(what), str(reason)] if (
            not (isinstance(version, bool) or isinstance(at, bool))
            and 0 <= at <= _END_OF_TIME
            and _is_text(by, MAX_BY)
            and _is_text(what, MAX_WHAT)
            and (not reason or _is_text(reason, MAX_REASON))
        ):
            return Change(version, Note(at, by, what, reason))
        case _:
            return None


def _is_text(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isprintable()


def _looks_secret(word: str) -> bool:
    if word.startswith("v1.") and len(word) > 40:
        return True
    word = word.strip("\"'.,;:()").rstrip("=")
    try:
        decoded = base64.b64decode(word + "=" * (-len(word) % 4), altchars="-_", validate=True)
    except (binascii.Error, ValueError):
        try:
            decoded = base64.b64decode(word + "=" * (-len(word) % 4), validate=True)
        except (binascii.Error, ValueError):
            return False
    return len(decoded) == _SECRET_BYTES
