"""The decision: a question and its facts go in, `Allow` or `Deny` comes out.

The law of this file: it is the only place that decides, it is pure (time is an argument), and
every path ends in a denial unless a rule on it said why not. `sign` and `public` put a token on a
request; `verify` and `tcp` let a request in or not. `transit` is asked on a hop in between: behind
it every request has the hop's identity, so it is there that whoever presents a token is checked.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Final

from authz.domain import exposure, tokens
from authz.domain.destination import destination_of, only_namespace
from authz.domain.facts import BY_PATH, Facts, Hop, Question
from authz.domain.identity import SpiffeId, short_account
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import PUBLIC, Namespace, is_cluster_name
from authz.domain.policy import (
    ANSWERED_BY_THE_ACTIVATOR,
    RELAYING,
    ROLE_EXEMPTIONS,
    Mode,
    Policy,
    Role,
)
from authz.domain.reason import InvalidToken, Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction, Parties, SetToken
from authz.errors import InvalidIdentity

_MAX_QUOTED: Final = 128  # characters


@dataclass(frozen=True, slots=True)
class Rules:
    """What is decided by. A new policy or keyring makes new rules: no answer mixes two."""

    policy: Policy
    keyring: Keyring
    life: TokenLife

    def next_change(self, now: float) -> float:
        """When a key or a grant next begins or ends to count, in seconds since the epoch."""
        return min(self.policy.next_change(now), self.keyring.next_change(now))


def decide(question: Question | None, facts: Facts, rules: Rules, now: float) -> Allow | Deny:
    """Answer one question.

    `question` is `None` where it is missing, repeated or unknown; `now` is in seconds since the
    epoch.
    """
    if question is None:
        return Deny(Reason.QUESTION_UNKNOWN, _party(facts.caller))
    if facts.caller.trust_domain not in rules.policy.trust_domains:
        return Deny(Reason.CALLER_UNTRUSTED, _party(facts.caller))
    match question:
        case Question.SIGN:
            return _sign(facts, rules, now)
        case Question.PUBLIC:
            return _sign_public(facts, rules, now)
        case Question.VERIFY | Question.TRANSIT | Question.TCP:
            return _let_in(question, facts, rules, now)


def decide_in_doubt(
    reason: Reason, question: Question | None, caller: SpiffeId | None, policy: Policy
) -> Allow | Deny:
    """Answer where the facts are lost: a denial, unless the caller's namespace enforces nothing."""
    if caller is None or caller.trust_domain not in policy.trust_domains:
        return Deny(Reason.CALLER_UNTRUSTED, _party(caller))
    denial = Deny(reason, _party(caller))
    if question is Question.VERIFY or question is Question.TCP:
        return _under_mode(denial, question, caller.namespace, policy)
    return denial


# -- putting a token on ------------------------------------------------------------------------


def _sign(facts: Facts, rules: Rules, now: float) -> Allow:
    source, account = facts.caller.namespace, facts.caller.service_account
    roles = rules.policy.roles_of(facts.caller)
    destination = destination_of(Question.SIGN, facts, rules.policy)
    # First: what Eventing sends in a tenant's name carries no token that a tenant slipped in.
    if Role.ON_BEHALF_OF in roles and (origin := only_namespace(facts.kn_namespace)) is not None:
        return _signed(Parties(origin, "", destination), facts, rules, now)
    # Eventing's hops send where a tenant's objects say, and that may be out of the mesh.
    if Role.TRANSIT in roles and facts.tokens and destination is not None:
        return Allow(Ground.PASSED_ON, HeaderAction.KEEP, Parties(source, account))
    return _signed(Parties(source, account, destination), facts, rules, now)


def _sign_public(facts: Facts, rules: Rules, now: float) -> Allow | Deny:
    if Role.GATEWAY not in rules.policy.roles_of(facts.caller):
        return Deny(Reason.ROLE_REQUIRED, _party(facts.caller))
    destination = destination_of(Question.PUBLIC, facts, rules.policy)
    parties = Parties(PUBLIC, "", destination)
    if destination is not None:
        refused = exposure.refusal(destination, facts, rules.policy, now)
        if refused is not None:
            denial = Deny(refused, replace(parties, route_of=exposure.owner_of_route(facts)))
            return _under_mode(denial, Question.PUBLIC, destination, rules.policy)
    return _signed(parties, facts, rules, now)


