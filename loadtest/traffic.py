"""Calls: a request as Envoy sends it, and what answer is right.

Calls are made before the run. Of a request only its id is new each time, as Envoy's requests have
one, so that no two messages are the same bytes. Tokens are made with the keys of the store that
the server uses; the answers' tokens are verified with them.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

from authz._proto.ext_authz_pb2 import CheckRequest
from authz.config import IdentitySource
from authz.domain import tokens
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring
from authz.domain.names import Namespace
from authz.testing import LET_IN, NOT_ALLOWED
from authz.wire import INSECURE_CALLER, QUESTION, TOKEN_HEADER, UPSTREAM, cluster_name
from loadtest import tenants
from loadtest.expected import LIFE, PREFIX, Expected, Keys, Signed
from loadtest.headers import Field, Fields, Head
from loadtest.plan import Ask, Plan

_DATA_START: Final = Struct(">BHBB")

_ID_START: Final = f"{secrets.token_hex(4)}-7631-45e2-8845-"
ID_HOLE: Final = b"0" * 12
"""Where in a message the id of a request goes, which is as long."""

_KINDS: Final = {
    Ask.BOTH: [Ask.SIGN, Ask.VERIFY],
    Ask.MIXED: [Ask.SIGN, Ask.VERIFY, Ask.MIXED],  # the last stands for a stranger
}
_ids: Final = itertools.count()
_TRACES: Final = 20_000  # made once; far more than a header table holds

# As the filters set it, but for graver overload than a request would wait for.
_TIMEOUT_SECONDS: Final = 20


class Call:
    """A request that is sent again and again."""

    __slots__ = ("_after", "_before", "_head", "data_start", "expected", "size")

    def __init__(self, head: Head, message: bytes, expected: Expected) -> None:
        self._head = head
        self.expected = expected
        self.size = len(message) + PREFIX.size
        """Of the framed message."""
        self.data_start = _DATA_START.pack(0, self.size, 0, 0x1)  # DATA with END_STREAM
        before, hole, after = message.partition(ID_HOLE)
        if not hole:
            raise ValueError("the message has no room for a request id")
        self._before = PREFIX.pack(0, len(message)) + before
        self._after = after

    def head(self) -> Head:
        """Its header fields, this time."""
        return self._head

    def message(self) -> tuple[bytes, bytes, bytes]:
        """Its framed message, this time."""
        return self._before, b"%012d" % next(_ids), self._after


class TracedCall(Call):
    """One whose head has a traceparent."""

    __slots__ = ("_traces", "_where")

    def __init__(self, call: Call, traces: Iterator[Field], where: int) -> None:
        for name in Call.__slots__:
            setattr(self, name, getattr(call, name))
        self._traces = traces
        self._where = where

    def head(self) -> Head:
        """See `Call.head`."""
        head, where = self._head, self._where
        return (*head[:where], next(self._traces), *head[where:])


class Traffic:
    """Makes the calls of a plan. `clock` is in seconds since the epoch, for `renew` see `Keys`."""

    def __init__(
        self,
        plan: Plan,
        keyring: Keyring,
        clock: Callable[[], float],
        renew: Callable[[], Keyring] | None = None,
    ) -> None:
        self._plan = plan
        self._keys = Keys(keyring, renew)
        self._clock = clock
        self._fields = Fields()
        self._let_in, self._denied = Expected(LET_IN), Expected(NOT_ALLOWED)
        self._made: dict[int, list[Call]] = {}
        self._salt = secrets.token_hex(4)
        self._traces = itertools.cycle(_traces() if plan.traceparent else ())

    def warm(self, connection: int) -> list[Call]:
        """What a connection asks, in turn."""
        callers = self._plan.callers_of(connection)
        made = [self._made.get(n) or self._made.setdefault(n, self._of(n)) for n in callers]
        return [call for calls in zip(*made, strict=True) for call in calls]

    def unseen(self, connections: range, count: int) -> list[list[Call]]:
        """Calls that no server has seen, for each of these connections."""
        each = -(-count // len(connections))
        return [[*itertools.islice(self._new(n), each)] for n in connections]

    def forbidden(self, connection: int) -> Call:
        """A call with a stranger's token, which must be denied: else nothing is decided here."""
        caller = self._plan.callers_of(connection)[0]
        return self._verify(caller, tenants.stranger(caller), "web", self._denied)

    def _of(self, caller: int) -> list[Call]:
        asked: list[list[Call]] = []
        if self._plan.ask is not Ask.VERIFY:
            asked.append(
                [
                    self._sign(caller, tenants.namespace(caller + 1 + n))
                    for n in range(self._plan.destinations)
                ]
            )
        if self._plan.ask is not Ask.SIGN:
            verify = self._verify(caller, tenants.sibling(caller), "web", self._let_in)
            asked.append([verify] * (len(asked[0]) if asked else 1))
        if self._plan.ask is Ask.MIXED:
            stranger = self._verify(caller, tenants.stranger(caller), "web", self._denied)
            asked.append([stranger] * len(asked[0]))
        return [call for calls in zip(*asked, strict=True) for call in calls]

    def _new(self, connection: int) -> Iterator[Call]:
        kinds = _KINDS.get(self._plan.ask, [self._plan.ask])
        turns = itertools.cycle(itertools.product(self._plan.callers_of(connection), kinds))
        for number, (caller, kind) in enumerate(turns):
            name = f"new-{self._salt}-{connection}-{number}"
            if kind is Ask.SIGN:
                yield self._sign(caller, Namespace(name))
            elif kind is Ask.MIXED:
                yield self._verify(caller, tenants.stranger(caller), name, self._denied)
            else:
                yield self._verify(caller, tenants.sibling(caller), name, self._let_in)

    def _sign(self, caller: int, destination: Namespace) -> Call:
        source = tenants.namespace(caller)
        host = f"web.{destination}.svc.cluster.local"
        metadata = {
            QUESTION: "sign",
            UPSTREAM: cluster_name(host, 80),
        }
        expected = Signed(source, destination, self._keys, self._clock)
        return self._call(source, metadata, _request(host), expected)

    def _verify(self, caller: int, source: Namespace, account: str, expected: Expected) -> Call:
        destination = tenants.namespace(caller)
        token = tokens.mint(
            source=source,
            service_account=account,
            destination=destination,
            keyring=self._keys.current,
            now=self._clock(),
            life=LIFE,
        )
        # By the shared hop, behind which only the token tells where a request comes from.
        request = _request(
            f"web.{destination}.svc.cluster.local", token=token, principal=tenants.ACTIVATOR
        )
        return self._call(destination, {QUESTION: "verify"}, request, expected)

    def _call(
        self, caller: Namespace, metadata: dict[str, str], message: bytes, expected: Expected
    ) -> Call:
        """In the order in which Envoy sends these fields."""
        who = tenants.workload(caller)
        match self._plan.identity:
            case IdentitySource.XFCC:
                metadata = {**metadata, "x-forwarded-client-cert": _xfcc(who)}
            case IdentitySource.INSECURE_METADATA:
                metadata = {**metadata, INSECURE_CALLER: str(who)}
            case IdentitySource.MTLS:
                pass
        before = {
            ":method": "POST",
            ":path": "/envoy.service.auth.v3.Authorization/Check",
            ":authority": "authz.authz-system.svc.cluster.local",
            ":scheme": "http",
            "te": "trailers",
            "grpc-timeout": f"{_TIMEOUT_SECONDS * 1000}m",
            "content-type": "application/grpc",
            **metadata,
        }
        after = {
            "x-envoy-internal": "true",
            "x-forwarded-for": "192.0.2.2",
            "x-envoy-expected-rq-timeout-ms": f"{_TIMEOUT_SECONDS * 1000}",
        }
        call = Call(self._fields.head({**before, **after}), message, expected)
        return TracedCall(call, self._traces, len(before)) if self._plan.traceparent else call


