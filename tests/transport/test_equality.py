"""One service behind both transports, asked the same: the answers and statuses are the same."""

import asyncio
import re
from collections.abc import Iterator, Sequence

import pytest
import uvloop
from grpc import aio
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from authz.domain.decision import Rules
from authz.domain.identity import SpiffeId
from authz.transport import Health, Http2Listener, from_insecure_metadata
from authz.transport.reference import GrpcioListener
from tests.any_request import PEOPLE, POLICIES, boundary, metadatas, requests
from tests.support.clients import AUTHORIZATION, HEALTH
from tests.support.waiting import PATIENCE
from tests.transport.support import INSECURE, LIMITS

Pairs = Sequence[tuple[str, str]]

_key = re.compile(r"[0-9a-z_.-]+")
_value = re.compile(r"([!-~]([ -~]*[!-~])?)?")
METHODS = [
    *[f"/{AUTHORIZATION}/Check"] * 8,
    f"/{AUTHORIZATION}/check",
    f"/{HEALTH}/Check",
    "/a/b",
]


def sendable(metadata: Pairs) -> list[tuple[str, str]]:
    """What a client may send (RFC 9113 section 8.2.1, and gRPC's own rules)."""
    return [
        (key, value)
        for key, value in metadata
        if _key.fullmatch(key)
        and _value.fullmatch(value)
        and not key.startswith("grpc-")
        and not key.endswith("-bin")
    ]


class Both:
    """Both transports around one service."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._service = boundary(None)
        self._runner.run(self._start())

    async def _start(self) -> None:
        health = Health()
        self._listeners = [
            kind(
                self._service,
                health,
                host="127.0.0.1",
                port=0,
                limits=LIMITS,
                caller_of=from_insecure_metadata(),
            )
            for kind in (Http2Listener, GrpcioListener)
        ]
        ports = [await listener.start() for listener in self._listeners]
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channels = [aio.insecure_channel(f"127.0.0.1:{port}", options) for port in ports]

    def ask(self, by: Rules | None, method: str, request: bytes, metadata: Pairs) -> list[object]:
        """What either answers: bytes, or a status and its text."""
        self._service.rules = by
        return self._runner.run(self._ask(method, request, tuple(metadata)))

    async def _ask(
        self, method: str, request: bytes, metadata: tuple[tuple[str, str], ...]
    ) -> list[object]:
        return [
            await _answer(channel.unary_unary(method), request, metadata)
            for channel in self._channels
        ]

    def close(self) -> None:
        self._runner.run(self._stop())
        self._runner.close()

    async def _stop(self) -> None:
        for channel in self._channels:
            await channel.close()
        for listener in self._listeners:
            await listener.stop(0)


async def _answer(
    call: aio.UnaryUnaryMultiCallable[bytes, bytes],
    request: bytes,
    metadata: tuple[tuple[str, str], ...],
) -> object:
    try:
        return await call(request, metadata=metadata, timeout=PATIENCE)
    except aio.AioRpcError as error:
        return error.code()


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    made = Both()
    yield made
    made.close()


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    by=st.sampled_from([*POLICIES, None]),
    method=st.sampled_from(METHODS),
    request=requests() | st.binary(max_size=200) | st.sampled_from([bytes(4096), bytes(4097)]),
    callers=st.lists(st.sampled_from([*PEOPLE, "nobody"]), min_size=1, max_size=1)
    | st.lists(st.sampled_from(PEOPLE), max_size=2),
    metadata=metadatas.map(sendable),
)
def test_both_transports_answer_the_same(  # noqa: PLR0917 - hypothesis names them
    both: Both,
    by: Rules | None,
    method: str,
    request: bytes,
    callers: list[SpiffeId | str],
    metadata: Pairs,
) -> None:
    who = [(INSECURE, str(caller)) for caller in callers]
    # grpcio looks at the method first, we at the size. Either way nobody was asked.
    assume(len(request) <= LIMITS.message_bytes or method == METHODS[0])
    ours, theirs = both.ask(by, method, request, [*who, *metadata])
    assert ours == theirs
