"""Parts of Kubernetes' objects, read from JSON that may be anything."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

Object: TypeAlias = dict[str, Any]

PROXY: Final = "istio-proxy"

_DEFAULTS: Final = {"matchPolicy": "Equivalent", "scope": "*"}

_version = re.compile(r"v?(\d+)\.(\d+)")


def part(thing: Any, *path: str) -> Any:
    """What is at a path of keys; `None` where anything is missing."""
    for key in path:
        thing = thing.get(key) if isinstance(thing, dict) else None
    return thing


def mapping(thing: Any, *path: str) -> Mapping[str, Any]:
    """The same; an empty mapping for whatever is none."""
    found = part(thing, *path)
    return found if isinstance(found, dict) else {}


def items(thing: Any, *path: str) -> list[Any]:
    """The same; an empty list for whatever is none."""
    found = part(thing, *path)
    return found if isinstance(found, list) else []


def name(thing: Object) -> str:
    """An object's name."""
    return str(part(thing, "metadata", "name"))


def namespace(thing: Object) -> str:
    """An object's namespace; empty if it has none."""
    return str(part(thing, "metadata", "namespace") or "")


def full_name(thing: Object) -> str:
    """`namespace/name`."""
    return f"{namespace(thing)}/{name(thing)}".lstrip("/")


def labels(thing: Object) -> Mapping[str, Any]:
    """An object's labels."""
    return mapping(thing, "metadata", "labels")


def notes(thing: Object) -> Mapping[str, Any]:
    """An object's annotations."""
    return mapping(thing, "metadata", "annotations")


def containers(pod: Object) -> Iterator[Object]:
    """A pod's containers, those that start first and go on among them."""
    for it in (*items(pod, "spec", "containers"), *items(pod, "spec", "initContainers")):
        if isinstance(it, dict):
            yield it


def has_proxy(pod: Object) -> bool:
    """Whether a sidecar of Istio's is in a pod."""
    return any(container.get("name") == PROXY for container in containers(pod))


def account(pod: Object) -> str:
    """The service account that a pod runs under."""
    return str(part(pod, "spec", "serviceAccountName") or "default")


def lives(pod: Object) -> bool:
    """Whether a pod has not ended."""
    return part(pod, "status", "phase") not in {"Succeeded", "Failed"}


def condition(thing: Object, kind: str) -> bool:
    """Whether one of an object's conditions is true."""
    found = items(thing, "status", "conditions")
    return any(part(it, "type") == kind and part(it, "status") == "True" for it in found)


def ready(pod: Object) -> bool:
    """Whether a pod is ready."""
    return condition(pod, "Ready")


def number_of(text: object) -> tuple[int, int] | None:
    """The version in a label, or in an image's tag: major and minor."""
    match = _version.match(str(text))
    return (int(match[1]), int(match[2])) if match else None


def tag_of(image: object) -> str:
    """The tag of an image; empty if there is none."""
    return str(image).partition("@")[0].rpartition("/")[2].partition(":")[2]


def selects(selector: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether labels fit a selector of Kubernetes' (matchLabels, matchExpressions)."""
    if any(given.get(key) != value for key, value in mapping(selector, "matchLabels").items()):
        return False
    return all(_fits(item, given) for item in items(selector, "matchExpressions"))


def _fits(expression: Any, given: Mapping[str, Any]) -> bool:
    key, values = part(expression, "key"), items(expression, "values")
    match part(expression, "operator"):
        case "In":
            return given.get(key) in values
        case "NotIn":
            return given.get(key) not in values
        case "Exists":
            return key in given
        case "DoesNotExist":
            return key not in given
        case _:
            return False


def same(wanted: Any, there: Any) -> bool:
    """Whether two specs say the same, but for what an API server adds to every admission rule.

    Anything else that is there and was not wanted is a difference: a condition more, and a rule
    judges nothing.
    """
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            same(wanted[key], there.get(key)) if key in wanted else _by_default(key, there[key])
            for key in {*wanted, *there}
        )
    if isinstance(wanted, list):
        return (
            isinstance(there, list) and len(wanted) == len(there) and all(map(same, wanted, there))
        )
    return bool(wanted == there)


def _by_default(key: str, value: Any) -> bool:
    return value in (None, {}, []) or _DEFAULTS.get(key) == value
