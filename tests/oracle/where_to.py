"""A second reading of where a request goes, from what the pages say.

It imports nothing of ours.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tests.oracle.policy_file import Policy
from tests.oracle.token_format import LABEL

OUTBOUND: Final = re.compile(r"outbound\|[1-9][0-9]{0,4}\|[\w.-]*\|([a-z0-9.-]+)", re.ASCII)
ISTIODS: Final = re.compile(
    r"-?|(Inbound)?PassthroughCluster|BlackHoleCluster"
    r"|(in|out)bound\|[0-9]{0,5}\|[\w.-]*\|[\w.*-]*",
    re.ASCII,
)
ROUTE: Final = re.compile(
    rf"/apis/networking\.istio\.io/v1\w*/namespaces/({LABEL})/virtual-service/[^/\s]+", re.ASCII
)


def plain(host: str) -> str:
    """A Host in lower case, without one port and then one dot at the end; else empty."""
    found = re.fullmatch(rf"({LABEL}(\.{LABEL})*)\.?(:[0-9]{{1,5}})?", host.lower())
    return found[1] if found and host.isascii() else ""


def full(name: str, policy: Policy) -> str | None:
    """The namespace of `<name>.<namespace>.svc.<cluster domain>`, and of no other form."""
    domains = "|".join(map(re.escape, policy.get("cluster_domains", ["cluster.local"])))
    found = re.fullmatch(rf"{LABEL}\.({LABEL})\.svc\.({domains})", name)
    return found and found[1]


def service(name: str, policy: Policy) -> str | None:
    """The same, or without the cluster domain, or with labels before, as a pod's name has."""
    domains = "|".join(map(re.escape, policy.get("cluster_domains", ["cluster.local"])))
    found = re.fullmatch(rf"(?:{LABEL}\.)+({LABEL})\.svc(\.({domains}))?", name)
    return found and found[1]


def relayed(name: str, policy: Policy, own: str) -> str | None:
    """The same, or `<name>.<namespace>`, or `<name>` in the namespace of who asks."""
    short_name = re.fullmatch(rf"{LABEL}(\.(?!svc$)({LABEL}))?", name)
    if found := service(name, policy):
        return found
    if not short_name or re.fullmatch(r"[0-9]+|0x[0-9a-f]*|svc", name.rsplit(".", maxsplit=1)[-1]):
        return None
    return short_name[2] or own


def routed(facts: Any, policy: Policy, *, gateway: bool) -> str | None:
    """Where Envoy sends it. Outside Istio, where no cluster is told: where its Host says."""
    host = plain(facts.host)
    if facts.upstream is None:
        return policy.get("hosts", {}).get(host) or service(host, policy)
    cluster = OUTBOUND.fullmatch(facts.upstream)
    to = full(cluster[1], policy) if cluster else None
    if cluster and to and cluster[1].partition(".svc.")[0] in policy.get("relays", []):
        return owner_of_route(facts) if gateway else relayed(host, policy, facts.caller.namespace)
    return to


def owner_of_route(facts: Any) -> str | None:
    """The namespace of the VirtualService that a gateway's route is of."""
    route = ROUTE.fullmatch(facts.virtual_service)
    return route and route[1]


def called(facts: Any, policy: Policy) -> str | None:
    """The Service that a gateway sends a request to; `None`: a relay, behind which it is told."""
    cluster = OUTBOUND.fullmatch(facts.upstream or "")
    if cluster is None or full(cluster[1], policy) is None:
        return ""
    name = cluster[1].partition(".svc.")[0]
    return None if name in policy.get("relays", []) else name.partition(".")[0]


def behind(facts: Any, policy: Policy) -> str | None:
    """Where the hop sends it."""
    path = facts.path.partition("?")[0]
    match facts.hop:
        case "gateway":
            return routed(facts, policy, gateway=True)
        case "activator":
            if not (any(facts.serving_namespace) and any(facts.serving_revision)):
                return full(plain(facts.host), policy)
            if len(facts.serving_revision) > 1 or "," in facts.serving_revision[0]:
                return None
            return one_namespace(facts.serving_namespace)
        case "channel" if path == "/":
            return service(plain(facts.host), policy)
        case "broker" | "channel" | "request-reply":
            found = re.fullmatch(r"/([^/]*)(/.*)?", path)
        case "trigger":
            found = re.fullmatch(r"/triggers/([^/]*)(/.*)?", path)
        case "job-sink":
            sent, status = (
                r"/([^/]*)/[^/]*",
                r"/namespaces/([^/]*)/name/[^/]*/sources/[^/]*/ids/[^/]*",
            )
            path = facts.path.removesuffix("/")
            found = re.fullmatch(sent, path) or re.fullmatch(status, path)
        case _:
            return None
    return one_namespace((found[1],)) if found else None


def one_namespace(values: tuple[str, ...]) -> str | None:
    """The one value, if there is one, and it is a namespace's name."""
    return values[0] if len(values) == 1 and re.fullmatch(LABEL, values[0]) else None


def readable(upstream: str | None) -> bool:
    """Whether istiod gives clusters such names; nothing, or `-`, where a route leads nowhere."""
    return upstream is None or ISTIODS.fullmatch(upstream) is not None
