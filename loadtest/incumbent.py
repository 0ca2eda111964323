"""AuthorizationPolicies for each tenant, played beside the filters that ship, on a real istiod.

They are written from what the knative-istio-authz-chart's templates do (commit e187271): tenants'
pods take their tenant, Knative and Istio; the hops that all share take a tenant by its namespaces
and Hosts, or paths; events count by the sender's principal and `Kn-Namespace`. What an operator
has to add so that the standard cluster works, a grant and the gateway's own way, is added.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from authz.lab.box.istio import box, network
from authz.lab.box.istio.mesh import Source
from authz.lab.box.paths.deliveries import DELIVERIES
from authz.lab.box.paths.play import scenarios
from authz.lab.box.paths.table import PATHS
from authz.lab.harness.processes import CouldNotStart
from authz.lab.world import cluster
from authz.lab.world import paths as world
from authz.lab.world.model import DOMAIN
from authz.testing import Case, Outcome

Json = dict[str, Any]

TENANTS: Final[Mapping[str, Sequence[str]]] = {
    "acme": ("acme-web", "acme-db"),
    **{tenant: (tenant,) for tenant in cluster.TENANTS if not tenant.startswith("acme-")},
}
GRANTED: Final[Mapping[str, str]] = {"acme-db": "initech"}
"""Whom a namespace lets in beside its tenant."""
SENDERS: Final = ("pingsource-mt-adapter", "imc-dispatcher", "mt-broker-filter")
AUTHORIZING: Final = frozenset({"EnvoyFilter", "AuthorizationPolicy"})
"""Kinds of the documents that ship that are left out beside others'."""

SHADOW: Final = "shadow-foreign"
"""A scenario of ours alone: a namespace that only watches."""


def policies() -> Iterator[Json]:
    """All of them, for the standard cluster."""
    for tenant, namespaces in TENANTS.items():
        for namespace in namespaces:
            granted = [GRANTED[namespace]] if namespace in GRANTED else []
            yield _pods(namespace, [*namespaces, *granted], namespaces)
            if granted:
                yield _serving(f"{namespace}-granted", granted, [namespace])
                yield _eventing(f"{namespace}-granted", granted, [namespace], "job-sink")
        yield _serving(tenant, namespaces, namespaces)
        for receiver in ("broker-ingress", "imc-dispatcher", "job-sink"):
            yield _eventing(tenant, namespaces, namespaces, receiver)
    gateway = {"from": [{"source": {"namespaces": ["istio-system"]}}]}
    yield _policy("knative-serving", "gateway-to-activator", [gateway], "activator")
    yield _policy(
        "knative-eventing",
        "broker-to-channel",
        [{"from": [{"source": {"principals": [_eventing_account("mt-broker-ingress")]}}]}],
        "imc-dispatcher",
    )


def _policy(namespace: str, name: str, rules: list[Json], component: str = "") -> Json:
    labels = {"app.kubernetes.io/component": component}
    selector = {"selector": {"matchLabels": labels}} if component else {}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"action": "ALLOW", **selector, "rules": rules},
    }


def _pods(namespace: str, sources: Sequence[str], tenant: Sequence[str]) -> Json:
    platform = ["knative-serving", "istio-system"]
    events = {
        "from": [{"source": {"namespaces": ["knative-eventing"]}}],
        "when": [_sent_for([*tenant, *GRANTED.get(namespace, "").split()])],
    }
    calls = {"from": [{"source": {"namespaces": [*sources, *platform]}}]}
    return _policy(namespace, "from-tenant-knative-and-istio", [calls, events])


def _serving(name: str, sources: Sequence[str], to: Sequence[str]) -> Json:
    calls = {
        "from": [{"source": {"namespaces": [*sources]}}],
        "to": [{"operation": {"hosts": _hosts(to)}}],
    }
    events = {**_from_senders(), "to": calls["to"], "when": [_sent_for(sources)]}
    return _policy("knative-serving", f"{name}-to-activator", [calls, events], "activator")


def _eventing(name: str, sources: Sequence[str], to: Sequence[str], receiver: str) -> Json:
    operations = [
        {"operation": {"paths": [f"/{it}/*" for it in to]}},
        {"operation": {"hosts": _hosts(to)}},
    ]
    calls = {"from": [{"source": {"namespaces": [*sources]}}], "to": operations}
    events = {**_from_senders(), "to": operations, "when": [_sent_for(sources)]}
    return _policy("knative-eventing", f"{name}-to-{receiver}", [calls, events], receiver)


