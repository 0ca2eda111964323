"""Frames by kind: section 6 of RFC 9113, without flow control. Many cases are those of h2spec."""

import pytest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
)

from authz.http2 import Cancelled, GrpcStatus
from authz.http2.settings import (
    ENABLE_PUSH,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
)
from tests.http2.wire import (
    ACK,
    BLOCK,
    CHECK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FIELDS,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    LARGE,
    LARGEST,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    SETTINGS,
    Client,
    data,
    frame,
    framed,
    ping,
    requests,
    rst,
    settings,
    window_update,
)

# -- what ends the connection

OPEN = frame(HEADERS, END_HEADERS, 1, BLOCK)
MORE = frame(CONTINUATION, END_HEADERS, 1, b"\x82")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(OPEN + rst(1) + MORE, id="5.1 CONTINUATION of a closed stream"),
        pytest.param(frame(HEADERS, END_HEADERS, 2, BLOCK), id="5.1.1 an even id"),
        pytest.param(frame(HEADERS, END_HEADERS, 0, BLOCK), id="5.1.1 HEADERS on stream 0"),
        pytest.param(frame(HEADERS, END_HEADERS, 3, BLOCK) + OPEN, id="5.1.1 a lower id"),
        pytest.param(data(0, b"abc"), id="6.1 DATA on stream 0"),
        *(
            pytest.param(OPEN + data(1, payload, PADDED), id="6.1 more padding than frame")
            for payload in (b"\x01", b"\x04abc", b"\xffabc")
        ),
        *(
            pytest.param(frame(HEADERS, flags | END_HEADERS, 1, payload), id="6.2 more padding")
            for flags, payload in (
                (PADDED, b"\x01"),
                (PADDED, b"\x03\x82\x82"),
                (PADDED | HAS_PRIORITY, b"\x01" + bytes(5)),
                (PADDED | HAS_PRIORITY, b"\x05" + bytes(5) + b"\x82"),
            )
        ),
        *(
            pytest.param(
                frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, exclusive + b"\0\0\1\0\x82"),
                id="6.2 a stream that depends on itself",
            )
            for exclusive in (b"\0", b"\x80")
        ),
        pytest.param(frame(PRIORITY, 0, 0, bytes(5)), id="6.3 PRIORITY on stream 0"),
        pytest.param(rst(0), id="6.4 RST_STREAM on stream 0"),
        pytest.param(frame(SETTINGS, 0, 1), id="6.5 SETTINGS on a stream"),
        pytest.param(
            OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x82"), id="6.6 PUSH_PROMISE"
        ),
        pytest.param(frame(PING, 0, 1, b"12345678"), id="6.7 PING on a stream"),
        pytest.param(frame(GOAWAY, 0, 1, bytes(8)), id="6.8 GOAWAY on a stream"),
        *(
            pytest.param(before + MORE, id="6.10 CONTINUATION of nothing")
            for before in (
                b"",
                frame(HEADERS, END_HEADERS, 1, b"\x82"),
                frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 1, b""),
                frame(HEADERS, END_HEADERS, 1, b"\x82") + data(1, b"", 0),
            )
        ),
    ],
)
def test_what_ends_the_connection(client: Client, sent: bytes) -> None:
    client.send(sent)
    assert client.failed() == PROTOCOL_ERROR


# -- 6.1 DATA


@pytest.mark.parametrize("sizes", [(3, 5), (5, 3), (1, 7), (8, 0), (0, 8), (4, 4)])
def test_6_1_a_message_over_several_frames(client: Client, sizes: tuple[int, int]) -> None:
    whole = framed(b"abc")
    first = sizes[0]
    client.send(client.headers(1), data(1, whole[:first], 0), data(1, whole[first:]))
    assert [event.message for event in requests(client.events)] == [b"abc"]
    assert client.held == 0
    assert not client.connection._receiver.parts


def test_6_1_data_then_an_empty_end(client: Client) -> None:
    client.send(client.headers(1), data(1, b"", 0), data(1, framed(b"abc"), 0), data(1, b""))
    assert [event.message for event in requests(client.events)] == [b"abc"]
    assert not client.connection._receiver.parts


def test_6_1_padding(client: Client) -> None:
    payload = b"\x03" + framed(b"abc") + b"\0\0\0"
    client.send(client.headers(1), data(1, payload, END_STREAM | PADDED))
    client.send(client.headers(3), data(3, b"\0" + framed(b"d"), END_STREAM | PADDED))
    assert [event.message for event in requests(client.events)] == [b"abc", b"d"]


