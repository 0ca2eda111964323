"""The ways from one namespace to another, and what is decided on each of them."""

import enum
from typing import Final, NamedTuple

from authz.domain import rotation, tokens
from authz.domain.decision import Rules, decide
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import TokenLife
from authz.domain.names import PUBLIC, Namespace
from authz.domain.policy import EVERYONE, Exemption, Policy, Role
from authz.domain.verdict import Allow, Deny, Ground, Reuse, SetToken, Verdict
from authz.wire import cluster_name, virtual_service_name

LATEST: Final = 98_000_000_000
"""Seconds since the epoch, in the year 5075. Tokens have eleven digits for a time, so that nothing
can be asked about much later ones."""


class Way(enum.StrEnum):
    """How a request comes to a pod."""

    PEER = "peer"
    """Straight from the caller's pod: mTLS proves who it is."""
    TOKEN = "token"  # noqa: S105 - a word, not a secret
    """Through the activator or the local gateway, with the caller's token."""
    EVENT = "event"
    """Through a broker, channel or sink of Eventing, which goes by the path."""
    TCP = "tcp"
    """Straight, and not as HTTP."""
    PLAINTEXT = "plaintext"
    """In plaintext, with the caller's token: nothing proves who brings it."""
    EXEMPTION = "exemption"
    """Straight, as an exemption of the policy describes it."""
    OUTSIDE = "outside"
    """From outside the cluster, by the public gateway."""


_BECAUSE: Final = {
    Ground.PROVEN_PEER: "same tenant",
    Ground.SAME_TENANT: "same tenant",
    Ground.EXEMPT: "exemption",
    Ground.FROM_OUTSIDE: "public",
}


_REUSE: Final = Reuse(30, 2)
"""What the settings say where answers are kept: to tell which of them may be."""


class Request(NamedTuple):
    """One request. What is `None` or empty has a value that no rule names."""

    way: Way
    account: str | None = None
    """The caller's service account."""
    port: int | None = None
    """The pod's port. An event has none."""
    service: str | None = None
    """From outside: the Service that is called."""
    exemption: Exemption | None = None


