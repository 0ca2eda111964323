"""Builders and fakes for tests, and the one language in which all tables of calls are written.

A `Case` says who calls whom and what must come of it; whoever can make such calls plays it and says
in an `Outcome` what came.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, Generic, Self, TypeVar

from authz._proto.ext_authz_pb2 import CheckRequest, CheckResponse, HeaderValueOption
from authz.domain import tokens
from authz.domain.decision import Rules
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, RootKey, TokenLife
from authz.domain.policy import Policy
from authz.domain.reason import InvalidToken
from authz.wire import REASON_HEADER, TOKEN_HEADER, virtual_service_name

NOW = 1_800_000_000.0
"""A moment, in seconds since the epoch."""


@dataclass
class ManualClock:
    """A clock that stands still until it is set."""

    now: float = NOW

    def __call__(self) -> float:
        """The present time in seconds."""
        return self.now


def workload(
    namespace: str, service_account: str = "default", trust_domain: str = "cluster.local"
) -> SpiffeId:
    """A workload's SPIFFE ID."""
    return SpiffeId.parse(f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")


def root_key(number: int = 1, *, sign_from: int = 0) -> RootKey:
    """A root key that is the same in every run. Never use one outside tests."""
    return RootKey(f"{number:08x}", bytes([number]) * 32, sign_from)


def rules(policy: Policy | None = None, keyring: Keyring | None = None) -> Rules:
    """Rules with a keyring of one root, and a policy that grants nothing."""
    return Rules(policy or Policy(), keyring or Keyring((root_key(),)), TokenLife())


def check_request(
    *,
    host: str = "",
    path: str = "/",
    principal: str = "",
    port: int = 8080,
    headers: tuple[tuple[str, str], ...] = (),
    request_id: str = "",
    route_of: str = "",
) -> bytes:
    """A serialised CheckRequest as Envoy sends it with `encode_raw_headers`.

    `route_of` is the namespace whose VirtualService has the route.
    """
    request = CheckRequest()
    attributes = request.attributes
    attributes.source.principal = principal
    attributes.destination.address.socket_address.port_value = port
    attributes.request.http.host = host
    attributes.request.http.path = path
    if route_of:
        istio = attributes.route_metadata_context.filter_metadata["istio"]
        istio.fields["config"].string_value = virtual_service_name(route_of, "any")
    for name, value in (*headers, *((("x-request-id", request_id),) if request_id else ())):
        attributes.request.http.header_map.headers.add(key=name, raw_value=value.encode("latin-1"))
    return request.SerializeToString()


# ---- who calls whom, and what must come of it ----

NO_ANSWER: Final = "no answer"
LET_IN: Final = "allowed, token removed"
LEAKED: Final = "WITH A TOKEN"
MALFORMED: Final = "MALFORMED"
NOT_ALLOWED: Final = "403 not-allowed"
MISSING: Final = "403 token-missing"
INVALID: Final = "403 token-invalid"
OUTAGE: Final = "503"

_PERMISSION_DENIED: Final = 7  # google.rpc.Code

C = TypeVar("C")


class Outcome(str):
    """What came of a call, in the words in which tables state what must come of it.

    First, what the caller got: `200 acme-db` is a status and the app that answered,
    `403 not-allowed` a status and our reason, `no answer` neither. A Check that allows has no
    status: `allowed`, or the parties of the token. Then, after commas, what else was seen. Then,
    after a semicolon, the questions that were asked on the way: `403 not-allowed; sign, verify`.
    """

    __slots__ = ()

    @classmethod
    def of(cls, status: int, who: str = "", *more: str, asked: Iterable[str] = ()) -> Self:
        """Put one into words.

        Args:
            status: HTTP's; 0 if there was no answer.
            who: the app that answered, or why there is no 200.
            more: what else was seen.
            asked: the questions.
        """
        came = f"{status} {who}" if status else f"{NO_ANSWER}: {who}" if who else NO_ANSWER
        return cls(came.rstrip()).also(*more, asked=asked)

    def also(self, *more: str, asked: Iterable[str] = ()) -> Self:
        """The same with what else was seen, and the questions."""
        questions = ", ".join(asked)
        return type(self)(", ".join([self, *more]) + (f"; {questions}" if questions else ""))

    @classmethod
    def of_check(cls, answer: CheckResponse) -> Self:
        """What Envoy makes of an answer to a Check."""
        changes, denial = answer.ok_response, answer.denied_response
        if not answer.HasField("status"):
            return cls(f"{MALFORMED}: no status, and Envoy would allow")
        if answer.status.code not in {0, _PERMISSION_DENIED}:
            return cls(f"{MALFORMED}: status {answer.status.code}")
        if answer.status.code:
            words = [_value(it) for it in denial.headers if it.header.key == REASON_HEADER]
            return cls.of(denial.status.code, " ".join(words))
        if answer.HasField("denied_response") or (changes.headers and changes.headers_to_remove):
            return cls(f"{MALFORMED}: it allows and denies, or sets and removes")
        if changes.headers:
            try:
                claims = tokens.parse(token_set(answer)).claims
            except InvalidToken:
                return cls(f"{MALFORMED}: it sets what is no token, or adds it to another")
            return cls(f"token from {claims.source} to {claims.destination}")
        removed = TOKEN_HEADER in changes.headers_to_remove
        return cls(LET_IN if removed else "allowed")

    @property
    def status(self) -> int:
        """HTTP's, 200 also where a Check allows; 0 without an answer."""
        first = self.partition(" ")[0].strip(",;")
        return 200 if first in {"allowed", "token"} else int(first) if first.isdecimal() else 0

    @property
    def leaked(self) -> bool:
        """Whether a token reached an app."""
        return LEAKED in self


def token_set(answer: CheckResponse) -> str:
    """The token that an answer sets, overwriting what was there; empty if there is none."""
    for option in answer.ok_response.headers:
        overwrites = option.append_action == HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        if option.header.key == TOKEN_HEADER and overwrites:
            return _value(option)
    return ""


def _value(option: HeaderValueOption) -> str:
    return option.header.value or option.header.raw_value.decode()


@dataclass(frozen=True)
class Case(Generic[C]):
    """One row of a table: what is done, and what must come of it."""

    name: str
    shows: str
    """In words, for people."""
    expected: str
    """An `Outcome`, word for word."""
    call: C
    """What is done, as the one who plays it takes it."""
    is_pattern: bool = False
    """`expected` has `*`, `?` and `[]`, as patterns of file names do: where a call is not played in
    a world of ours, more than one outcome may be right."""


@dataclass(frozen=True)
class Result(Generic[C]):
    """A case that was played."""

    case: Case[C]
    outcome: Outcome

    @property
    def ok(self) -> bool:
        """Whether it came out as it must."""
        if self.case.is_pattern:
            return fnmatchcase(self.outcome, self.case.expected)
        return self.outcome == self.case.expected


async def played(
    cases: Iterable[Case[C]], play: Callable[[Case[C]], Awaitable[Outcome]]
) -> AsyncIterator[Result[C]]:
    """Play cases, one after the other. One that breaks has the error for its outcome."""
    for case in cases:
        try:
            outcome = await play(case)
        except Exception as error:  # noqa: BLE001 - it is a difference, not the end
            text = " ".join(f"{type(error).__name__}: {error}".split())
            outcome = Outcome(text[:_LONGEST_ERROR])
        yield Result(case, outcome)


_LONGEST_ERROR: Final = 300  # characters
