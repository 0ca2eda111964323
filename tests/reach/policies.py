"""Policies by chance, and the long way to an answer: one question to `decide` for each request."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace, Service
from authz.domain.policy import EVERYONE, Exemption, Grant, Mode, NamespacePolicy, Policy, Role
from authz.domain.verdict import Allow
from authz.reach.groups import Pair
from authz.reach.pairs import Answers
from authz.reach.ways import Oracle, Request, Way
from authz.testing import NOW, workload

TEXT: Final = """\
roles:
  transit: [spiffe://cluster.local/ns/knative-serving/sa/activator]
  gateway: [spiffe://cluster.local/ns/istio-system/sa/gateway]
tenants:
  acme: {namespaces: [web, db]}
namespaces:
  db: {public: false}
  old: {mode: shadow}
grants:
  - {to: db, from: bank, service_account: till, port: 8080, until: 2099-01-31}
"""
"""A policy as people write it."""
NAMED: Final = [Namespace(name) for name in ("a1", "a2", "a3", "b1", "b2", "c", "hops")]
"""Namespaces that a policy may name."""
NAMESPACES: Final = [*NAMED, Namespace("stranger"), Namespace("another")]
ACCOUNTS: Final = ("default", "reader", "scraper")
PORTS: Final = (8080, 8081, 9091)
SERVICES: Final = ("web", "web-00001", "api")
SOON: Final = int(NOW) + 60
MOMENTS: Final = (NOW, float(SOON), float(SOON) + 60)

_named = st.sampled_from(NAMED)
_modes = st.sampled_from([None, None, None, None, Mode.ENFORCE, Mode.SHADOW, Mode.OFF])
_public = st.sampled_from([None, None, None, None, True, False, frozenset({"web"})])
_grants = st.builds(
    Grant,
    _named,
    st.one_of(_named, _named, st.just(EVERYONE)),
    st.sampled_from([None, None, "reader"]),
    st.sampled_from([None, None, 8080, 8081]),
    st.sampled_from([None, None, SOON, SOON + 60, int(NOW) - 1]),
)
_exempt = st.sampled_from(
    [(), (Exemption(9091),), (Exemption(9091, "/metrics"), Exemption(8080, user_agent="x"))]
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """One of few names, so that its parts meet."""
    spaces = {}
    for name in draw(st.sets(_named, min_size=4)):
        own = {"a": "acme", "b": "bank"}.get(name[0])
        tenant = draw(st.sampled_from([own, own, own, None, "acme"]))
        plaintext = not draw(st.integers(0, 4))
        spaces[name] = NamespacePolicy(tenant, draw(_modes), draw(_public), plaintext)
    hops = workload("hops", "activator"), workload("hops", "gateway")
    roles = {hops[0]: frozenset({Role.TRANSIT}), hops[1]: frozenset({Role.GATEWAY})}
    one, two = {"cluster.local"}, {"cluster.local", "two"}
    trusted = draw(st.sampled_from([one, one, two]))
    peers = {workload("b1", "scraper"): draw(_exempt), workload("c", "scraper"): draw(_exempt)}
    return Policy(
        trust_domains=frozenset(trusted),
        relays=draw(st.sampled_from([frozenset(), frozenset({Service("other", NAMED[0])})])),
        default_mode=draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.SHADOW])),
        default_public=draw(st.booleans()),
        namespaces=spaces,
        grants=tuple(draw(st.lists(_grants, max_size=draw(st.sampled_from([0, 1, 6]))))),
        roles={peer: draw(st.sampled_from([roles[peer], roles[peer]])) for peer in hops}
        if draw(st.integers(0, 4))
        else {},
        exemptions={peer: rules for peer, rules in peers.items() if rules},
        route_owners=frozenset(draw(st.sets(_named, max_size=1))),
    )


def requests() -> st.SearchStrategy[tuple[Request, str]]:
    """A request, each of its fields said, and the trust domain of who makes it."""
    ways = st.sampled_from([Way.PEER, Way.TOKEN, Way.TCP, Way.PLAINTEXT])
    accounts = st.sampled_from(ACCOUNTS)
    inside = st.tuples(ways, accounts, st.sampled_from(PORTS)).map(lambda it: Request(*it))
    event = accounts.map(lambda it: Request(Way.EVENT, it))
    outside = st.sampled_from(SERVICES).map(lambda it: Request(Way.OUTSIDE, service=it))
    domains = st.sampled_from(["cluster.local", "cluster.local", "two"])
    return st.tuples(st.one_of(inside, event, outside), domains)


def gets_in(policy: Policy, pair: Pair, request: Request, domain: str, now: float) -> bool:
    """Whether one request does, by `decide`."""
    oracle = Oracle(policy, now)
    source, to = pair
    if not oracle.has(request.way):
        return False
    caller = SpiffeId(domain, source, request.account or "default")
    match request.way:
        case Way.TOKEN:
            verdict = oracle.by_token(caller, to, request.port or 0, "some")
        case Way.PLAINTEXT:
            verdict = oracle.in_plaintext(caller, to, request.port or 0)
        case Way.EVENT:
            verdict = oracle.by_event(caller, to)
        case Way.TCP:
            verdict = oracle.raw(caller, to, request.port or 0)
        case Way.OUTSIDE:
            verdict = oracle.from_outside(to, 8012, request.service or "", route_of=source)
        case _:
            verdict = oracle.straight(caller, to, request.port or 0)
    return isinstance(verdict, Allow)


def as_asked(answers: Answers, request: Request, domain: str, source: Namespace) -> Request:
    """The request under which the answer to this one stands: what no rule names is `None`."""
    asked = [it for it in answers.asked if it.way is request.way]
    full = f"spiffe://{domain}/ns/{source}/sa/{request.account}"
    account = next((it for it in (full, request.account) if it in {r.account for r in asked}), None)
    port = request.port if request.port in {it.port for it in asked} else None
    service = request.service if request.service in {it.service for it in asked} else None
    return Request(request.way, account, port, service)