class Oracle:
    """Asks `decide` what a policy says at one moment, in seconds since the epoch."""

    def __init__(self, policy: Policy, now: float) -> None:
        self.policy = policy
        self.now = now
        self._rules = Rules(policy, rotation.create(0), TokenLife(), reuse=_REUSE)
        self._trust_domain = min(policy.trust_domains)
        self._holders = {role: _holder(policy, role) for role in Role}

    def has(self, way: Way) -> bool:
        """Whether anybody holds the role without which there is no such way."""
        match way:
            case Way.TOKEN | Way.EVENT:
                return self._holders[Role.TRANSIT] is not None
            case Way.OUTSIDE:
                return self._holders[Role.GATEWAY] is not None
            case _:
                return True

    def straight(
        self, workload: SpiffeId, to: Namespace, port: int, like: Exemption | None = None
    ) -> Verdict:
        """Straight to the pod, with a token as the caller's sidecar puts it on."""
        facts = Facts(
            self._pod(to),
            principal=str(workload),
            port=port,
            path=(like and like.path) or "/",
            user_agent=(like and like.user_agent) or "",
            network_probe=(like and like.network_probe) or "",
            tokens=(self._token(workload, to),),
        )
        return decide(Question.VERIFY, facts, self._rules, self.now)

    def raw(self, workload: SpiffeId, to: Namespace, port: int) -> Verdict:
        """Straight to the pod, and not as HTTP."""
        facts = Facts(self._pod(to), principal=str(workload), port=port)
        return decide(Question.TCP, facts, self._rules, self.now)

    def in_plaintext(self, workload: SpiffeId, to: Namespace, port: int) -> Verdict:
        """To the pod, by nobody that is proven, with the caller's token."""
        return self._verify("", to, port, self._token(workload, to))

    def by_token(self, workload: SpiffeId, to: Namespace, port: int, service: str) -> Verdict:
        """Through a hop that passes the token on."""
        hop = self._holder(Role.TRANSIT)
        token = self._token(workload, to)
        facts = Facts(
            hop,
            Hop.ACTIVATOR,
            principal=str(workload),
            port=port,
            tokens=(token,),
            serving_namespace=(to,),
            serving_revision=(service,),
        )
        verdict = decide(Question.TRANSIT, facts, self._rules, self.now)
        return verdict if isinstance(verdict, Deny) else self._verify(hop, to, port, token)

    def by_event(self, workload: SpiffeId, to: Namespace) -> Verdict:
        """Through a hop that goes by the path: the token was made for the hop."""
        hop = self._holder(Role.TRANSIT)
        facts = Facts(
            hop,
            Hop.BROKER,
            principal=str(workload),
            path=f"/{to}/any",
            tokens=(self._token(workload, hop.namespace),),
        )
        return decide(Question.TRANSIT, facts, self._rules, self.now)

    def at_gateway(
        self, to: Namespace, service: str, *, route_of: Namespace, host: str = ""
    ) -> Verdict:
        """A request from outside where it comes in, by a route of some namespace."""
        facts = Facts(
            self._holder(Role.GATEWAY),
            upstream=self._upstream(to, service),
            virtual_service=virtual_service_name(route_of, "any"),
            host=host,
        )
        return decide(Question.PUBLIC, facts, self._rules, self.now)

    def from_outside(
        self, to: Namespace, port: int, service: str, *, route_of: Namespace, host: str = ""
    ) -> Verdict:
        """The same request up to the pod, with the token that the gateway was given."""
        verdict = self.at_gateway(to, service, route_of=route_of, host=host)
        if isinstance(verdict, Deny):
            return verdict
        token = verdict.header.token if isinstance(verdict.header, SetToken) else ""
        return self._verify(self._holder(Role.GATEWAY), to, port, token)

    def at_pod(self, to: Namespace, port: int, presenter: Role) -> Verdict:
        """A request with a token of the outside world's where it arrives, brought by a role."""
        return self._verify(self._holder(presenter), to, port, self._token(None, to))

    def _upstream(self, to: Namespace, service: str) -> str:
        return cluster_name(f"{service}.{to}.svc.{self.policy.cluster_domains[0]}", 80)

    def _verify(self, presenter: SpiffeId | str, to: Namespace, port: int, token: str) -> Verdict:
        held = (token,) if token else ()
        facts = Facts(self._pod(to), principal=str(presenter), port=port, tokens=held)
        return decide(Question.VERIFY, facts, self._rules, self.now)

    def _token(self, source: SpiffeId | None, to: Namespace) -> str:
        return tokens.mint(
            source=PUBLIC if source is None else source.namespace,
            service_account="" if source is None else source.service_account,
            destination=to,
            keyring=self._rules.keyring,
            now=self.now,
            life=self._rules.life,
        )

    def _pod(self, namespace: Namespace) -> SpiffeId:
        return SpiffeId(self._trust_domain, namespace, "default")

    def _holder(self, role: Role) -> SpiffeId:
        holder = self._holders[role]
        if holder is None:
            raise LookupError(f"nobody holds the role {role}: ask `has` first")
        return holder


def because(verdict: Allow, mode: str) -> str:
    """Why it gets in, in a word or three."""
    if verdict.ground is Ground.NOT_ENFORCED:
        return f"mode {mode}"
    if verdict.grant is not None:
        return "grant to everyone" if verdict.grant.source == EVERYONE else "grant"
    return _BECAUSE.get(verdict.ground, verdict.ground.slug)


def _holder(policy: Policy, role: Role) -> SpiffeId | None:
    """One who holds it: they are all alike, for what a role opens."""
    holders = (str(peer) for peer, roles in policy.roles.items() if role in roles)
    first = min(holders, default=None)
    return None if first is None else SpiffeId.parse(first)