# -- 6.2 HEADERS


def test_6_2_padding_and_priority(client: Client) -> None:
    block = client.encoder.encode(list(FIELDS))
    priority = b"\x80\0\0\0\x10"
    for stream_id, flags, payload in (
        (1, PADDED, b"\x04" + block + bytes(4)),
        (3, HAS_PRIORITY, priority + block),
        (5, HAS_PRIORITY | PADDED, b"\x02" + priority + block + bytes(2)),
    ):
        client.send(frame(HEADERS, END_HEADERS | flags, stream_id, payload))
        client.send(data(stream_id, framed(b"a")))
    assert [event.head.path for event in requests(client.events)] == [CHECK] * 3


# -- 6.3 PRIORITY


@pytest.mark.parametrize(
    ("payload", "code"),
    [(bytes(4), FRAME_SIZE_ERROR), (bytes(6), FRAME_SIZE_ERROR), (b"\0\0\0\1\0", PROTOCOL_ERROR)],
)
def test_6_3_of_a_wrong_size_or_on_itself(client: Client, payload: bytes, code: int) -> None:
    client.send(client.headers(1), frame(PRIORITY, 0, 1, payload))
    assert client.resets() == {1: code}
    assert client.alive()


@pytest.mark.parametrize(
    ("payload", "code"), [(bytes(4), FRAME_SIZE_ERROR), (b"\0\0\0\1\0", PROTOCOL_ERROR)]
)
def test_6_3_there_is_no_stream_to_reset(client: Client, payload: bytes, code: int) -> None:
    client.send(frame(PRIORITY, 0, 1, payload))
    assert client.failed() == code


@pytest.mark.parametrize("stream_id", [1, 3], ids=["reset", "answered"])
@pytest.mark.parametrize("size", [4, 6])
def test_6_3_no_stream_is_reset_that_is_closed(client: Client, stream_id: int, size: int) -> None:
    client.send(client.headers(1, [("a", "b")]), client.request(3))
    client.respond()
    client.send(frame(PRIORITY, 0, stream_id, bytes(5)))
    assert client.alive()
    client.send(frame(PRIORITY, 0, stream_id, bytes(size)))
    assert client.resets() == {1: PROTOCOL_ERROR}
    assert client.failed() == FRAME_SIZE_ERROR


# -- 6.4 RST_STREAM


def test_6_4_before_all_has_come_nobody_was_asked(client: Client) -> None:
    assert client.send(client.headers(1), data(1, b"abc", 0), rst(1)) == []
    assert client.connection.open_streams == 0
    assert client.held == 0


def test_6_4_after_all_has_come_nobody_waits(client: Client) -> None:
    events = client.send(client.request(1), rst(1))
    assert events[1:] == [Cancelled(1)]
    client.connection.respond(1, b"late")
    assert client.take() == []


def test_6_4_an_answer_that_waits_is_dropped() -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    client.send(client.request(1))
    client.respond(b"answer")
    assert client.connection._sender.unsent == 11
    assert client.send(rst(1)) == []  # it was answered
    assert client.connection._sender.unsent == 0
    assert not client.connection._sender._waiting
    assert client.connection.open_streams == 0


# -- 6.5 SETTINGS


def test_6_5_is_acknowledged(client: Client) -> None:
    client.send(settings(), settings({HEADER_TABLE_SIZE: 0, 0xFFFF: 5}), frame(SETTINGS, ACK))
    assert client.acknowledged() == 2


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        (ENABLE_PUSH, 2, PROTOCOL_ERROR),
        (INITIAL_WINDOW_SIZE, LARGEST + 1, FLOW_CONTROL_ERROR),
        (INITIAL_WINDOW_SIZE, 0xFFFFFFFF, FLOW_CONTROL_ERROR),
        (MAX_FRAME_SIZE, LARGE - 1, PROTOCOL_ERROR),
        (MAX_FRAME_SIZE, 0, PROTOCOL_ERROR),
        (MAX_FRAME_SIZE, 0x1000000, PROTOCOL_ERROR),
    ],
)
def test_6_5_2_values_that_must_not_be(client: Client, name: int, value: int, code: int) -> None:
    client.send(settings([(MAX_HEADER_LIST_SIZE, 1), (name, value)]))
    assert client.failed() == code


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (HEADER_TABLE_SIZE, 0),
        (HEADER_TABLE_SIZE, 0xFFFFFFFF),
        (ENABLE_PUSH, 0),
        (ENABLE_PUSH, 1),
        (MAX_CONCURRENT_STREAMS, 0),
        (INITIAL_WINDOW_SIZE, LARGEST),
        (MAX_FRAME_SIZE, LARGE),
        (MAX_FRAME_SIZE, 0xFFFFFF),
        (MAX_HEADER_LIST_SIZE, 0xFFFFFFFF),
        (0x7777, 0xFFFFFFFF),
    ],
)
def test_6_5_2_values_that_may_be(client: Client, name: int, value: int) -> None:
    client.send(settings({name: value}))
    assert client.alive()


