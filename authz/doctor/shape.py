"""What a part of a configuration may look like, said once: its known fields, and their values.

A shape is asked about a value and tells what is odd about it. It knows fields by name: one that it
does not know is odd, too, so that whatever Envoy or istiod learn to do is told and not overlooked.
Names of fields are those of Envoy's API, https://www.envoyproxy.io/docs/envoy/latest/api-v3/api.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from authz.doctor.finding import Rule

_LONGEST: Final = 120


class Odd(NamedTuple):
    """Something that is not as it should be."""

    rule: Rule
    path: str
    what: str

    def __str__(self) -> str:
        """The field and what is wrong with it."""
        return f"{self.path} {self.what}" if self.path else self.what


Shape: TypeAlias = Callable[[Any, str], Iterator[Odd]]
"""Gets a value and the path by which it was reached."""


def harmless(reason: str) -> Shape:
    """Whatever is there: `reason` says why isolation does not depend on it."""
    assert reason  # noqa: S101 - a reader's right
    return _anything


def _anything(_: Any, __: str) -> Iterator[Odd]:
    return iter(())


def one_of(rule: Rule, *values: Any) -> Shape:
    """Exactly one of these values."""

    def check(value: Any, path: str) -> Iterator[Odd]:
        if value not in values:
            allowed = " or ".join(map(short, values))
            yield Odd(rule, path, f"is {short(value)}, must be {allowed}")

    return check


def each(shape: Shape) -> Shape:
    """A list, and each of its items."""

    def check(value: Any, path: str) -> Iterator[Odd]:
        for number, item in enumerate(value):
            yield from shape(item, f"{path}[{number}]")

    return check


def message(
    rule: Rule,
    fields: Mapping[str, Shape],
    *,
    need: tuple[str, ...] = (),
    unknown: Rule = Rule.UNKNOWN_FIELD,
) -> Shape:
    """A message with these fields and no others.

    Args:
        rule: which is broken where a field of `need` is not set.
        fields: those that are known.
        need: those that must be set.
        unknown: which rule a field breaks that is not known.
    """

    def check(value: Any, path: str) -> Iterator[Odd]:
        for name in need:
            if name not in value:
                yield Odd(rule, _joined(path, name), "is not set")
        for name, item in value.items():
            if name in fields:
                yield from fields[name](item, _joined(path, name))
            elif name != "@type":
                what = f"is {short(item)}: the doctor does not know this field"
                yield Odd(unknown, _joined(path, name), what)

    return check


def typed(rule: Rule, kinds: Mapping[str, Shape]) -> Shape:
    """A message of one of these types, by the last word of `@type`."""

    def check(value: Any, path: str) -> Iterator[Odd]:
        kind = kind_of(value)
        if kind not in kinds:
            yield Odd(rule, path, f"is a {kind or 'message without type'}, must be {_or(kinds)}")
        else:
            yield from kinds[kind](value, path)

    return check


def kind_of(value: Mapping[str, Any]) -> str:
    """The last word of a message's type, also of one that istiod wraps into a TypedStruct."""
    name = str(value.get("@type", ""))
    if name.endswith(".TypedStruct"):
        name = str(value.get("type_url", ""))
    return name.rpartition(".")[2] if name.startswith("type.googleapis.com/") else name


def short(value: Any) -> str:
    """A value as a finding says it."""
    text = "not set" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _or(names: Mapping[str, Any]) -> str:
    return " or ".join(names)
