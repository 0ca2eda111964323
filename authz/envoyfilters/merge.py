"""Merges one message of Envoy's configuration into another, both as the JSON that stands for them.

As protobuf's MergeFrom does, which istiod uses: what is set wins, messages merge, lists append, and
an Any inside a message is replaced whole. Which fields are maps or members of a oneof cannot be
told from JSON; none of the merges that ship depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

Json = dict[str, Any]


class CannotMerge(ValueError):
    """What a merge would do depends on what JSON does not tell, or the two do not fit."""


def merged(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """`target` with `patch` merged into it: a new message.

    Raises:
        CannotMerge: a field is a message in one and none in the other, or `patch` sets a field to
            false, 0 or empty. Protobuf ignores that in a plain field and obeys it in a wrapper.
    """
    result = deepcopy(dict(target))
    for name, value in patch.items():
        result[name] = _merged_value(name, result.get(name), value)
    return result


def merged_any(target: Mapping[str, Any], patch: Mapping[str, Any]) -> Json:
    """The same for two Anys: their contents are merged, and the type stays that of `target`."""
    contents = {name: value for name, value in patch.items() if name != "@type"}
    return merged(target, contents)


def _merged_value(name: str, old: Any, new: Any) -> Any:
    if not new and not isinstance(new, dict):
        raise CannotMerge(f"{name}: {new!r} may or may not overwrite what is there; leave it out")
    if old is None or "@type" in (new if isinstance(new, dict) else ()):
        return deepcopy(new)
    if isinstance(old, dict) != isinstance(new, dict) or isinstance(old, list) != isinstance(
        new, list
    ):
        raise CannotMerge(f"{name}: {new!r} does not fit {old!r}")
    if isinstance(new, dict):
        return merged(old, new)
    return [*old, *deepcopy(new)] if isinstance(new, list) else new
