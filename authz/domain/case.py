"""One case: a question, what came with it, and what follows from both. And a row, which judges it.

Rows are tried in the order of their table, see `authz.domain.decision`. What many of them look at
is worked out here, once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final

from authz.domain.destination import destination_of
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import Namespace, is_cluster_name
from authz.domain.policy import NO_ROLES, Grant, Policy
from authz.domain.reason import Reason
from authz.domain.tokens import Claims
from authz.domain.verdict import (
    Allow,
    Deny,
    Ground,
    HeaderAction,
    Parties,
    Reuse,
    SetToken,
    Verdict,
)
from authz.errors import InvalidIdentity

_MAX_QUOTED: Final = 128  # characters


@dataclass(frozen=True, slots=True)
class Rules:
    """What is decided by. A new policy or keyring makes new rules: no answer mixes two."""

    policy: Policy
    keyring: Keyring
    life: TokenLife
    own: Namespace | None = None
    """The namespace of the service itself; `None` where it has no SPIFFE ID."""
    reuse: Reuse = Reuse()  # noqa: RUF009 - a value
    _unchanged: list[float] = field(
        init=False, repr=False, compare=False, default_factory=lambda: [inf, -inf]
    )

    def next_change(self, now: float) -> float:
        """When a key or a grant next begins or ends to count, in seconds since the epoch."""
        since, until = self._unchanged
        if not since <= now < until:  # thousands of grants are not looked through for each answer
            until = min(self.policy.next_change(now), self.keyring.next_change(now))
            self._unchanged[:] = now, until
        return until


class Case:
    """A question to be answered, at `now` (seconds since the epoch)."""

    __slots__ = (
        "claims",
        "destination",
        "facts",
        "now",
        "parties",
        "peer",
        "peer_roles",
        "policy",
        "question",
        "roles",
        "row",
        "rules",
    )

    def __init__(self, question: Question, facts: Facts, rules: Rules, now: float) -> None:
        self.question = question
        self.facts = facts
        self.rules = rules
        self.now = now
        self.policy = rules.policy
        self.roles = self.policy.roles_of(facts.caller)
        """Of who asks."""
        self.destination = destination_of(question, facts, self.policy)
        """The namespace that the request goes to; `None` where it cannot be told."""
        signing = question is Question.SIGN or question is Question.PUBLIC
        self.peer = None if signing else proven_peer(facts.principal, self.policy)
        """Who brought the request, as mTLS proves it; `None`: nobody that is proven."""
        self.peer_roles = NO_ROLES if self.peer is None else self.policy.roles_of(self.peer)
        self.claims: Claims | None = None
        """What a token says, once it was found good."""
        self.parties = (
            Parties(facts.caller.namespace, facts.caller.service_account, self.destination)
            if signing
            else party(self.peer, self.destination)
        )
        self.row = ""
        """The row that is being tried."""

    @property
    def hop(self) -> Hop | None:
        """The hop that asks, where one does."""
        return self.facts.hop if self.question is Question.TRANSIT else None

    @property
    def port(self) -> int | None:
        """The destination's port: `None` where it is yet to come, 0 where there will be none.

        The activator is asked on the port on which it calls the pod, which it would wake: a
        revision's Service sends HTTP/1.1 to 8012 of either, HTTP/2 to 8013 (knative/serving
        pkg/reconciler/serverlessservice/resources/services.go, targetPort). A gateway does not know
        it, and wakes nobody. Behind a hop by path nobody asks again: what Eventing takes for a
        namespace, it does there in that namespace's own name.
        """
        match self.hop:
            case Hop.GATEWAY:
                return None
            case None | Hop.ACTIVATOR:
                return self.facts.port
            case _:
                return 0

    @property
    def unreadable(self) -> str:
        """What is said of the upstream, if it is no cluster's name; as much as the log needs."""
        upstream = self.facts.upstream
        return "" if upstream is None or is_cluster_name(upstream) else upstream[:_MAX_QUOTED]

    def grant_to(self, source: Namespace, account: str) -> Grant | None:
        """The grant that lets a source in; `account` in its short form."""
        if self.destination is None:
            return None
        return self.policy.granted(source, account, self.destination, self.port, self.now)

    def of_tenant(self, source: Namespace) -> bool:
        """Whether a source is of the destination's tenant."""
        return self.destination is not None and self.policy.same_tenant(source, self.destination)

    def allow(
        self,
        ground: Ground,
        header: HeaderAction | SetToken,
        *,
        grant: Grant | None = None,
        good_until: float = inf,
    ) -> Allow:
        """An allow by the row that is being tried."""
        return Allow(ground, header, self.parties, None, good_until, self.row, grant)

    def let_in(
        self, ground: Ground, *, grant: Grant | None = None, good_until: float = inf
    ) -> Allow:
        """An allow that leaves the token or takes it off, as the question has it."""
        header = left_by(self.question)
        return Allow(ground, header, self.parties, None, good_until, self.row, grant)

    def deny(self, reason: Reason) -> Deny:
        """A denial by the row that is being tried."""
        return Deny(reason, self.parties, self.row)

    def refuse_asker(self, reason: Reason) -> Deny:
        """A denial because of who asks, whatever is asked about."""
        return Deny(reason, party(self.facts.caller), self.row)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a decision table. `case` and `answer` are what the documents print of it."""

    name: str
    case: str
    answer: str
    rule: Callable[[Case], Verdict | None]
    """`None`: this is not the case, and the next row is tried."""
    always: bool = False
    """A denial by this row stands whatever the destination's mode."""
    reusable: bool = False
    """An allow by this row depends on nothing that the asking proxy's key lacks, see `reuse`."""