def _request(host: str, *, token: str | None = None, principal: SpiffeId | None = None) -> bytes:
    """A CheckRequest with what Envoy sends, and the headers that the filters let it send."""
    request = CheckRequest()
    attributes = request.attributes
    for peer, port in ((attributes.source, 41_234), (attributes.destination, 8080)):
        peer.address.socket_address.address = "192.0.2.10"
        peer.address.socket_address.port_value = port
    attributes.source.principal = "" if principal is None else str(principal)
    attributes.request.time.seconds = 1_800_000_000
    attributes.request.time.nanos = 123_456_789
    http = attributes.request.http
    http.id = "4206376521558387921"
    http.method, http.path, http.host = "GET", "/cart/items?page=2", host
    http.scheme, http.protocol = "http", "HTTP/1.1"
    headers = {"x-request-id": _ID_START + ID_HOLE.decode()}
    if token is not None:
        headers |= {TOKEN_HEADER: token, "user-agent": "curl/8.5.0"}
    for key, value in headers.items():
        http.header_map.headers.add(key=key, raw_value=value.encode())
    attributes.metadata_context.SetInParent()
    attributes.route_metadata_context.SetInParent()
    return request.SerializeToString()


def _xfcc(who: SpiffeId) -> str:
    return f'By={tenants.AUTHZ};Hash={"5f3a" * 16};Subject="";URI={who}'


def _traces() -> list[Field]:
    return [
        Field(
            b"traceparent",
            f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01".encode(),
        )
        for _ in range(_TRACES)
    ]
