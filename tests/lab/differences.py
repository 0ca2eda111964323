"""In what two configurations differ: by path, everything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

GONE = "gone"
"""In place of a value: there is none."""


class Difference(NamedTuple):
    """One value in place of another."""

    path: tuple[str | int, ...]
    before: Any
    after: Any

    def __str__(self) -> str:
        place = ".".join(map(str, self.path))
        return f"{place}: {str(self.before)[:200]} became {str(self.after)[:200]}"


def differences(before: Any, after: Any, path: tuple[str | int, ...] = ()) -> Iterator[Difference]:
    """All of them. Things with names stand in the same place if they have the same name."""
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _one(before.get(key, GONE), after.get(key, GONE), (*path, key))
    elif isinstance(before, list) and isinstance(after, list) and _structured(before + after):
        yield from _lists(before, after, path)
    else:
        yield Difference(path, before, after)


def _one(before: Any, after: Any, path: tuple[str | int, ...]) -> Iterator[Difference]:
    if GONE in (before, after) and before is not after:
        yield Difference(path, before, after)
    else:
        yield from differences(before, after, path)


def _lists(
    before: list[Any], after: list[Any], path: tuple[str | int, ...]
) -> Iterator[Difference]:
    names, left = [_name(it) for it in before], [_name(it) for it in after]
    if None in (*names, *left) or len({*names}) < len(names) or len({*left}) < len(left):
        if len(before) != len(after):
            yield Difference(path, before, after)
            return
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, (*path, number))
        return
    common = [it for it in names if it in left]
    if common != [it for it in left if it in names]:
        yield Difference((*path, "order"), names, left)
    old, new = dict(zip(names, before, strict=True)), dict(zip(left, after, strict=True))
    for name in dict.fromkeys((*names, *left)):
        yield from _one(old.get(name, GONE), new.get(name, GONE), (*path, str(name)))


def _structured(items: list[Any]) -> bool:
    return any(isinstance(item, (dict, list)) for item in items)


def _name(item: Any) -> str | None:
    return item.get("name") if isinstance(item, dict) else None