def test_6_5_2_our_blocks_need_no_table(client: Client) -> None:
    client.decoder.max_allowed_table_size = 0
    client.send(settings({HEADER_TABLE_SIZE: 0}), client.request(1))
    client.respond()  # the first block resizes the table: else the witness complains
    assert client.decoder.header_table_size == 0
    client.decoder.max_allowed_table_size = 8192
    client.send(settings([(HEADER_TABLE_SIZE, 8192)]), client.request(3))
    client.respond()
    assert client.answers[3].status == "0"
    assert not client.decoder.header_table.dynamic_entries


def test_6_5_2_we_send_no_frame_above_the_smallest_limit(client: Client) -> None:
    client.send(settings({MAX_FRAME_SIZE: 0xFFFFFF, INITIAL_WINDOW_SIZE: 10**6}))
    client.send(window_update(0, 10**6), client.request(1))
    client.respond(b"x" * 100_000)
    sizes = [len(one.data) for one in client.frames if isinstance(one, DataFrame)]
    assert sizes == [LARGE] * 6 + [100_005 - 6 * LARGE]
    assert client.answers[1].message == b"x" * 100_000


# -- 6.7 PING


def test_6_7_is_answered(client: Client) -> None:
    client.send(ping(b"abcdefgh"))
    (answer,) = client.frames
    assert isinstance(answer, PingFrame)
    assert answer.opaque_data == b"abcdefgh"
    assert "ACK" in answer.flags


def test_6_7_an_answer_is_not_answered(client: Client) -> None:
    client.send(ping(flags=ACK))
    assert client.frames == []


# -- 6.10 CONTINUATION


@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_6_10_a_block_in_pieces(client: Client, pieces: int) -> None:
    block = client.encoder.encode(list(FIELDS))
    size = -(-len(block) // pieces)
    parts = [block[start : start + size] for start in range(0, len(block), size)]
    client.send(frame(HEADERS, 0, 1, parts[0]))
    for part in parts[1:-1]:
        client.send(frame(CONTINUATION, 0, 1, part))
    client.send(frame(CONTINUATION, END_HEADERS, 1, parts[-1]), data(1, framed(b"a")))
    assert requests(client.events)[0].head.path == CHECK


def test_6_10_end_stream_is_said_by_headers(client: Client) -> None:
    block = client.encoder.encode(list(FIELDS))
    client.send(frame(HEADERS, END_STREAM, 1, block), frame(CONTINUATION, END_HEADERS, 1, b""))
    assert client.answers[1].status == "13"  # no message


# -- frames of ours


def test_our_first_block_resizes_the_table() -> None:
    for answer in ("respond", "fail", "send"):
        client = Client()
        client.send(client.request(1))
        if answer == "respond":
            client.connection.respond(1, b"a")
        elif answer == "fail":
            client.connection.fail(1, GrpcStatus.INTERNAL, "a")
        else:
            client.connection.send(1, b"a")
        first = client.take()[0]
        assert isinstance(first, HeadersFrame)
        assert first.data[:2] == b"\x20\x88"
        client.send(client.request(3))
        client.connection.fail(3, GrpcStatus.INTERNAL, "once is enough")
        second = client.take()[0]
        assert isinstance(second, HeadersFrame)
        assert second.data[:1] == b"\x88"


def test_a_goaway_says_why(client: Client) -> None:
    client.send(frame(PING))
    last = client.frames[-1]
    assert isinstance(last, GoAwayFrame)
    assert last.additional_data == b"PING of a wrong size"
    assert str(client.connection.fault) == "PING of a wrong size"