def _signed(parties: Parties, facts: Facts, rules: Rules, now: float) -> Allow:
    if parties.source is None or parties.destination is None:
        ground, unreadable = Ground.LEFT_THE_MESH, _unreadable(facts.upstream)
        if unreadable:
            ground, parties = Ground.UPSTREAM_UNREADABLE, replace(parties, upstream=unreadable)
        return Allow(ground, HeaderAction.REMOVE, parties)
    token = tokens.mint(
        source=parties.source,
        service_account=parties.service_account,
        destination=parties.destination,
        keyring=rules.keyring,
        now=now,
        life=rules.life,
    )
    return Allow(Ground.SIGNED, SetToken(token), parties, good_until=int(now) + rules.life.reuse)


def _unreadable(upstream: str | None) -> str:
    """What is said of the upstream, if it is no cluster name: as much of it as the log needs."""
    return "" if upstream is None or is_cluster_name(upstream) else upstream[:_MAX_QUOTED]


# -- letting in --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A request at the door of `destination`, brought by `peer` (`None`: nobody that is proven)."""

    question: Question
    facts: Facts
    destination: Namespace
    peer: SpiffeId | None

    @property
    def hop(self) -> Hop | None:
        """The hop that asks, where one does."""
        return self.facts.hop if self.question is Question.TRANSIT else None

    @property
    def port(self) -> int | None:
        """The destination's port: `None` where it is yet to come, 0 where there will be none.

        A hop on the way does not know it, and the pod asks again. Behind a hop by path nobody does:
        what Eventing takes for a namespace, it does there in that namespace's own name.
        """
        if self.question is not Question.TRANSIT:
            return self.facts.port
        return 0 if self.hop in BY_PATH else None

    @property
    def meant_for(self) -> tuple[Namespace, ...]:
        """The namespaces for one of which a token must be made.

        Where the hop chooses by the path, a token was made for the hop itself: whoever signed saw
        where the request goes, and not what its path means there. The broker's ingress carries it
        on to the channel.
        """
        if self.hop is Hop.CHANNEL:
            return self.destination, self.facts.caller.namespace
        if self.hop in BY_PATH:
            return (self.facts.caller.namespace,)
        return (self.destination,)

    def allow(self, ground: Ground, parties: Parties, *, good_until: float = inf) -> Allow:
        return Allow(ground, _left_by(self.question), parties, good_until=good_until)


def _let_in(question: Question, facts: Facts, rules: Rules, now: float) -> Allow | Deny:
    policy = rules.policy
    if question is Question.TRANSIT and Role.TRANSIT not in policy.roles_of(facts.caller):
        return Deny(Reason.ROLE_REQUIRED, _party(facts.caller))
    destination = destination_of(question, facts, policy)
    peer = _proven_peer(facts.principal, policy)
    if destination is None:
        unreadable = _unreadable(facts.upstream) if facts.hop is Hop.GATEWAY else ""
        reason = Reason.UPSTREAM_UNREADABLE if unreadable else Reason.DESTINATION_UNKNOWN
        return Deny(reason, replace(_party(peer), upstream=unreadable))
    arrival = _Arrival(question, facts, destination, peer)
    verdict = _by_peer(arrival, policy, now) or _by_token(arrival, rules, now)
    return _under_mode(verdict, question, destination, policy)


def _under_mode(
    verdict: Allow | Deny, question: Question, destination: Namespace, policy: Policy
) -> Allow | Deny:
    """Let the destination's mode turn a denial into an allow."""
    if isinstance(verdict, Allow):
        return verdict
    mode = policy.mode_of(destination)
    if mode is Mode.ENFORCE:
        return verdict
    recorded = verdict.reason if mode is Mode.SHADOW else None
    parties = replace(verdict.parties, destination=destination)
    return Allow(Ground.NOT_ENFORCED, _left_by(question), parties, would_deny=recorded)


def _by_peer(arrival: _Arrival, policy: Policy, now: float) -> Allow | None:
    """Allow what the peer's own identity proves, token or not; `None` leaves it to the token."""
    peer = arrival.peer
    if peer is None:
        return None
    parties = _party(peer, arrival.destination)
    if _exempt(arrival, peer, policy):
        return arrival.allow(Ground.EXEMPT, parties)
    if arrival.question is Question.TRANSIT:  # behind the hop only the token is left of the peer
        return None
    if policy.roles_of(peer):  # what it brings may be anybody's
        return None
    if policy.same_tenant(peer.namespace, arrival.destination) or policy.granted(
        peer.namespace,
        short_account(peer.service_account),
        arrival.destination,
        arrival.port,
        now,
    ):
        return arrival.allow(Ground.PROVEN_PEER, parties)
    return None


