"""A second reading of the policy file, from what the pages say.

It imports nothing of ours. A policy is the document that people write.
"""

from __future__ import annotations

import re
from calendar import timegm
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from tests.oracle.token_format import LABEL, short

Policy = Mapping[str, Any]
CLOSED: Final = {
    *("kube-system", "kube-public", "kube-node-lease", "istio-system"),
    *("knative-serving", "knative-eventing", "authz-system"),
}
"""The platform's namespaces, besides those of relays and of holders of roles."""
PROBES: Final[dict[str, dict[str, Any]]] = {
    "gateway": {
        "path": "/healthz",
        "user_agent": "Knative-Ingress-Probe",
        "network_probe": "probe",
    },
    "transit": {
        "path": "/healthz",
        "user_agent": "Knative-Activator-Probe",
        "network_probe": "queue",
    },
}
"""What a holder of a role needs no token for, to ports 8012 and 8013 of a pod with queue-proxy."""


class World(NamedTuple):
    """What is decided by."""

    policy: Policy
    keyring: Any
    now: float
    claims: Mapping[str, str] = MappingProxyType({})
    """Hosts that Knative's ClusterDomainClaims tell a namespace of."""
    own: str | None = None
    """The namespace of the service itself, of its certificate or `own_id`."""
    token_seconds: int = 720
    leeway: int = 30
    reuse: tuple[int, int] = (0, 0)
    """The settings `reuse_sign_seconds` and `reuse_verify_seconds`."""


def trusted(policy: Policy, domain: str) -> bool:
    """Whether a trust domain is accepted."""
    return domain in policy.get("trust_domains", ["cluster.local"])


def tenant(policy: Policy, namespace: str) -> str:
    """Whose a namespace is; one that is not listed is a tenant of its own."""
    tenants = policy.get("tenants", {}).items()
    return next(
        (name for name, it in tenants if namespace in it.get("namespaces", ())), f"={namespace}"
    )


def said(policy: Policy, namespace: str, field: str, default: Any) -> Any:
    """What is said of a namespace."""
    return policy.get("namespaces", {}).get(namespace, {}).get(field, default)


def mode(policy: Policy, namespace: str) -> str:
    """Its own, in place of its tenant's, in place of the default."""
    group = policy.get("tenants", {}).get(tenant(policy, namespace), {})
    default = group.get("mode", policy.get("default_mode", "enforce"))
    return str(said(policy, namespace, "mode", default))


def roles(policy: Policy, identity: str) -> set[str]:
    """The parts that exactly this workload is trusted for."""
    return {role for role, holders in policy.get("roles", {}).items() if identity in holders}


def granted(world: World, source: str, account: str, to: str, port: int | str) -> bool:
    """Whether a grant counts. `any`: the gateway is not told the pod's port; `none`: an event's."""
    for grant in world.policy.get("grants", []):
        last = date.fromisoformat(str(grant.get("until", "9999-12-31")))
        if (
            grant["to"] == to
            and grant["from"] in {source, "*"}
            and source != "@public"
            and short(grant.get("service_account", account)) == account
            and (port == "any" or grant.get("port", port) == port)
            and world.now < timegm(last.timetuple()) + 86_400
        ):
            return True
    return False


def exempt(policy: Policy, facts: Any, held: set[str], *, by_activator: bool) -> bool:
    """Whether an exemption matches; on a hop, one of which the activator answers the probe."""
    sent = facts.network_probe, facts.method  # which is told where no body is announced
    if held:
        every = [PROBES[role] | {"port": it} for role in held & {*PROBES} for it in (8012, 8013)]
    else:
        every = [it for it in policy.get("exemptions", []) if it["peer"] == facts.principal]
    if held and not (by_activator or facts.queue_proxy):
        return False
    return any(
        it["port"] == facts.port
        and it.get("path") in {None, facts.path.partition("?")[0]}
        and facts.user_agent.startswith(it.get("user_agent", ""))
        and ("network_probe" not in it or (it["network_probe"], "GET") == sent)
        and (not by_activator or it.get("network_probe") in {"activator", "probe"})
        for it in every
    )


def opened(policy: Policy, namespace: str) -> bool | list[str]:
    """Whether it is public, or which Services of it are; of the platform's, none unless said."""
    holders = {it.split("/")[4] for who in policy.get("roles", {}).values() for it in who}
    relays = {relay.partition(".")[2] for relay in policy.get("relays", [])}
    public: bool | list[str] | None = said(policy, namespace, "public", None)
    if namespace in CLOSED | holders | relays:
        return public or []
    return bool(policy.get("default_public", True)) if public is None else public


def lists(public: bool | list[str], service: str | None) -> bool:
    """Whether what is public has this Service, by its name or as a revision; `None`: has any."""
    if isinstance(public, bool) or service is None:
        return bool(public)
    return any(re.fullmatch(rf"{re.escape(it)}(-[0-9]{{5,}})?", service) for it in public)


def may_open(world: World, owner: str, to: str) -> bool:
    """Whether a namespace may open another: its tenant's, or one that grants it as a whole."""
    whole = [
        grant
        for grant in world.policy.get("grants", [])
        if grant["from"] != "*" and not grant.keys() & {"service_account", "port"}
    ]
    policy = {**world.policy, "grants": whole}
    same = tenant(policy, owner) == tenant(policy, to)
    return same or granted(world._replace(policy=policy), owner, "", to, "any")


def owner_of_host(world: World, host: str) -> str | None:
    """Whose a Host is: by `hosts`, else by the first template that fits, else by a claim."""
    if host in world.policy.get("hosts", {}):
        return str(world.policy["hosts"][host])
    for template in world.policy.get("host_templates", []):
        form = re.escape(template).replace(re.escape("{{.Name}}"), "[a-z0-9-]+")
        found = re.fullmatch(form.replace(re.escape("{{.Namespace}}"), f"({LABEL})"), host)
        if found:
            return found[1]
    return world.claims.get(host)
