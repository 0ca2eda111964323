"""A second reading of the decision tables, from what the pages say.

It imports nothing of ours. A policy is the document that people write; facts and a keyring are any
objects with the fields of the program's own. Where the two readings differ, a page, the program or
this file is wrong. The pages are the architecture, the reference, and the comments of
`deploy/base/policy.yaml`. It is plain on purpose: no tables, nothing worked out beforehand.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from tests.oracle.policy_file import (
    Policy,
    World,
    exempt,
    granted,
    lists,
    may_open,
    mode,
    opened,
    owner_of_host,
    roles,
    said,
    tenant,
    trusted,
)
from tests.oracle.token_format import LABEL, fault, read, short, sign
from tests.oracle.where_to import (
    behind,
    called,
    one_namespace,
    owner_of_route,
    plain,
    readable,
    routed,
)

PEER: Final = re.compile(rf"spiffe://([^/]+)/ns/({LABEL})/sa/([a-z0-9.-]+)")


class Answer(NamedTuple):
    """What becomes of a request."""

    row: str
    allowed: bool
    why: str
    """The reason of a denial, the ground of an allow."""
    header: str = "keep"
    """`keep`, `remove`, or the token that is set."""
    would_deny: str | None = None
    """The reason, in shadow mode."""
    kept: int = 0
    """For how many seconds the proxy may give it again, see `kept`."""


def answer(question: str, facts: Any, world: World) -> Answer:
    """Read the table of a question."""
    policy, asks = world.policy, facts.caller
    held = roles(policy, str(asks))
    if not trusted(policy, asks.trust_domain):
        return Answer("caller-untrusted", allowed=False, why="caller-untrusted")
    if facts.forwarded:
        return Answer("forwarded", allowed=False, why="check-forwarded")
    if question == "public" and "gateway" not in held:
        return Answer("gateway-only", allowed=False, why="role-required")
    if question in {"sign", "public"}:
        return outbound(question, facts, world, held)
    to: str | None = asks.namespace
    if question == "transit":
        if "transit" not in held:
            return Answer("hop-only", allowed=False, why="role-required")
        to = behind(facts, policy)
    if to is None:
        lost = facts.hop == "gateway" and not readable(facts.upstream)
        why = "upstream-unreadable" if lost else "destination-unknown"
        return Answer("nowhere", allowed=False, why=why)
    if question == "transit" and to == world.own:
        return Answer("to-ourselves", allowed=False, why="for-ourselves")
    header = "remove" if question == "verify" else "keep"
    row, allowed, why = inbound(question, facts, world, to)
    return Answer(row, allowed, why, header) if allowed else denied(row, why, header, policy, to)


def denied(row: str, why: str, header: str, policy: Policy, to: str) -> Answer:
    """A denial, as far as D's mode lets it be one."""
    if (ruled := mode(policy, to)) == "enforce":
        return Answer(row, allowed=False, why=why)
    return Answer(row, True, "not-enforced", header, why if ruled == "shadow" else None)


def outbound(question: str, facts: Any, world: World, held: set[str]) -> Answer:
    """Read `sign` or `public`, once who asks may ask."""
    to = routed(facts, world.policy, gateway=question == "public")
    if to is None and not readable(facts.upstream):
        return Answer("upstream-unreadable", True, "upstream-unreadable", "remove")
    if to is None:
        return Answer("leaves-the-mesh", True, "left-the-mesh", "remove")
    if to == world.own and held:
        return Answer("to-ourselves", allowed=False, why="for-ourselves")
    if to == world.own:
        return Answer("to-ourselves", True, "for-ourselves", "remove")
    row, source, account = "signed", facts.caller.namespace, short(facts.caller.service_account)
    if question == "public":
        if why := closed(facts, world, to):
            return denied("not-theirs-to-open", why, "remove", world.policy, to)
        row, source, account = "public", "@public", ""
    elif "on-behalf-of" in held and (named := one_namespace(facts.kn_namespace)):
        row, source, account = "on-behalf-of", named, ""
    elif "transit" in held and facts.tokens:
        return Answer("passed-on", True, "passed-on")
    parties = source, account, to
    token = sign(parties, world.keyring, world.now, world.token_seconds, world.reuse[0] or 1)
    return Answer(row, True, "signed", token)


