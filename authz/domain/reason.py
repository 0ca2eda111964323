"""Every reason for which the service says no.

A reason has two faces. Its sentence is for the operator. What a caller outside learns is one of
three words, see `Outward`.
"""

import enum
from typing import Self

from authz.errors import AuthzError


class Outward(enum.StrEnum):
    """All that a denied caller is told, besides a request id."""

    TOKEN_MISSING = "token-missing"  # noqa: S105 - a word, not a secret
    TOKEN_INVALID = "token-invalid"  # noqa: S105
    NOT_ALLOWED = "not-allowed"


class Reason(enum.Enum):
    """Why a request was denied. Each reads aloud as "denied, because <sentence>"."""

    sentence: str
    outward: Outward

    def __new__(cls, sentence: str, outward: Outward) -> Self:
        """Make a member of a sentence for the log and a word for the caller."""
        member = object.__new__(cls)
        member._value_ = sentence
        member.sentence = sentence
        member.outward = outward
        return member

    @property
    def slug(self) -> str:
        """The member's name as metrics and logs write it, such as `token-expired`."""
        return self.name.lower().replace("_", "-")

    TOKEN_MISSING = "the request carries no tenant token", Outward.TOKEN_MISSING

    TOKEN_REPEATED = "the request carries more than one tenant token", Outward.TOKEN_INVALID
    TOKEN_MALFORMED = "the token does not have the form of a tenant token", Outward.TOKEN_INVALID
    KEY_UNKNOWN = "the token names a key that the keyring does not hold", Outward.TOKEN_INVALID
    KEY_REVOKED = "the key that signed the token has been revoked", Outward.TOKEN_INVALID
    KEY_RETIRED = "the key that signed the token has been rotated out", Outward.TOKEN_INVALID
    SIGNATURE_WRONG = (
        "the token was not signed with its source namespace's key",
        Outward.TOKEN_INVALID,
    )
    TOKEN_EXPIRED = "the token has expired", Outward.TOKEN_INVALID
    TOKEN_FROM_THE_FUTURE = "the token was issued in the future", Outward.TOKEN_INVALID
    MEANT_FOR_ANOTHER_NAMESPACE = (
        "the token was made for another destination namespace",
        Outward.TOKEN_INVALID,
    )
    PRESENTED_BY_A_STRANGER = (
        "the token is presented by a peer that is neither in its source namespace nor platform",
        Outward.TOKEN_INVALID,
    )

    NO_GRANT = (
        "the source is of another tenant and the destination grants it no access",
        Outward.NOT_ALLOWED,
    )
    NOT_PUBLIC = (
        "the destination, or this Service of it, takes no public traffic",
        Outward.NOT_ALLOWED,
    )
    ROUTE_UNOWNED = (
        "the route from outside names no VirtualService, so its owner is unknown",
        Outward.NOT_ALLOWED,
    )
    ROUTE_FOREIGN = (
        "the route from outside is of a namespace that may not open the destination",
        Outward.NOT_ALLOWED,
    )
    HOST_FOREIGN = (
        "the Host is of a namespace that may not open the destination",
        Outward.NOT_ALLOWED,
    )
    FOR_OURSELVES = (
        "it goes to this service's namespace through a workload that passes others' requests on",
        Outward.NOT_ALLOWED,
    )
    PEER_UNPROVEN = (
        "the peer of the raw TCP connection is not known to be allowed",
        Outward.NOT_ALLOWED,
    )
    DESTINATION_UNKNOWN = (
        "the destination namespace of the request is not known",
        Outward.NOT_ALLOWED,
    )
    UPSTREAM_UNREADABLE = (
        "x-authz-upstream is not a cluster name as istiod writes it",
        Outward.NOT_ALLOWED,
    )
    QUESTION_UNKNOWN = (
        "x-authz-question is missing, repeated or none of the five questions",
        Outward.NOT_ALLOWED,
    )
    CALLER_UNTRUSTED = (
        "the caller of Check has no SPIFFE ID of an accepted trust domain",
        Outward.NOT_ALLOWED,
    )
    CHECK_FORWARDED = (
        "a proxy passed this Check on, so its certificate is not the caller's",
        Outward.NOT_ALLOWED,
    )
    ROLE_REQUIRED = (
        "the caller of Check lacks the role that this question requires",
        Outward.NOT_ALLOWED,
    )
    NO_ROW = "no row of the question's decision table answers", Outward.NOT_ALLOWED
    REQUEST_MALFORMED = "the CheckRequest cannot be read", Outward.NOT_ALLOWED
    INTERNAL_ERROR = "an unexpected error; see the counter and the log", Outward.NOT_ALLOWED


class InvalidToken(AuthzError):
    """A token must not be believed; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.sentence)
        self.reason = reason