def _exempt(arrival: _Arrival, peer: SpiffeId, policy: Policy) -> bool:
    facts, roles = arrival.facts, policy.roles_of(peer)
    if roles:
        exemptions = [known for role in roles for known in ROLE_EXEMPTIONS.get(role, ())]
    else:
        exemptions = list(policy.exemptions.get(peer, ()))
    if arrival.question is Question.TRANSIT:
        # Only probes that the hop answers itself. Others would be passed on: they could wake a pod,
        # and bring somebody's token to it.
        exemptions = [
            known
            for known in exemptions
            if arrival.hop is Hop.ACTIVATOR and known.network_probe in ANSWERED_BY_THE_ACTIVATOR
        ]
    return any(
        exemption.covers(
            port=facts.port,
            path=facts.path,
            user_agent=facts.user_agent,
            network_probe=facts.network_probe,
        )
        for exemption in exemptions
    )


def _by_token(arrival: _Arrival, rules: Rules, now: float) -> Allow | Deny:
    parties = _party(arrival.peer, arrival.destination)
    if arrival.question is Question.TCP:  # raw bytes carry no token
        return Deny(Reason.PEER_UNPROVEN, parties)
    if not arrival.facts.tokens:
        return Deny(Reason.TOKEN_MISSING, parties)
    if len(arrival.facts.tokens) > 1:
        return Deny(Reason.TOKEN_REPEATED, parties)
    try:
        received = tokens.parse(arrival.facts.tokens[0])
        parties = replace(parties, key=received.key, claimed_source=received.claims.source)
        verified = tokens.verify(received, keyring=rules.keyring, now=now, life=rules.life)
    except InvalidToken as error:
        return Deny(error.reason, parties)
    claims = verified.claims
    parties = replace(
        parties,
        source=claims.source,
        service_account=claims.service_account,
        claimed_source=None,
    )
    if claims.destination not in arrival.meant_for:
        return Deny(Reason.MEANT_FOR_ANOTHER_NAMESPACE, parties)
    if not _may_present(arrival, claims.source, rules.policy):
        return Deny(Reason.PRESENTED_BY_A_STRANGER, parties)
    return _by_source(arrival, claims, parties, rules.policy, now=now)


def _may_present(arrival: _Arrival, source: Namespace, policy: Policy) -> bool:
    """A token counts only from its source or from the platform: a thief has nothing."""
    if arrival.peer is None:
        plaintext = not arrival.facts.principal
        return plaintext and policy.of(arrival.destination).plaintext_peers
    roles = policy.roles_of(arrival.peer)
    if roles & RELAYING:
        return True
    return source != PUBLIC and (arrival.peer.namespace == source or Role.ON_BEHALF_OF in roles)


def _by_source(
    arrival: _Arrival, claims: tokens.Claims, parties: Parties, policy: Policy, *, now: float
) -> Allow | Deny:
    """Judge where a verified token comes from."""
    if claims.source == PUBLIC:
        accepted = policy.accepts_public(arrival.destination)
        if not exposure.is_open(accepted, _service_behind(arrival, policy)):
            return Deny(Reason.NOT_PUBLIC, parties)
        ground = Ground.FROM_OUTSIDE
    elif policy.same_tenant(claims.source, arrival.destination):
        ground = Ground.SAME_TENANT
    elif policy.granted(
        claims.source, claims.service_account, arrival.destination, arrival.port, now
    ):
        ground = Ground.GRANTED
    else:
        return Deny(Reason.NO_GRANT, parties)
    return arrival.allow(ground, parties, good_until=claims.expires_at)


def _service_behind(arrival: _Arrival, policy: Policy) -> str | None:
    """The Service that a hop sends a request to; empty if it is none, `None` if it was seen before.

    The activator is a Service's endpoint and a pod is its end. An event goes to none.
    """
    if arrival.hop is Hop.GATEWAY:
        return exposure.called_service(arrival.facts, policy)
    return "" if arrival.hop in BY_PATH else None


def _proven_peer(principal: str, policy: Policy) -> SpiffeId | None:
    """The workload at the other end of the connection, as mTLS proved it to the caller."""
    try:
        peer = SpiffeId.parse(principal)
    except InvalidIdentity:
        return None
    return peer if peer.trust_domain in policy.trust_domains else None


def _party(workload: SpiffeId | None, destination: Namespace | None = None) -> Parties:
    if workload is None:
        return Parties(destination=destination)
    return Parties(workload.namespace, workload.service_account, destination, peer=workload)


def _left_by(question: Question) -> HeaderAction:
    """The app behind `verify` never sees a token; a hop must pass it on; no client brings one."""
    taken = question is Question.VERIFY or question is Question.PUBLIC
    return HeaderAction.REMOVE if taken else HeaderAction.KEEP