UNTRUSTED: Final = Row(
    "caller-untrusted",
    "S is of no trust domain that the policy accepts",
    "deny `not-allowed`",
    lambda case: (
        None
        if case.facts.caller.trust_domain in case.policy.trust_domains
        else case.refuse_asker(Reason.CALLER_UNTRUSTED)
    ),
    always=True,
)
FORWARDED: Final = Row(
    "forwarded",
    "with mTLS: a proxy passed the question on",
    "deny `not-allowed`: S is not who asks",
    lambda case: case.refuse_asker(Reason.CHECK_FORWARDED) if case.facts.forwarded else None,
    always=True,
)
ASKERS: Final = (UNTRUSTED, FORWARDED)
"""The first rows of every table: who may ask at all."""


def _to_ourselves(case: Case) -> Verdict | None:
    """Whoever passes others' requests on would put their questions with its own certificate."""
    if case.destination is None or case.destination != case.rules.own:
        return None
    if case.roles:
        return case.deny(Reason.FOR_OURSELVES)
    return case.allow(Ground.FOR_OURSELVES, HeaderAction.REMOVE)


TO_OURSELVES: Final = Row(
    "to-ourselves",
    "D is the service's own namespace",
    "deny `not-allowed`; if S holds no role, header removed",
    _to_ourselves,
    always=True,
)
"""Behind the rows that need D. Without it, hops could be made to ask us."""


def proven_peer(principal: str, policy: Policy) -> SpiffeId | None:
    """The workload at the other end of the connection, as mTLS proved it to the caller."""
    try:
        peer = SpiffeId.parse(principal)
    except InvalidIdentity:
        return None
    return peer if peer.trust_domain in policy.trust_domains else None


def party(workload: SpiffeId | None, destination: Namespace | None = None) -> Parties:
    """What the log may know of whoever asks or brings a request."""
    if workload is None:
        return Parties(destination=destination)
    return Parties(workload.namespace, workload.service_account, destination, peer=workload)


def left_by(question: Question) -> HeaderAction:
    """The app behind `verify` never sees a token; a hop must pass it on; no client brings one."""
    taken = question is Question.VERIFY or question is Question.PUBLIC
    return HeaderAction.REMOVE if taken else HeaderAction.KEEP
