"""Compares two configurations of one filter, as protobuf's JSON: what differs, by which rule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from authz.doctor.finding import Rule
from authz.wire import UPSTREAM

_SECONDS: Final = re.compile(r"\d+(?:\.\d+)?s")
_LONGEST: Final = 120

_METADATA: Final = "typed_config.grpc_service.initial_metadata"
_RULES: Final = {
    "disabled": Rule.SWITCHED_OFF,
    "typed_config.filter_enabled": Rule.SWITCHED_OFF,
    "typed_config.failure_mode_allow": Rule.FAILS_OPEN,
    f"{_METADATA}.{UPSTREAM}": Rule.UPSTREAM,
    _METADATA: Rule.QUESTION,
    "typed_config.grpc_service.timeout": Rule.TIMEOUT,
    "typed_config.grpc_service": Rule.WRONG_CLUSTER,
    "typed_config.http_service": Rule.WRONG_CLUSTER,
    "typed_config.decoder_header_mutation_rules": Rule.MUTATION,
    "typed_config.allowed_headers": Rule.ALLOWED_HEADERS,
    "typed_config.disallowed_headers": Rule.ALLOWED_HEADERS,
    "typed_config.encode_raw_headers": Rule.RAW_HEADERS,
    "typed_config.status_on_error": Rule.STATUS_ON_ERROR,
    "typed_config.request_rules": Rule.STRIP_RULE,
    "typed_config.shadow_rules": Rule.SCRAPE_RULE,
    "typed_config.upstream_connect_mode": Rule.EARLY_CONNECT,
    "typed_config.max_early_data_bytes": Rule.EARLY_CONNECT,
}
"""By the beginning of a field's path; the first that fits counts."""


def differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[tuple[Rule, list[str]]]:
    """Each rule that `found` breaks, and which fields say so."""
    ours, theirs = dict(_flat(wanted)), dict(_flat(found))
    kind = "typed_config.@type"
    if ours.get(kind) != theirs.get(kind):  # no field can be compared
        yield Rule.FIELD, [_difference(kind, theirs.get(kind), ours.get(kind))]
        return
    by_rule: dict[Rule, list[str]] = {}
    for path in sorted({*ours, *theirs}):
        if ours.get(path) != theirs.get(path):
            text = _difference(path, theirs.get(path), ours.get(path))
            by_rule.setdefault(_rule(path, found, wanted), []).append(text)
    yield from by_rule.items()


def _rule(path: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Rule:
    field = "filter_enabled_metadata"
    if path.startswith(f"typed_config.{field}") and field in wanted["typed_config"]:
        lacks = field not in found["typed_config"]
        return Rule.SCRAPE_MISSING if lacks else Rule.SWITCHED_OFF
    rule = next((rule for start, rule in _RULES.items() if path.startswith(start)), Rule.FIELD)
    if rule is Rule.FAILS_OPEN and not found["typed_config"].get("failure_mode_allow"):
        return Rule.FIELD  # closed, where it should be open
    return rule


def _difference(path: str, found: Any, wanted: Any) -> str:
    return f"{path.removeprefix('typed_config.')} is {_short(found)}, must be {_short(wanted)}"


def _short(value: Any) -> str:
    return "not set" if value is None else str(value)[:_LONGEST]


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Paths and values. What is unset and what is set to its default are the same."""
    match value:
        case dict() if value:
            for key, item in value.items():
                yield from _flat(item, f"{path}.{key}" if path else str(key))
        case dict():
            yield path, "{}"  # a message that is there: it may mean something
        case list():
            for key, item in _items(value, path):
                yield from _flat(item, f"{path}.{key}")
        case "ALLOW" if path.endswith(".action"):  # an enum's default
            pass
        case str() if _SECONDS.fullmatch(value):
            yield path, f"{float(value[:-1]):g}s"
        case None | False | "" | 0:
            if path.endswith(".numerator"):
                yield path.removesuffix(".numerator"), "{}"
        case _:
            yield path, value


def _items(several: list[Any], path: str) -> Iterable[tuple[Any, Any]]:
    """The items of a list, by what tells them apart."""
    if several and all(_is_pair(it) for it in several):  # initial_metadata, steps into metadata
        pairs: dict[str, list[str]] = {}
        for it in several:
            pairs.setdefault(it["key"], []).append(it.get("value", "") or "(empty)")
        return ((key, ", ".join(values)) for key, values in pairs.items())
    if path.endswith(".patterns"):  # in any order
        return ((_words(it), "listed") for it in several)
    return enumerate(several)


def _is_pair(value: Any) -> bool:
    return isinstance(value, dict) and "key" in value and value.keys() <= {"key", "value"}


def _words(matcher: Any) -> str:
    return " ".join(f"{text}" for _, text in _flat(matcher)) if isinstance(matcher, dict) else ""
