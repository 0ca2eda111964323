"""What is answered: an `Allow` or a `Deny`, and what the log may know about it."""

import enum
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, TypeAlias

from authz.domain.identity import SpiffeId
from authz.domain.keys import KeyId
from authz.domain.names import Namespace
from authz.domain.policy import Grant
from authz.domain.reason import Reason


class Ground(enum.Enum):
    """Why a request was allowed. Each reads aloud as "allowed, because <sentence>"."""

    SIGNED = "it was given a token for its destination"
    PASSED_ON = "it carries its origin's token past a platform hop"
    LEFT_THE_MESH = "it goes to no namespace, and no token goes with it"
    UPSTREAM_UNREADABLE = "its upstream is no cluster name of istiod's, and no token goes with it"
    FOR_OURSELVES = "it goes to this service's own namespace, and no token goes with it"
    EXEMPT = "policy exempts it"
    PROVEN_PEER = "mTLS proves that it comes straight from an allowed namespace"
    SAME_TENANT = "its source is of the destination's tenant"
    GRANTED = "the destination grants its source access"
    FROM_OUTSIDE = "it came in through the public gateway, and the destination is public"
    NOT_ENFORCED = "the destination's mode lets everything in"

    @property
    def slug(self) -> str:
        """The member's name as metrics and logs write it, such as `same-tenant`."""
        return self.name.lower().replace("_", "-")


class HeaderAction(enum.Enum):
    """What becomes of the token header, where it is not set."""

    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class SetToken:
    """Put this token on the request, in place of whatever the client sent."""

    token: str = field(repr=False)


class Parties(NamedTuple):
    """Who is concerned, as far as it is known: for the log, not for deciding."""

    source: Namespace | None = None
    service_account: str = ""
    destination: Namespace | None = None
    key: KeyId | None = None
    peer: SpiffeId | None = None
    """Who brought the request, as mTLS proved it: not always the source of the token with it."""
    claimed_source: Namespace | None = None
    """What a token says that was not found good: anybody can write that."""
    upstream: str = ""
    """What the asking proxy says that Envoy chose, where it is no cluster name of istiod's; cut."""
    route_of: Namespace | None = None
    """Whose route led a request from outside to where it may not go."""


class Reuse(NamedTuple):
    """For how many seconds proxies may at most give answers again by themselves; 0: they ask."""

    sign: int = 0
    """Answers to `sign`."""
    entry: int = 0
    """Answers to `verify`, and to `transit` at the activator."""


class Allow(NamedTuple):
    """Let it pass. One answer keeps, removes or sets the token header, never two of them."""

    ground: Ground
    header: HeaderAction | SetToken
    parties: Parties
    would_deny: Reason | None = None
    """In shadow mode: why it would have been denied."""
    good_until: float = inf
    """By the same rules, the same facts get the same answer until then (seconds since the epoch).
    When the rules themselves change is another question, see `Rules.next_change`."""
    row: str = ""
    """The row of the decision table that let it pass; in shadow mode, the one that would deny."""
    grant: Grant | None = None
    """The grant that let it pass, where one did."""
    reuse: int = 0
    """For how many seconds the proxy that asked may give it again by itself, see `reuse`."""
    epoch: int = 0
    """Of an answer that may be kept: `Keyring.revocations`. A proxy forgets those with another."""


class Deny(NamedTuple):
    """Refuse it."""

    reason: Reason
    parties: Parties
    row: str = ""
    """The row of the decision table that refuses it; empty: none, so that it is refused."""


Verdict: TypeAlias = Allow | Deny
