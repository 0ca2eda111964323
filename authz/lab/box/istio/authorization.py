"""AuthorizationPolicy as RBAC filters.

pilot/pkg/security/authz/builder and model of istio 1.30: one filter for DENY, then one for ALLOW;
a TCP chain cannot tell what is HTTP, so that there an ALLOW rule with it is left out, and a DENY
rule counts without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from authz.lab.box.istio.objects import Objects
from authz.lab.box.istio.world import Json, Pod
from authz.lab.harness.processes import CouldNotStart

_FILTERS: Final = "type.googleapis.com/envoy.extensions.filters"
_SOURCE: Final = ("principals", "namespaces", "ipBlocks", "remoteIpBlocks")
_HTTP_OPERATION: Final = ("hosts", "paths", "methods")
Layer = Literal["http", "network"]


def filters(objects: Objects, pod: Pod, layer: Layer) -> list[Json]:
    """The RBAC filters of a chain of `pod`."""
    result = []
    for action in ("DENY", "ALLOW"):
        policies = [
            it
            for it in objects.for_pod("AuthorizationPolicy", pod)
            if it["spec"].get("action", "ALLOW") == action
        ]
        if policies:
            result.append(_filter(policies, action, layer))
    return result


def _filter(policies: Iterable[Json], action: str, layer: Layer) -> Json:
    rules = {}
    for it in policies:
        metadata = it["metadata"]
        for number, rule in enumerate(it["spec"].get("rules", [])):
            if (policy := _policy(rule, action, layer)) is not None:
                name = f"ns[{metadata['namespace']}]-policy[{metadata['name']}]-rule[{number}]"
                rules[name] = policy
    typed: Json = {
        "@type": f"{_FILTERS}.{layer}.rbac.v3.RBAC",
        "rules": {"action": action, "policies": rules},
    }
    if layer == "network":
        typed["stat_prefix"] = "tcp."
    return {"name": f"envoy.filters.{layer}.rbac", "typed_config": typed}


def _policy(rule: Mapping[str, Any], action: str, layer: Layer) -> Json | None:
    if rule.get("when"):
        raise CouldNotStart("AuthorizationPolicy: `when` is not in the model")
    sources = [it["source"] for it in rule.get("from", [])]
    operations = [it["operation"] for it in rule.get("to", [])]
    if layer == "network" and any(_is_http(it) for it in operations):
        if action == "ALLOW":
            return None
        operations = [{k: v for k, v in it.items() if _plain(k) == "ports"} for it in operations]
    principals = [_all(_conditions(it, _SOURCE, _principal), "ids", "id") for it in sources]
    permissions = [
        _all(_conditions(it, ("ports", *_HTTP_OPERATION), _permission), "rules", "rule")
        for it in operations
    ]
    return {
        "principals": principals or [{"any": True}],
        "permissions": permissions or [{"any": True}],
    }


def _is_http(operation: Mapping[str, Any]) -> bool:
    return any(_plain(key) in _HTTP_OPERATION for key in operation)


def _plain(key: str) -> str:
    return key[3].lower() + key[4:] if key.startswith("not") else key


def _conditions(
    fields: Mapping[str, Sequence[str]],
    known: Sequence[str],
    one: Callable[[str, str], Json],
) -> list[tuple[bool, list[Json]]]:
    result = []
    for key, values in fields.items():
        if _plain(key) not in known:
            raise CouldNotStart(f"AuthorizationPolicy: `{key}` is not in the model")
        result.append((key.startswith("not"), [one(_plain(key), value) for value in values]))
    return result


def _all(conditions: list[tuple[bool, list[Json]]], plural: str, single: str) -> Json:
    """All conditions, each of which is one of several, or none of them."""
    parts = []
    for negated, alternatives in conditions:
        either = {f"or_{plural}": {plural: alternatives}}
        parts.append({f"not_{single}": either} if negated else either)
    return {f"and_{plural}": {plural: parts}} if parts else {"any": True}


def _principal(key: str, value: str) -> Json:
    if key in {"ipBlocks", "remoteIpBlocks"}:
        address, _, length = value.partition("/")
        block = {"address_prefix": address, "prefix_len": int(length or 32)}
        return {"direct_remote_ip" if key == "ipBlocks" else "remote_ip": block}
    if key == "namespaces":
        name = value.replace(".", "\\.").replace("*", ".*")
        matcher: Json = {"safe_regex": {"regex": f".*/ns/{name}/.*"}}
    elif value == "*":
        matcher = {"safe_regex": {"regex": ".+"}}
    else:
        matcher = _string(value, "spiffe://")
    return {"authenticated": {"principal_name": matcher}}


def _permission(key: str, value: str) -> Json:
    match key:
        case "ports":
            return {"destination_port": int(value)}
        case "paths":
            return {"url_path": {"path": _string(value)}}
        case "methods":
            return {"header": {"name": ":method", "string_match": _string(value)}}
        case _:
            return {"header": {"name": ":authority", "string_match": _string(value)}}


def _string(value: str, prefix: str = "") -> Json:
    if value == "*":
        return {"safe_regex": {"regex": ".+"}}
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": prefix + value[:-1]}
    return {"exact": prefix + value}