def _from_senders() -> Json:
    principals = [_eventing_account(sender) for sender in SENDERS]
    return {"from": [{"source": {"principals": principals}}]}


def _eventing_account(name: str) -> str:
    return f"{DOMAIN}/ns/knative-eventing/sa/{name}"


def _sent_for(namespaces: Sequence[str]) -> Json:
    return {"key": "request.headers[Kn-Namespace]", "values": [*namespaces]}


def _hosts(namespaces: Iterable[str]) -> list[str]:
    return [f"*.{it}{end}" for it in namespaces for end in ("", ".svc", f".svc.{DOMAIN}")]


# ---- playing ----


def _none(documents: tuple[Json, ...]) -> list[Json]:
    return [document for document in documents if document["kind"] not in AUTHORIZING]


WAYS: Final[Mapping[str, Callable[[tuple[Json, ...]], Iterable[Json]]]] = {
    "mutual TLS alone": _none,
    "AuthorizationPolicies": lambda documents: [*_none(documents), *policies()],
    "tenant-authz": lambda documents: documents,
}


@dataclass(frozen=True)
class Played:
    """A scenario, whether it may get in, and by which ways of authorization it did."""

    name: str
    shows: str
    may: bool
    did: Mapping[str, bool]


def chosen() -> list[tuple[Case[Any], bool]]:
    """Every path and event by every caller, and every attack; and whether it may get in.

    Who may is what the tables say of the relation of caller and pod: its own tenant, granted, or
    from outside where that is public. Attacks never may.
    """
    inside = {f"{path.name}-{r}": r for path in PATHS for r in path.outcomes}
    inside |= {f"event-{it.name}-{r}": r for it in DELIVERIES for r in it.outcomes}
    found = []
    for case in scenarios():
        if case.name.startswith("probe-") or case.name in {SHADOW, "original-host"}:
            continue
        relation = inside.get(case.name)
        friendly = relation in {"own", "sibling", "granted"}
        opened = relation is not None and gets_in(Outcome(case.expected))
        found.append((case, friendly or opened))
    return found


def gets_in(outcome: Outcome) -> bool:
    """Whether a request or event reached the app."""
    came = outcome.partition(";")[0]
    return came.startswith(("200", "delivered")) or "APP SAW IT" in came or _bytes(came) > 0


def _bytes(came: str) -> int:
    number, _, unit = came.partition(" ")
    return int(number) if unit == "bytes" and number.isdigit() else 0


async def play(
    source: Source,
    say: Callable[[str], None],
    ways: Iterable[str] = WAYS,
    only: Callable[[str], bool] = lambda _: True,
) -> list[Played]:
    """Play by each of the ways of authorization, one box after another.

    Args:
        source: where the Envoys' configurations come from: a real istiod.
        say: is told how far it is.
        ways: which.
        only: which scenarios, by name.

    Raises:
        CouldNotStart: something did not come up, or we are not root.
    """
    if lacking := network.missing():
        raise CouldNotStart(f"incumbent: {lacking}")
    cases = [(case, may) for case, may in chosen() if only(case.name)]
    did: dict[str, dict[str, bool]] = {case.name: {} for case, _ in cases}
    for way in ways:
        say(f"playing {len(cases)} scenarios with {way}")
        running = box.running(
            world.world(),
            policy=world.policy(),
            extra=world.scoped(),
            source=source,
            patched=WAYS[way],
        )
        async with running as mesh:
            await mesh.settled()
            for case, _ in cases:
                did[case.name][way] = gets_in(Outcome(await case.call(mesh)))
    return [Played(case.name, case.shows, may, did[case.name]) for case, may in cases]


def counts(played: Sequence[Played]) -> list[Json]:
    """For each way: of what may get in, how much does; and of what may not.

    What mutual TLS alone keeps out is counted too: it is kept out with each of the others.
    """
    return [
        {
            "authorization": way,
            "may get in, and does": _of(played, way, may=True),
            "may not, and does": _of(played, way, may=False),
        }
        for way in WAYS
    ]


def _of(played: Sequence[Played], way: str, *, may: bool) -> str:
    those = [it for it in played if it.may is may]
    return f"{sum(it.did[way] for it in those)} of {len(those)}"


def run(*, source: Source) -> list[Played]:
    """Play, and tell on standard error how far it is."""
    return asyncio.run(play(source, lambda line: print(line, file=sys.stderr)))  # noqa: T201