def closed(facts: Any, world: World, to: str) -> str:
    """Why this route may not open D to the outside; empty if it may."""
    policy = world.policy
    if facts.upstream is not None or facts.virtual_service:  # else a route is the operator's
        owner = owner_of_route(facts)
        if owner is None:
            return "route-unowned"
        if owner not in policy.get("route_owners", []) and not may_open(world, owner, to):
            return "route-foreign"
    known = owner_of_host(world, plain(facts.host))
    if known is not None and not may_open(world, known, to):
        return "host-foreign"
    public = opened(policy, to)
    judged = not isinstance(public, bool)  # `public: false` is for the pod to say
    return "not-public" if judged and not lists(public, called(facts, policy)) else ""


class Peer(NamedTuple):
    """Who brought a request, as far as it is proven."""

    namespace: str | None
    account: str
    roles: set[str]


def proven(policy: Policy, principal: str) -> Peer:
    """A peer of an accepted trust domain. Of another, or in plaintext, it proves nothing."""
    parts = PEER.fullmatch(principal)
    if parts is None or not trusted(policy, parts[1]):
        return Peer(None, "", set())
    return Peer(parts[2], short(parts[3]), roles(policy, principal))


def inbound(question: str, facts: Any, world: World, to: str) -> tuple[str, bool, str]:
    """Read `verify`, `transit` or `tcp`, as if it were enforced."""
    peer = proven(world.policy, facts.principal)
    known = peer.namespace is not None
    if question == "transit":
        activator = known and facts.hop == "activator"
        if activator and exempt(world.policy, facts, peer.roles, by_activator=True):
            return "probe", True, "exempt"
        ports = {"gateway": "any", "activator": facts.port}  # which calls the pod on the same
        return by_token(facts, world, to, peer, ports.get(facts.hop, "none"))
    if known and exempt(world.policy, facts, peer.roles, by_activator=False):
        return "exempt", True, "exempt"
    if peer.namespace is not None and not peer.roles:
        if tenant(world.policy, peer.namespace) == tenant(world.policy, to):
            return "peer-of-tenant", True, "proven-peer"
        if granted(world, peer.namespace, peer.account, to, facts.port):
            return "peer-granted", True, "proven-peer"
    if question == "tcp":
        return "peer-unproven", False, "peer-unproven"
    return by_token(facts, world, to, peer, facts.port)


def by_token(
    facts: Any, world: World, to: str, peer: Peer, port: int | str
) -> tuple[str, bool, str]:
    """Read the rows from `token-missing` on."""
    if len(facts.tokens) != 1:
        row = "token-repeated" if facts.tokens else "token-missing"
        return row, False, row
    token = read(facts.tokens[0])
    if token is None:
        return "token-bad", False, "token-malformed"
    if why := fault(facts.tokens[0], token, world.keyring, world.now, world.leeway):
        return "token-bad", False, why
    if token.destination not in meant_for(facts, to, event=port == "none"):
        return "meant-for-another", False, "meant-for-another-namespace"
    public = token.source == "@public"
    platform = peer.roles & {"transit", "gateway"} if public else peer.roles
    plaintext = not facts.principal and said(world.policy, to, "plaintext_peers", False)
    if not (platform or plaintext or peer.namespace == token.source):
        return "stranger", False, "presented-by-a-stranger"
    if public and not takes_public(facts, world.policy, to):
        return "not-public", False, "not-public"
    if public:
        return "from-outside", True, "from-outside"
    if tenant(world.policy, token.source) == tenant(world.policy, to):
        return "same-tenant", True, "same-tenant"
    if granted(world, token.source, token.account, to, port):
        return "granted", True, "granted"
    return "no-grant", False, "no-grant"


def meant_for(facts: Any, to: str, *, event: bool) -> set[str]:
    """At a hop by path a token is for the hop's namespace; a channel goes by Host, too."""
    if not event:
        return {to}
    return {facts.caller.namespace, *([to] if facts.hop == "channel" else [])}


def takes_public(facts: Any, policy: Policy, to: str) -> bool:
    """Whether D takes the outside world. A list is judged at a gateway; an event has no Service."""
    service = None if facts.hop in {None, "activator"} else ""
    return lists(opened(policy, to), called(facts, policy) if facts.hop == "gateway" else service)
