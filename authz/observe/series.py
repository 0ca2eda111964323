"""Which series there are before anything has happened.

A counter that is born as 1 has not increased for Prometheus, and an alert on its increase is silent
at the first event. So every label set of ours is exported from the start, as 0. The sets are
bounded: nothing that a tenant says is a label here.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from authz.domain.facts import Question
from authz.domain.reason import Outward, Reason
from authz.domain.verdict import Ground

UNKNOWN: Final = "unknown"
"""How a question is written that is missing, repeated or none."""
AGING: Final = ("keyring", "policy")
"""What grows old when nobody sees it."""
RELOADED: Final = ("keyring", "policy", "tls")
"""What is taken anew while the server runs."""
OTHER: Final = "other"
"""In place of what has no series of its own."""

CLOSED: Final = (
    *("accept", "age", "alpn", "client", "drain", "error", "handshake", "handshake_limit", "idle"),
    *("limit", "memory", "namespace_limit", "slow"),
    # the error codes of RFC 9113 by which we end a connection
    *("compression_error", "enhance_your_calm", "flow_control_error", "frame_size_error"),
    "protocol_error",
)
"""Why connections end, see `Http2Listener`."""
LIMITS: Final = (
    *("buffered", "credit", "header_block", "header_fields", "header_list", "message", "rate"),
    *("slow", "streams", "unsent", "watches"),
)
"""Limits that clients meet, see `Http2Listener`."""
ERRORS: Final = (
    *("AssertionError", "AttributeError", "IndexError", "KeyError", "MemoryError", "OSError"),
    *("RecursionError", "RuntimeError", "TypeError", "ValueError"),
    OTHER,
)
"""Kinds of unexpected errors; another one counts as the nearest of these that it is."""

_TOKENS: Final = tuple(it for it in Reason if it.outward is not Outward.NOT_ALLOWED)
_ENTRY: Final = (*_TOKENS, Reason.NO_GRANT, Reason.NOT_PUBLIC)
_DOUBT: Final = (Reason.REQUEST_MALFORMED, Reason.INTERNAL_ERROR)
_ROUTES: Final = (
    *(Reason.NOT_PUBLIC, Reason.ROUTE_UNOWNED, Reason.ROUTE_FOREIGN, Reason.HOST_FOREIGN),
)
_ASKERS: Final = (Reason.CALLER_UNTRUSTED, Reason.CHECK_FORWARDED, Reason.NO_ROW, *_DOUBT)

_DENIED: Final[Mapping[Question, tuple[Reason, ...]]] = {
    Question.SIGN: (Reason.FOR_OURSELVES,),
    Question.PUBLIC: (*_ROUTES, Reason.ROLE_REQUIRED, Reason.FOR_OURSELVES),
    Question.VERIFY: _ENTRY,
    Question.TRANSIT: (
        *_ENTRY,
        *(Reason.ROLE_REQUIRED, Reason.DESTINATION_UNKNOWN, Reason.UPSTREAM_UNREADABLE),
        Reason.FOR_OURSELVES,
    ),
    Question.TCP: (Reason.PEER_UNPROVEN,),
}
_SHADOWED: Final[Mapping[Question, tuple[Reason, ...]]] = {
    Question.PUBLIC: _ROUTES,
    Question.VERIFY: (*_ENTRY, *_DOUBT),
    Question.TRANSIT: _ENTRY,
    Question.TCP: (Reason.PEER_UNPROVEN, *_DOUBT),
}
_SENT: Final = (Ground.SIGNED, Ground.LEFT_THE_MESH, Ground.UPSTREAM_UNREADABLE)
_LET_IN: Final = (
    *(Ground.EXEMPT, Ground.SAME_TENANT, Ground.GRANTED, Ground.FROM_OUTSIDE),
    Ground.NOT_ENFORCED,
)
_ALLOWED: Final[Mapping[Question, tuple[Ground, ...]]] = {
    Question.SIGN: (*_SENT, Ground.PASSED_ON, Ground.FOR_OURSELVES),
    Question.PUBLIC: (*_SENT, Ground.NOT_ENFORCED),
    Question.VERIFY: (*_LET_IN, Ground.PROVEN_PEER),
    Question.TRANSIT: _LET_IN,
    Question.TCP: (Ground.EXEMPT, Ground.PROVEN_PEER, Ground.NOT_ENFORCED),
}


def checks() -> Iterator[tuple[str, str, str]]:
    """Question, outcome and reason of every answer that the decision tables can give."""
    for question in Question:
        for denied in (*_ASKERS, *_DENIED[question]):
            yield question.value, "deny", denied.slug
        for shadowed in _SHADOWED.get(question, ()):
            yield question.value, "shadow", shadowed.slug
        for ground in _ALLOWED[question]:
            yield question.value, "allow", ground.slug
    for denied in (Reason.QUESTION_UNKNOWN, Reason.CALLER_UNTRUSTED, *_DOUBT):
        yield UNKNOWN, "deny", denied.slug


def kind_of(error: Exception) -> str:
    """The kind that an error counts as."""
    return next((it.__name__ for it in type(error).__mro__ if it.__name__ in ERRORS), OTHER)
