"""Are the AuthorizationPolicies that ship in force at their hops, and nobody else's beside them?

istiod joins all ALLOW policies of a pod in one RBAC filter, so a policy of somebody else's there
lets in whom ours does not. The filter's rules are compared with what istiod makes of ours
(istio/istio pilot/pkg/security/authz/model).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from authz.doctor.chains import CAPTURE_PORT
from authz.doctor.dump import Json, Workload
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import labelled

_RBAC: Final = frozenset({"envoy.filters.http.rbac", "envoy.filters.network.rbac"})


def policies(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """Chains at which others may call than the policies for this pod say."""
    objects = [*expected.selected("AuthorizationPolicy", workload.proxy)]
    if not objects:
        return
    wanted = {name: rule for it in objects for name, rule in _rules(it)}
    names = ", ".join(it["metadata"]["name"] for it in objects)
    for listener in workload.listeners:
        if listener.get("traffic_direction") != "INBOUND":
            continue
        for label, chain in labelled(listener):
            if chain.get("filter_chain_match", {}).get("destination_port") == CAPTURE_PORT:
                continue  # it leads nowhere
            if what := _differs(chain, wanted):
                where = f"listener {listener['name']}, {label}"
                text = f"AuthorizationPolicy {names} is not in force: {what}"
                yield Finding(workload.name, where, text, Rule.NO_POLICY)


def _differs(chain: Json, wanted: Mapping[str, Json]) -> str:
    """What of a chain's rules is not as it should be."""
    allowing = [it for it in _rbac(chain) if it.get("action", "ALLOW") == "ALLOW"]
    if not allowing:
        return f"anybody may call here, and not only {', '.join(_callers(wanted))}"
    found: Mapping[str, Json] = allowing[0].get("policies", {})
    for name in sorted({*found, *wanted}):
        if found.get(name) != wanted.get(name):
            missing = "is missing" if name not in found else "differs"
            return f"{name} {'is not ours' if name not in wanted else missing}"
    return ""


def _callers(wanted: Mapping[str, Json]) -> Iterator[str]:
    for rule in wanted.values():
        [principal] = rule["principals"]
        for it in principal["and_ids"]["ids"][0]["or_ids"]["ids"]:
            yield it["authenticated"]["principal_name"]["exact"]


def _rbac(chain: Json) -> Iterator[Json]:
    for it in chain.get("filters", ()):
        inner = it.get("typed_config", {}).get("http_filters", ())
        for one in (it, *inner):
            rules = one.get("typed_config", {}).get("rules")
            if one.get("name") in _RBAC and rules is not None:
                yield rules


def _rules(policy: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """Each rule of a policy by the name that istiod gives it, and what istiod makes of it."""
    namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
    for number, rule in enumerate(policy["spec"].get("rules", ())):
        [source], [operation] = rule["from"], rule["to"]
        principals = [
            {"authenticated": {"principal_name": {"exact": f"spiffe://{principal}"}}}
            for principal in source["source"]["principals"]
        ]
        ports = [{"destination_port": int(port)} for port in operation["operation"]["ports"]]
        yield (
            f"ns[{namespace}]-policy[{name}]-rule[{number}]",
            {
                "permissions": [{"and_rules": {"rules": [{"or_rules": {"rules": ports}}]}}],
                "principals": [{"and_ids": {"ids": [{"or_ids": {"ids": principals}}]}}],
            },
        )
