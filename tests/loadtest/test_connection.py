"""The client's connection: what it takes for an answer, and what for a problem."""

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest

from authz import testing
from authz.domain.verdict import Allow, Ground, HeaderAction, Parties
from authz.extauthz.response import answer
from authz.wire import TOKEN_HEADER
from loadtest.expected import Expected
from loadtest.grpc_connection import Connection
from loadtest.headers import Fields
from loadtest.traffic import ID_HOLE, Call

HEAD = b"\x88\x00\x0ccontent-type\x10application/grpc"
OK = b"\x00\x0bgrpc-status\x010"
LET_IN = answer(
    Allow(Ground.SAME_TENANT, HeaderAction.REMOVE, Parties()),
    token_header=TOKEN_HEADER,
    request_id="",
)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    header = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return header + payload


def framed(message: bytes | None = LET_IN) -> bytes:
    assert message is not None
    return b"\0" + len(message).to_bytes(4, "big") + message


def whole(stream: int, data: bytes | None = None, *, head: bytes = HEAD, end: bytes = OK) -> bytes:
    content = framed() if data is None else data
    return frame(1, 4, stream, head) + frame(0, 0, stream, content) + frame(1, 5, stream, end)


class Asking:
    """A connection without a socket, with calls under way."""

    def __init__(self, calls: int, in_flight: int = 10) -> None:
        self.ended = 0
        self.connection = Connection(in_flight, self._on_room)
        self.transport = Mock(spec=asyncio.Transport)
        self.connection.connection_made(self.transport)
        self.connection.data_received(frame(4, 0, 0))
        head = Fields().head({":method": "POST"})
        for _ in range(calls):
            self.connection.call(Call(head, b"message" + ID_HOLE, Expected(testing.LET_IN)), 0)
        self.connection.flush()

    def _on_room(self, connection: Connection, ended: int) -> None:
        assert connection is self.connection
        self.ended += ended

    @property
    def sent(self) -> bytes:
        written: list[Any] = [call.args[0] for call in self.transport.write.call_args_list]
        return b"".join(written)


async def test_an_answer_is_right_however_its_bytes_are_cut() -> None:
    for size in (1, 2, 7, 1000):
        asking = Asking(2)
        data = whole(1) + whole(3)
        for start in range(0, len(data), size):
            asking.connection.data_received(data[start : start + size])
        assert (asking.connection.tally.right, asking.ended) == (2, 2)
        assert not asking.connection.tally.problems
        assert not asking.connection.busy


async def test_an_answer_may_come_in_several_frames() -> None:
    asking = Asking(1)
    half = len(framed()) // 2
    asking.connection.data_received(
        frame(1, 4, 1, HEAD)
        + frame(0, 0, 1, framed()[:half])
        + frame(0, 0, 1, framed()[half:])
        + frame(1, 5, 1, OK)
    )
    assert asking.connection.tally.right == 1


@pytest.mark.parametrize(
    ("bytes_", "problem"),
    [
        (
            whole(1, framed(b"")),
            "MALFORMED: no status, and Envoy would allow",
        ),
        (whole(1, b""), "no message"),
        (whole(1, b"\1" + framed()[1:]), "not one plain message"),
        (whole(1, framed() * 2), "not one plain message"),
        (whole(1, framed(b"\xff")), "not a CheckResponse"),
        (whole(1, end=b"\x00\x0bgrpc-status\x0214"), "gRPC status 14 missing"),
        (frame(1, 5, 1, HEAD + b"\x00\x0bgrpc-status\x017"), "gRPC status 7 missing"),
        (whole(1, head=b"\x8d"), "HTTP status 404"),
        (whole(1, end=b""), "gRPC status missing missing"),
        (frame(1, 4, 1, HEAD) + frame(0, 1, 1, framed()), "an answer without trailers"),
        (frame(3, 0, 1, bytes(4)), "reset with code 00000000"),
        (frame(7, 0, 0, bytes(7) + b"\x0bcalm"), "GOAWAY with code 0000000b calm"),
        (frame(1, 4, 1, b"\xff\xff\xff"), "a header block cannot be decoded"),
    ],
)
async def test_anything_else_is_a_problem(bytes_: bytes, problem: str) -> None:
    asking = Asking(1)
    asking.connection.data_received(bytes_)
    tally = asking.connection.tally
    assert tally.right == 0
    assert asking.ended == 1
    assert [text for text in tally.problems if text.startswith(problem)]


async def test_a_connection_that_ends_ends_its_calls() -> None:
    asking = Asking(7, in_flight=5)
    asking.connection.connection_lost(None)
    assert asking.connection.tally.problems == {"the connection is gone": 7}
    assert not asking.connection.busy


async def test_calls_beyond_what_may_be_in_flight_wait() -> None:
    asking = Asking(3, in_flight=2)
    assert frame(1, 4, 3)[3:] in asking.sent  # streams 1 and 3 have begun
    assert frame(1, 4, 5)[3:] not in asking.sent
    asking.connection.data_received(whole(1))
    assert frame(1, 4, 5)[3:] in asking.sent


async def test_the_servers_window_is_respected() -> None:
    asking = Asking(10_000, in_flight=10_000)
    before = asking.sent.count(b"message")
    assert before * 24 <= 0xFFFF < (before + 1) * 24  # a message and its framing
    asking.connection.data_received(frame(8, 0, 0, (48).to_bytes(4, "big")))
    assert asking.sent.count(b"message") == before + 2


async def test_settings_and_pings_are_acknowledged() -> None:
    asking = Asking(0)
    assert frame(4, 1, 0) in asking.sent
    asking.connection.data_received(frame(6, 0, 0, b"12345678"))
    assert asking.sent.endswith(frame(6, 1, 0, b"12345678"))
    assert asking.connection.ready.done()
