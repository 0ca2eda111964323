"""The server's side of a connection, by section of RFC 9113. Many cases are those of h2spec."""

import pytest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from authz.http2 import Cancelled, GrpcStatus, Limits, Request
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
    CANCEL,
    CHECK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FIELDS,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    INTERNAL_ERROR,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Peer,
    data,
    frame,
    framed,
    goaway,
    ping,
    rst,
    settings,
    window_update,
)

LARGEST = 0x7FFFFFFF
LARGE = 0x4000  # bytes in the largest frame


def requests(events: list[object]) -> list[Request[None]]:
    assert all(isinstance(event, Request) for event in events)
    return [event for event in events if isinstance(event, Request)]


@pytest.fixture
def peer() -> Peer:
    return Peer()


# -- a call


def test_a_call_is_answered(peer: Peer) -> None:
    (event,) = requests([*peer.send(peer.request(1, b"question"))])
    assert (event.stream_id, event.message, event.head.path) == (1, b"question", CHECK)
    assert event.head.metadata == (("te", "trailers"), ("content-type", "application/grpc"))
    peer.respond(b"answer")
    answer = peer.answers[1]
    assert answer.blocks == [
        [(":status", "200"), ("content-type", "application/grpc")],
        [("grpc-status", "0")],
    ]
    assert answer.message == b"answer"
    assert answer.ended
    assert peer.connection.open_streams == 0


def test_a_call_is_answered_with_a_status_alone(peer: Peer) -> None:
    peer.send(peer.request(1))
    peer.connection.fail(1, GrpcStatus.UNIMPLEMENTED, "no such method: 100 %\n")
    peer.take()
    assert peer.answers[1].blocks == [
        [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", "identity"),
            ("grpc-status", "12"),
            ("grpc-message", "no such method: 100 %25%0A"),
        ]
    ]
    assert peer.answers[1].ended


def test_several_messages_and_a_status(peer: Peer) -> None:
    peer.send(peer.request(1))
    for message in (b"one", b"", b"three"):
        peer.connection.send(1, message)
        peer.take()
    assert not peer.answers[1].ended
    peer.connection.finish(1, GrpcStatus.UNAVAILABLE, "bye")
    peer.take()
    answer = peer.answers[1]
    assert answer.data == framed(b"one") + framed(b"") + framed(b"three")
    assert answer.blocks[1] == [("grpc-status", "14"), ("grpc-message", "bye")]


def test_no_messages_and_a_status(peer: Peer) -> None:
    peer.send(peer.request(1))
    peer.connection.finish(1)
    peer.take()
    assert len(peer.answers[1].blocks) == 1
    assert peer.answers[1].status == "0"


def test_an_answer_under_way_that_fails_is_not_begun_again(peer: Peer) -> None:
    peer.send(peer.request(1))
    peer.connection.send(1, b"one")
    peer.connection.fail(1, GrpcStatus.INTERNAL, "")
    peer.take()
    assert peer.answers[1].blocks[1:] == [[("grpc-status", "13")]]


def test_nothing_is_answered_twice(peer: Peer) -> None:
    peer.send(peer.request(1), peer.headers(3), window_update(0, 1))
    for stream_id in (1, 3, 5):  # answered, not all there, never asked
        for _ in range(2):
            peer.connection.respond(stream_id, b"a")
            peer.connection.send(stream_id, b"a")
            peer.connection.finish(stream_id)
            peer.connection.fail(stream_id, GrpcStatus.INTERNAL, "")
    peer.take()  # which checks that nothing follows END_STREAM
    assert peer.answers.keys() == {1}
    assert peer.answers[1].message == b"a"


def test_events_come_in_portions(peer: Peer) -> None:
    peer.connection.feed(b"".join(peer.request(2 * n + 1) for n in range(5)), 0)
    assert [len(peer.connection.events(2)) for _ in range(4)] == [2, 2, 1, 0]
    assert not peer.connection.has_more


def test_there_is_more_only_where_a_portion_ended(peer: Peer) -> None:
    peer.connection.feed(peer.request(1) + peer.request(3)[:-1], 0)
    assert len(peer.connection.events(1)) == 1
    assert peer.connection.has_more
    assert peer.connection.events(1) == []
    assert not peer.connection.has_more


def test_more_may_be_fed_before_all_is_taken(peer: Peer) -> None:
    sent = b"".join(peer.request(2 * n + 1, b"%d" % n) for n in range(20))
    found = []
    for start in range(0, len(sent), 50):
        peer.connection.feed(sent[start : start + 50], 0)
        found += peer.connection.events(1)
    while peer.connection.has_more:
        found += peer.connection.events(1)
    assert [one.message for one in requests([*found])] == [b"%d" % n for n in range(20)]


# -- 3.4 the preface


def test_3_4_ours_is_settings() -> None:
    peer = Peer(Limits(streams=7, header_list=5000, message=100_000), opened=False)
    first, second = peer.take()
    assert isinstance(first, SettingsFrame)
    assert first.settings == {
        MAX_CONCURRENT_STREAMS: 7,
        INITIAL_WINDOW_SIZE: 100_000 + 5 + LARGE,
        MAX_HEADER_LIST_SIZE: 5000,
    }
    assert isinstance(second, WindowUpdateFrame)
    assert second.window_increment == 1_048_576 - 65_535


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r ",
        b"PRI * HTTP/1.1\r\n",
        settings(),
        PREFACE + ping(),
        PREFACE + frame(SETTINGS, ACK),
        PREFACE + window_update(0, 1),
        PREFACE + PREFACE,
        PREFACE + frame(HEADERS, END_HEADERS, 1, b"\x82"),
    ],
)
def test_3_4_a_client_begins_with_its_preface(sent: bytes) -> None:
    peer = Peer(opened=False)
    peer.send(sent)
    assert peer.failed() == PROTOCOL_ERROR


def test_3_4_the_preface_may_come_in_pieces() -> None:
    for cut in range(len(PREFACE + settings())):
        peer = Peer(opened=False)
        sent = PREFACE + settings()
        peer.send(sent[:cut])
        assert peer.acknowledged() == 0
        peer.send(sent[cut:], peer.request(1))
        assert peer.acknowledged() == 1
        assert len(peer.events) == 1


# -- 4.1 frames


@pytest.mark.parametrize("kind", [10, 0x10, 0xFF])
def test_4_1_unknown_types_are_ignored(peer: Peer, kind: int) -> None:
    peer.send(frame(kind, 0xFF, 0, b"?" * 8), frame(kind, 0, 7, b""), ping())
    assert peer.alive()


def test_4_1_unknown_flags_are_ignored(peer: Peer) -> None:
    peer.send(frame(PING, 0x16, 0, b"12345678"))
    assert isinstance(peer.frames[-1], PingFrame)
    assert peer.alive()


def test_4_1_the_reserved_bit_is_ignored(peer: Peer) -> None:
    peer.send(frame(PING, 0, 0x80000000, b"12345678"))
    sent = peer.headers(0x80000001) + data(0x80000001, framed(b"a"))
    assert len(peer.send(sent)) == 1
    assert peer.events[0].stream_id == 1


# -- 4.2 frame sizes


def test_4_2_frames_of_16_kib_are_taken(peer: Peer) -> None:
    payload = framed(b"x" * (LARGE - 5))
    peer.send(peer.headers(1), data(1, payload), frame(0xFF, 0, 0, b"x" * LARGE))
    assert len(peer.events) == 1
    assert peer.alive()


@pytest.mark.parametrize("kind", [DATA, HEADERS, PING, SETTINGS, CONTINUATION, 0xFF])
@pytest.mark.parametrize("size", [LARGE + 1, 0xFFFFFF])
def test_4_2_larger_frames_are_a_fault_at_once(peer: Peer, kind: int, size: int) -> None:
    peer.send(peer.headers(1), size.to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0, 1)))
    assert peer.failed() == FRAME_SIZE_ERROR


@pytest.mark.parametrize(
    "sent",
    [
        frame(RST_STREAM, 0, 1, b"123"),
        frame(RST_STREAM, 0, 1, b"12345"),
        frame(SETTINGS, 0, 0, b"123"),
        frame(SETTINGS, ACK, 0, b"123456"),
        frame(PING, 0, 0, b"1234567"),
        frame(PING, 0, 0, b"123456789"),
        frame(GOAWAY, 0, 0, b"1234567"),
        frame(WINDOW_UPDATE, 0, 0, b"123"),
        frame(WINDOW_UPDATE, 0, 1, b"12345"),
        frame(HEADERS, END_HEADERS | HAS_PRIORITY, 3, b"1234"),
        frame(HEADERS, END_HEADERS | HAS_PRIORITY | PADDED, 3, b"\x0012345"[:5]),
        frame(HEADERS, END_HEADERS | PADDED, 3, b""),
        frame(DATA, PADDED, 1, b""),
    ],
)
def test_4_2_frames_with_too_little_or_too_much(peer: Peer, sent: bytes) -> None:
    peer.send(peer.headers(1), sent)
    assert peer.failed() == FRAME_SIZE_ERROR


# -- 4.3 header blocks


@pytest.mark.parametrize("block", [b"\x80", b"\xff", b"\x40", b"\x82\x20", b"\x3f\xe2\x1f"])
def test_4_3_a_block_that_cannot_be_decoded(peer: Peer, block: bytes) -> None:
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert peer.failed() == COMPRESSION_ERROR


@pytest.mark.parametrize(
    "between",
    [
        ping(),
        settings(),
        window_update(0, 1),
        frame(PRIORITY, 0, 1, bytes(5)),
        frame(0xFF),
        frame(HEADERS, END_HEADERS, 1, b"\x82"),
        frame(HEADERS, END_HEADERS, 3, b"\x82"),
        frame(CONTINUATION, END_HEADERS, 3, b"\x82"),
        frame(CONTINUATION, END_HEADERS, 0, b"\x82"),
        data(1, b""),
        rst(1),
        goaway(),
    ],
)
def test_4_3_a_block_is_not_interrupted(peer: Peer, between: bytes) -> None:
    peer.send(frame(HEADERS, 0, 1, b"\x82"), between)
    assert peer.failed() == PROTOCOL_ERROR


# -- 5.1 the life of a stream


@pytest.mark.parametrize("stream_id", [1, 2, 99, LARGEST])
@pytest.mark.parametrize("kind", [DATA, RST_STREAM, WINDOW_UPDATE, CONTINUATION])
def test_5_1_idle(peer: Peer, kind: int, stream_id: int) -> None:
    peer.send(frame(kind, 0, stream_id, b"\0\0\0\1"))
    assert peer.failed() == PROTOCOL_ERROR


def test_5_1_idle_priority(peer: Peer) -> None:
    peer.send(frame(PRIORITY, 0, 1, bytes(5)), frame(PRIORITY, 0, 2, bytes(5)))
    assert peer.alive()


@pytest.mark.parametrize(
    "sent", [data(1, b"x", 0), data(1, b"", END_STREAM), frame(HEADERS, 5, 1, b"\x82")]
)
def test_5_1_half_closed(peer: Peer, sent: bytes) -> None:
    peer.send(peer.request(1))
    peer.events.clear()
    assert peer.send(sent) == [Cancelled(1)]
    assert peer.resets() == {1: STREAM_CLOSED}
    peer.connection.respond(1, b"late")
    assert peer.take() == []
    assert peer.alive()


def test_5_1_half_closed_takes_other_frames(peer: Peer) -> None:
    peer.send(peer.request(1), window_update(1, 5), frame(PRIORITY, 0, 1, bytes(5)))
    peer.respond()
    assert peer.answers[1].ended
    peer.send(peer.request(3), rst(3))
    assert peer.events[-1] == Cancelled(3)
    assert peer.alive()


@pytest.mark.parametrize("sent", [data(1, b"x", 0), frame(HEADERS, 5, 1, b"\x82")])
def test_5_1_closed_by_both_ends(peer: Peer, sent: bytes) -> None:
    peer.send(peer.request(1))
    peer.respond()
    peer.send(sent)
    assert peer.failed() == STREAM_CLOSED


@pytest.mark.parametrize("sent", [data(1, b"x", 0), frame(HEADERS, 5, 1, b"\x82")])
def test_5_1_closed_by_the_clients_reset(peer: Peer, sent: bytes) -> None:
    peer.send(peer.headers(1), rst(1), sent)
    assert peer.failed() == STREAM_CLOSED


def test_5_1_closed_continuation(peer: Peer) -> None:
    peer.send(peer.headers(1), rst(1), frame(CONTINUATION, END_HEADERS, 1, b"\x82"))
    assert peer.failed() == PROTOCOL_ERROR


def test_5_1_closed_takes_late_window_updates_and_resets(peer: Peer) -> None:
    peer.send(peer.request(1))
    peer.respond()
    peer.send(window_update(1, 5), window_update(1, 0), rst(1), frame(PRIORITY, 0, 1, bytes(5)))
    assert peer.alive()


def test_5_1_closed_by_our_reset_what_is_under_way_is_read_and_dropped(peer: Peer) -> None:
    peer.send(peer.headers(1, flags=END_HEADERS | END_STREAM, fields=[(":path", "/")]))
    assert peer.resets() == {1: PROTOCOL_ERROR}
    peer.send(data(1, b"x" * 1000, 0), peer.headers(1, [("new", "entry")], END_HEADERS))
    peer.send(window_update(1, 1), rst(1))
    assert peer.events == []
    fields = [*FIELDS, ("new", "entry")]  # the table has it
    (event,) = requests([*peer.send(peer.request(3, fields=fields))])
    assert event.head.metadata[-1] == ("new", "entry")


def test_5_1_1_ids_are_odd(peer: Peer) -> None:
    peer.send(peer.headers(2))
    assert peer.failed() == PROTOCOL_ERROR


def test_5_1_1_ids_are_not_zero(peer: Peer) -> None:
    peer.send(peer.headers(0))
    assert peer.failed() == PROTOCOL_ERROR


def test_5_1_1_ids_grow(peer: Peer) -> None:
    peer.send(peer.request(5), peer.request(3))
    assert peer.failed() == PROTOCOL_ERROR


def test_5_1_1_ids_may_be_skipped(peer: Peer) -> None:
    peer.send(peer.request(1), peer.request(9), peer.request(1001))
    assert [event.stream_id for event in peer.events] == [1, 9, 1001]


def test_5_1_1_ids_end(peer: Peer) -> None:
    peer.send(peer.request(LARGEST))
    peer.respond()
    assert peer.answers[LARGEST].status == "0"
    peer.send(peer.request(LARGEST))
    assert peer.failed() == STREAM_CLOSED


def test_5_1_2_too_many_streams_are_refused_and_their_blocks_decoded() -> None:
    peer = Peer(Limits(streams=2))
    peer.send(peer.request(1), peer.headers(3))
    peer.send(peer.request(5, fields=[*FIELDS, ("new", "entry")]))
    assert peer.resets() == {5: REFUSED_STREAM}
    peer.respond()
    (event,) = requests([*peer.send(peer.request(7, fields=[*FIELDS, ("new", "entry")]))])
    assert event.head.metadata[-1] == ("new", "entry")
    assert peer.send(data(3, framed(b"a")))


# -- 5.2 and 6.9 flow control, ours


def held(peer: Peer) -> int:
    return peer.connection._receiver.held


def test_6_9_the_window_is_given_back(peer: Peer) -> None:
    given = 1_048_576
    stream_id, total = -1, 0
    for _ in range(300):
        stream_id += 2
        sent = framed(b"x" * 16_000)
        total += len(sent)
        given -= len(sent)
        assert given >= 0
        peer.send(peer.headers(stream_id), data(stream_id, sent))
        given += sum(
            one.window_increment
            for one in peer.frames
            if isinstance(one, WindowUpdateFrame) and one.stream_id == 0
        )
        peer.frames.clear()
        peer.respond()
    assert total > 4 * 1_048_576
    assert given == 1_048_576 - peer.connection._receiver._taken > 524_288
    assert held(peer) == 0


def test_6_9_padding_and_dropped_data_are_given_back(peer: Peer) -> None:
    padded = b"\xff" + b"" + bytes(255)
    sent = given = 0
    stream_id = -1
    peer.connection._budget._capacity = 10**9
    peer.now = 1e9
    for round_ in range(5000):
        stream_id += 2
        kind = round_ % 4
        if kind == 0:  # padding alone
            peer.send(peer.headers(stream_id), data(stream_id, padded, PADDED), rst(stream_id))
            sent += 256
        elif kind == 1:  # on a stream that the client resets
            peer.send(peer.headers(stream_id), data(stream_id, b"x" * 1000, 0), rst(stream_id))
            sent += 1000
        elif kind == 2:  # after our reset
            peer.send(peer.headers(stream_id, [("a", "b")]), data(stream_id, b"x" * 1000))
            sent += 1000
        else:  # after the end
            peer.send(peer.request(stream_id, b""), data(stream_id, b"x" * 1000))
            sent += 1005
        given += sum(
            one.window_increment
            for one in peer.frames
            if isinstance(one, WindowUpdateFrame) and one.stream_id == 0
        )
        peer.frames.clear()
    assert peer.failed() is None
    assert sent > 3 * 1_048_576
    assert 0 <= sent - given < 1_048_576 // 2
    assert held(peer) == 0
    assert not peer.connection._receiver.parts


def test_6_9_padding_never_stops_a_request(peer: Peer) -> None:
    window = 65_536 + 5 + LARGE
    message, position = framed(b"x" * 65_536), 0
    peer.connection._budget._capacity = 10**9
    peer.now = 1e9
    peer.send(peer.headers(1))
    while position < len(message):
        piece = message[position : position + 70]
        position += len(piece)
        ends = END_STREAM if position == len(message) else 0
        window -= len(piece) + 256
        assert window >= 0
        peer.send(data(1, b"\xff" + piece + bytes(255), PADDED | ends))
        for one in peer.frames:
            if isinstance(one, WindowUpdateFrame) and one.stream_id == 1:
                window += one.window_increment
        peer.frames.clear()
    (event,) = requests([*peer.events])
    assert event.message == message[5:]


def test_6_9_a_client_that_ignores_the_window_of_its_stream() -> None:
    peer = Peer(Limits(message=200_000))
    peer.connection._receiver.stream_window = 65_535
    peer.send(peer.headers(1), *[data(1, b"x" * LARGE, 0)] * 4)
    assert peer.resets() == {1: FLOW_CONTROL_ERROR}
    assert held(peer) == 0
    assert peer.alive()


def test_6_9_a_client_that_ignores_the_window_of_the_connection() -> None:
    peer = Peer()
    peer.connection._receiver.window = 65_535
    peer.connection._receiver._taken = 32_000
    peer.send(peer.headers(1), data(1, b"x" * LARGE, 0))
    peer.connection._receiver._taken = 60_000
    peer.send(data(1, b"x" * LARGE, 0))
    assert peer.failed() == FLOW_CONTROL_ERROR


# -- 6.1 DATA


@pytest.mark.parametrize("sizes", [(3, 5), (5, 3), (1, 7), (8, 0), (0, 8), (4, 4)])
def test_6_1_a_message_over_several_frames(peer: Peer, sizes: tuple[int, int]) -> None:
    whole = framed(b"abc")
    first = sizes[0]
    peer.send(peer.headers(1), data(1, whole[:first], 0), data(1, whole[first:]))
    assert [event.message for event in requests([*peer.events])] == [b"abc"]
    assert held(peer) == 0
    assert not peer.connection._receiver.parts


def test_6_1_data_then_an_empty_end(peer: Peer) -> None:
    peer.send(peer.headers(1), data(1, b"", 0), data(1, framed(b"abc"), 0), data(1, b""))
    assert [event.message for event in requests([*peer.events])] == [b"abc"]
    assert not peer.connection._receiver.parts


def test_6_1_padding(peer: Peer) -> None:
    payload = b"\x03" + framed(b"abc") + b"\0\0\0"
    peer.send(peer.headers(1), data(1, payload, END_STREAM | PADDED))
    peer.send(peer.headers(3), data(3, b"\0" + framed(b"d"), END_STREAM | PADDED))
    assert [event.message for event in requests([*peer.events])] == [b"abc", b"d"]


@pytest.mark.parametrize("payload", [b"\x01", b"\x04abc", b"\xffabc"])
def test_6_1_more_padding_than_frame(peer: Peer, payload: bytes) -> None:
    peer.send(peer.headers(1), data(1, payload, PADDED))
    assert peer.failed() == PROTOCOL_ERROR


def test_6_1_on_stream_0(peer: Peer) -> None:
    peer.send(data(0, b"abc"))
    assert peer.failed() == PROTOCOL_ERROR


# -- 6.2 HEADERS


def test_6_2_padding_and_priority(peer: Peer) -> None:
    block = peer.encoder.encode(list(FIELDS))
    priority = b"\x80\0\0\0\x10"
    for stream_id, flags, payload in (
        (1, PADDED, b"\x04" + block + bytes(4)),
        (3, HAS_PRIORITY, priority + block),
        (5, HAS_PRIORITY | PADDED, b"\x02" + priority + block + bytes(2)),
    ):
        peer.send(frame(HEADERS, END_HEADERS | flags, stream_id, payload))
        peer.send(data(stream_id, framed(b"a")))
    assert [event.head.path for event in requests([*peer.events])] == [CHECK] * 3


@pytest.mark.parametrize(
    ("flags", "payload"),
    [
        (PADDED, b"\x01"),
        (PADDED, b"\x03\x82\x82"),
        (PADDED | HAS_PRIORITY, b"\x01" + bytes(5)),
        (PADDED | HAS_PRIORITY, b"\x05" + bytes(5) + b"\x82"),
    ],
)
def test_6_2_more_padding_than_frame(peer: Peer, flags: int, payload: bytes) -> None:
    peer.send(frame(HEADERS, flags | END_HEADERS, 1, payload))
    assert peer.failed() == PROTOCOL_ERROR


@pytest.mark.parametrize("exclusive", [b"\0", b"\x80"])
def test_6_2_a_stream_that_depends_on_itself(peer: Peer, exclusive: bytes) -> None:
    peer.send(frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, exclusive + b"\0\0\1\0\x82"))
    assert peer.failed() == PROTOCOL_ERROR


# -- 6.3 PRIORITY


def test_6_3_on_stream_0(peer: Peer) -> None:
    peer.send(frame(PRIORITY, 0, 0, bytes(5)))
    assert peer.failed() == PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("payload", "code"),
    [(bytes(4), FRAME_SIZE_ERROR), (bytes(6), FRAME_SIZE_ERROR), (b"\0\0\0\1\0", PROTOCOL_ERROR)],
)
def test_6_3_of_a_wrong_size_or_on_itself(peer: Peer, payload: bytes, code: int) -> None:
    peer.send(peer.headers(1), frame(PRIORITY, 0, 1, payload))
    assert peer.resets() == {1: code}
    assert peer.alive()


@pytest.mark.parametrize(
    ("payload", "code"), [(bytes(4), FRAME_SIZE_ERROR), (b"\0\0\0\1\0", PROTOCOL_ERROR)]
)
def test_6_3_there_is_no_stream_to_reset(peer: Peer, payload: bytes, code: int) -> None:
    peer.send(frame(PRIORITY, 0, 1, payload))
    assert peer.failed() == code


@pytest.mark.parametrize("stream_id", [1, 3], ids=["reset", "answered"])
@pytest.mark.parametrize("size", [4, 6])
def test_6_3_no_stream_is_reset_that_is_closed(peer: Peer, stream_id: int, size: int) -> None:
    peer.send(peer.headers(1, [("a", "b")]), peer.request(3))
    peer.respond()
    peer.send(frame(PRIORITY, 0, stream_id, bytes(5)))
    assert peer.alive()
    peer.send(frame(PRIORITY, 0, stream_id, bytes(size)))
    assert peer.resets() == {1: PROTOCOL_ERROR}
    assert peer.failed() == FRAME_SIZE_ERROR


# -- 6.4 RST_STREAM


def test_6_4_on_stream_0(peer: Peer) -> None:
    peer.send(rst(0))
    assert peer.failed() == PROTOCOL_ERROR


def test_6_4_before_all_has_come_nobody_was_asked(peer: Peer) -> None:
    assert peer.send(peer.headers(1), data(1, b"abc", 0), rst(1)) == []
    assert peer.connection.open_streams == 0
    assert held(peer) == 0


def test_6_4_after_all_has_come_nobody_waits(peer: Peer) -> None:
    events = peer.send(peer.request(1), rst(1))
    assert events[1:] == [Cancelled(1)]
    peer.connection.respond(1, b"late")
    assert peer.take() == []


def test_6_4_an_answer_that_waits_is_dropped() -> None:
    peer = Peer(initial={INITIAL_WINDOW_SIZE: 0})
    peer.send(peer.request(1))
    peer.respond(b"answer")
    assert peer.connection._sender.unsent == 11
    assert peer.send(rst(1)) == []  # it was answered
    assert peer.connection._sender.unsent == 0
    assert not peer.connection._sender._waiting
    assert peer.connection.open_streams == 0


# -- 6.5 SETTINGS


def test_6_5_is_acknowledged(peer: Peer) -> None:
    peer.send(settings(), settings({HEADER_TABLE_SIZE: 0, 0xFFFF: 5}), frame(SETTINGS, ACK))
    assert peer.acknowledged() == 2


def test_6_5_on_a_stream(peer: Peer) -> None:
    peer.send(frame(SETTINGS, 0, 1))
    assert peer.failed() == PROTOCOL_ERROR


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
def test_6_5_2_values_that_must_not_be(peer: Peer, name: int, value: int, code: int) -> None:
    peer.send(settings([(MAX_HEADER_LIST_SIZE, 1), (name, value)]))
    assert peer.failed() == code


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
def test_6_5_2_values_that_may_be(peer: Peer, name: int, value: int) -> None:
    peer.send(settings({name: value}))
    assert peer.alive()


def test_6_5_2_our_blocks_need_no_table(peer: Peer) -> None:
    peer.decoder.max_allowed_table_size = 0
    peer.send(settings({HEADER_TABLE_SIZE: 0}), peer.request(1))
    peer.respond()  # the first block resizes the table: else the witness complains
    assert peer.decoder.header_table_size == 0
    peer.decoder.max_allowed_table_size = 8192
    peer.send(settings([(HEADER_TABLE_SIZE, 8192)]), peer.request(3))
    peer.respond()
    assert peer.answers[3].status == "0"
    assert not peer.decoder.header_table.dynamic_entries


def test_6_5_2_we_send_no_frame_above_the_smallest_limit(peer: Peer) -> None:
    peer.send(settings({MAX_FRAME_SIZE: 0xFFFFFF, INITIAL_WINDOW_SIZE: 10**6}))
    peer.send(window_update(0, 10**6), peer.request(1))
    peer.respond(b"x" * 100_000)
    sizes = [len(one.data) for one in peer.frames if isinstance(one, DataFrame)]
    assert sizes == [LARGE] * 6 + [100_005 - 6 * LARGE]
    assert peer.answers[1].message == b"x" * 100_000


# -- 6.6 PUSH_PROMISE


def test_6_6_from_a_client(peer: Peer) -> None:
    peer.send(peer.headers(1), frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2\x82"))
    assert peer.failed() == PROTOCOL_ERROR


# -- 6.7 PING


def test_6_7_is_answered(peer: Peer) -> None:
    peer.send(ping(b"abcdefgh"))
    (answer,) = peer.frames
    assert isinstance(answer, PingFrame)
    assert answer.opaque_data == b"abcdefgh"
    assert "ACK" in answer.flags


def test_6_7_an_answer_is_not_answered(peer: Peer) -> None:
    peer.send(ping(flags=ACK))
    assert peer.frames == []


def test_6_7_on_a_stream(peer: Peer) -> None:
    peer.send(frame(PING, 0, 1, b"12345678"))
    assert peer.failed() == PROTOCOL_ERROR


# -- 6.8 GOAWAY


def done(peer: Peer) -> bool:
    return peer.connection.done


def test_6_8_on_a_stream(peer: Peer) -> None:
    peer.send(frame(GOAWAY, 0, 1, bytes(8)))
    assert peer.failed() == PROTOCOL_ERROR


@pytest.mark.parametrize("code", [NO_ERROR, INTERNAL_ERROR, 0xFFFF])
def test_6_8_from_the_client(peer: Peer, code: int) -> None:
    peer.send(peer.request(1), goaway(code))
    assert not done(peer)
    peer.respond()
    assert peer.answers[1].ended
    assert done(peer)
    assert not peer.connection.closed
    assert peer.alive()  # what it asks all the same is answered


def test_6_8_in_two_steps(peer: Peer) -> None:
    peer.send(peer.request(1))
    for _ in range(2):  # the second time says nothing new
        peer.connection.announce_end()
    peer.take()
    assert [one.last_stream_id for one in peer.goaways] == [LARGEST]
    peer.send(peer.request(3))
    for _ in range(2):
        peer.connection.end()
    peer.connection.announce_end()
    peer.take()
    assert [one.last_stream_id for one in peer.goaways] == [LARGEST, 3]
    assert all(one.error_code == NO_ERROR for one in peer.goaways)
    assert len(peer.events) == 2
    # This came too late. Its block is decoded all the same, its data counted.
    assert not peer.send(peer.headers(5, [*FIELDS, ("a", "b")]), data(5, framed(b"x")), rst(5))
    assert not done(peer)
    peer.respond()
    assert peer.answers.keys() == {1, 3}
    assert done(peer)
    assert not peer.connection.closed


def test_6_8_the_last_stream_never_grows(peer: Peer) -> None:
    peer.send(peer.request(1))
    peer.connection.end()
    peer.send(peer.request(3), frame(PING))
    assert peer.failed() == FRAME_SIZE_ERROR
    assert [one.last_stream_id for one in peer.goaways] == [1, 1]


def test_6_8_after_a_fault_there_is_nothing(peer: Peer) -> None:
    peer.send(peer.request(1), peer.headers(3), frame(PING))
    assert peer.failed() == FRAME_SIZE_ERROR
    assert peer.goaways[0].last_stream_id == 3
    assert peer.connection.done
    peer.frames.clear()
    peer.connection.announce_end()
    peer.connection.end()
    assert peer.send(peer.request(5), ping()) == []
    peer.respond()
    assert peer.connection.expire(10**9) == []
    assert peer.frames == []
    assert not peer.connection.has_more
    assert peer.connection.open_streams == 0
    assert peer.connection._reader.unread == 0


def test_6_8_what_was_asked_before_a_fault_is_told(peer: Peer) -> None:
    assert len(peer.send(peer.request(1), frame(PING))) == 1
    assert peer.failed() == FRAME_SIZE_ERROR


# -- 6.9 flow control, the client's


@pytest.mark.parametrize("window", [0, 1, 4, 5, 8, 9, 10])
def test_6_9_2_small_windows(window: int) -> None:
    peer = Peer(initial={INITIAL_WINDOW_SIZE: window})
    peer.send(peer.request(1))
    peer.respond(b"well")
    answer = peer.answers[1]
    assert len(answer.data) == min(window, 9)
    assert answer.ended == (window >= 9)
    while not answer.ended:
        before = len(answer.data)
        peer.send(window_update(1, 2))
        assert before < len(answer.data) <= before + 2
    assert answer.message == b"well"
    assert peer.connection.open_streams == 0


def test_6_9_the_connections_window_is_everybodys() -> None:
    peer = Peer(initial={INITIAL_WINDOW_SIZE: 10**6})
    peer.send(*(peer.request(n) for n in (1, 3, 5)))
    peer.respond(b"x" * 30_000)
    sent = [len(peer.answers[n].data) for n in (1, 3, 5)]
    assert sent == [30_005, 30_005, 65_535 - 60_010]
    peer.send(window_update(0, 10))
    assert len(peer.answers[5].data) == 65_535 - 60_010 + 10
    peer.send(peer.request(7))
    peer.respond()
    assert not peer.answers[7].data
    peer.send(window_update(0, LARGEST))
    assert all(answer.ended for answer in peer.answers.values())


def test_6_9_2_a_new_initial_window_moves_those_of_open_streams() -> None:
    peer = Peer(initial={INITIAL_WINDOW_SIZE: 5})
    peer.send(peer.request(1), peer.headers(3))
    peer.respond(b"x" * 15)  # 20 bytes, of which 5 go
    assert len(peer.answers[1].data) == 5
    peer.send(settings({INITIAL_WINDOW_SIZE: 2}))  # the window is now -3
    peer.send(window_update(1, 3))
    assert len(peer.answers[1].data) == 5
    peer.send(window_update(1, 1))
    assert len(peer.answers[1].data) == 6
    peer.send(settings({INITIAL_WINDOW_SIZE: 5}))
    assert len(peer.answers[1].data) == 9
    peer.send(settings([(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 100)]))
    assert peer.answers[1].message == b"x" * 15
    peer.send(data(3, framed(b"a")))
    peer.respond(b"x" * 95)
    assert peer.answers[3].ended


def test_6_9_2_while_several_messages_wait() -> None:
    peer = Peer(initial={INITIAL_WINDOW_SIZE: 0})
    peer.send(peer.request(1))
    for message in (b"one", b"two"):
        peer.connection.send(1, message)
    peer.connection.finish(1, GrpcStatus.ABORTED)
    peer.connection.finish(1)
    peer.take()
    assert len(peer.answers[1].blocks) == 1
    peer.send(settings({INITIAL_WINDOW_SIZE: 9}))
    peer.connection.send(1, b"not any more")
    peer.send(settings({INITIAL_WINDOW_SIZE: LARGEST}))
    assert peer.answers[1].data == framed(b"one") + framed(b"two")
    assert peer.answers[1].status == "10"


def test_6_9_1_an_update_by_nothing(peer: Peer) -> None:
    peer.send(peer.headers(1), window_update(1, 0))
    assert peer.resets() == {1: PROTOCOL_ERROR}
    peer.send(window_update(0, 0))
    assert peer.failed() == PROTOCOL_ERROR


def test_6_9_1_windows_have_a_limit(peer: Peer) -> None:
    peer.send(peer.headers(1), window_update(1, LARGEST - 65_535), peer.headers(3))
    assert peer.resets() == {}
    peer.send(window_update(1, 1))
    assert peer.resets() == {1: FLOW_CONTROL_ERROR}
    peer.send(window_update(0, LARGEST - 65_535))
    assert peer.failed() is None
    peer.send(window_update(0, 1))
    assert peer.failed() == FLOW_CONTROL_ERROR


@pytest.mark.parametrize("values", [[65_536], [65_536, 0], [0, 65_536]])
def test_6_9_2_windows_have_a_limit_for_settings_too(peer: Peer, values: list[int]) -> None:
    peer.send(peer.headers(1), window_update(1, LARGEST - 65_535))
    peer.send(settings([(INITIAL_WINDOW_SIZE, value) for value in values]))
    assert peer.failed() == FLOW_CONTROL_ERROR


def test_6_9_2_windows_may_be_at_the_limit(peer: Peer) -> None:
    peer.send(settings({INITIAL_WINDOW_SIZE: 0}), peer.headers(1), window_update(1, LARGEST))
    peer.send(settings({INITIAL_WINDOW_SIZE: 1}))
    assert peer.failed() == FLOW_CONTROL_ERROR


def test_6_9_head_and_status_need_no_window() -> None:
    peer = Peer(initial={INITIAL_WINDOW_SIZE: 0})
    peer.send(peer.request(1), peer.request(3))
    peer.connection.fail(1, GrpcStatus.INTERNAL, "")
    peer.connection.send(3, b"")
    peer.take()
    assert peer.answers[1].ended
    assert len(peer.answers[3].blocks) == 1


# -- 6.10 CONTINUATION


@pytest.mark.parametrize("pieces", [2, 3, 7])
def test_6_10_a_block_in_pieces(peer: Peer, pieces: int) -> None:
    block = peer.encoder.encode(list(FIELDS))
    size = -(-len(block) // pieces)
    parts = [block[start : start + size] for start in range(0, len(block), size)]
    peer.send(frame(HEADERS, 0, 1, parts[0]))
    for part in parts[1:-1]:
        peer.send(frame(CONTINUATION, 0, 1, part))
    peer.send(frame(CONTINUATION, END_HEADERS, 1, parts[-1]), data(1, framed(b"a")))
    assert requests([*peer.events])[0].head.path == CHECK


def test_6_10_end_stream_is_said_by_headers(peer: Peer) -> None:
    block = peer.encoder.encode(list(FIELDS))
    peer.send(frame(HEADERS, END_STREAM, 1, block), frame(CONTINUATION, END_HEADERS, 1, b""))
    assert peer.answers[1].status == "13"  # no message


@pytest.mark.parametrize(
    "before",
    [
        b"",
        frame(HEADERS, END_HEADERS, 1, b"\x82"),
        frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(HEADERS, END_HEADERS, 1, b"\x82") + data(1, b"", 0),
    ],
)
def test_6_10_that_continues_nothing(peer: Peer, before: bytes) -> None:
    peer.send(before, frame(CONTINUATION, END_HEADERS, 1, b"\x82"))
    assert peer.failed() == PROTOCOL_ERROR


# -- 8.1 requests


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_8_1_trailers(peer: Peer, parts: int) -> None:
    message = framed(b"abc")
    peer.send(peer.headers(1))
    for part in (message[:4], message[4:])[:parts] if parts == 2 else (message,)[:parts]:
        peer.send(data(1, part, 0))
    peer.send(peer.headers(1, [("a", "b")], END_HEADERS | END_STREAM))
    if parts:
        assert requests([*peer.events])[0].message == b"abc"
    else:
        assert peer.answers[1].status == "13"
    assert held(peer) == 0


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ([("a", "b")], END_HEADERS),  # no end
        ([(":path", "/")], END_HEADERS | END_STREAM),
        ([("A", "b")], END_HEADERS | END_STREAM),
        ([("connection", "close")], END_HEADERS | END_STREAM),
    ],
)
def test_8_1_malformed_trailers(peer: Peer, fields: list[tuple[str, str]], flags: int) -> None:
    peer.send(peer.headers(1), data(1, framed(b"abc"), 0), peer.headers(1, fields, flags))
    assert peer.resets() == {1: PROTOCOL_ERROR}
    assert peer.events == []
    assert held(peer) == 0
    assert peer.alive()


def test_8_1_trailers_that_are_too_large(peer: Peer) -> None:
    fields = [("a", "b" * 15_000), ("c", "d" * 1500)]
    peer.send(peer.headers(1), peer.headers(1, fields, END_HEADERS | END_STREAM))
    assert peer.resets() == {1: ENHANCE_YOUR_CALM}
    assert peer.alive()


@pytest.mark.parametrize(
    ("length", "code"), [("8", None), ("08", None), ("7", PROTOCOL_ERROR), ("9", PROTOCOL_ERROR)]
)
def test_8_1_1_content_length(peer: Peer, length: str, code: int | None) -> None:
    fields = [*FIELDS, ("content-length", length)]
    peer.send(peer.request(1, b"abc", fields))
    peer.send(peer.headers(3, fields), data(3, framed(b"abc"), 0), data(3, b""))
    assert len(peer.events) == (2 if code is None else 0)
    assert peer.resets() == ({} if code is None else {1: code, 3: code})


def test_8_1_1_content_length_and_no_content(peer: Peer) -> None:
    flags = END_HEADERS | END_STREAM
    peer.send(peer.headers(1, [*FIELDS, ("content-length", "1")], flags))
    assert peer.resets() == {1: PROTOCOL_ERROR}
    fields = [(":method", "GET"), *FIELDS[1:], ("content-length", "1")]  # gRPC or not
    peer.send(peer.request(3, b"abc", fields))
    assert peer.resets() == {1: PROTOCOL_ERROR, 3: PROTOCOL_ERROR}


def test_8_1_1_a_malformed_request_ends_its_stream_alone(peer: Peer) -> None:
    peer.send(peer.request(1), peer.headers(3, [*FIELDS, ("Upper", "x")]), peer.request(5))
    assert peer.resets() == {3: PROTOCOL_ERROR}
    peer.respond()
    assert peer.answers[1].ended
    assert peer.answers[5].ended


def test_8_1_1_a_head_that_is_refused_once_is_refused_again(peer: Peer) -> None:
    fields = [(":method", "GET"), *FIELDS[1:]]
    for stream_id in (1, 3, 5):
        peer.send(peer.request(stream_id, fields=fields))
        assert peer.answers[stream_id].blocks == [[(":status", "405")]]
        assert peer.answers[stream_id].ended
    assert peer.resets() == {}
    assert peer.events == []


def test_8_1_a_refusal_waits_for_the_end_of_its_request(peer: Peer) -> None:
    peer.send(peer.headers(1, [field for field in FIELDS if field[0] != "content-type"]))
    assert peer.answers == {}
    peer.send(data(1, b"abc", 0), data(1, b"def"))
    assert peer.answers[1].blocks == [[(":status", "415")]]
    assert held(peer) == 0


# -- gRPC


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"", "13"),
        (b"\0\0\0", "13"),
        (framed(b"abc")[:-1], "13"),
        (framed(b"abc") * 2, "12"),
        (framed(b"abc", flag=1), "13"),
        (framed(b"abc", flag=2), "13"),
        (b"\0\xff\xff\xff\xff", "8"),
    ],
)
def test_a_request_that_is_not_one_message(peer: Peer, payload: bytes, status: str) -> None:
    peer.send(peer.headers(1), data(1, payload))
    assert peer.answers[1].status == status
    assert len(peer.answers[1].blocks) == 1
    assert peer.answers[1].ended
    assert peer.events == []
    assert peer.alive()


def test_a_compressed_message_is_told_what_would_do(peer: Peer) -> None:
    fields = [*FIELDS, ("grpc-encoding", "gzip")]
    peer.send(peer.headers(1, fields), data(1, framed(b"abc", flag=1)))
    assert peer.answers[1].status == "12"
    assert peer.answers[1].head["grpc-accept-encoding"] == "identity"


def test_a_request_without_data(peer: Peer) -> None:
    peer.send(peer.headers(1, flags=END_HEADERS | END_STREAM))
    assert peer.answers[1].status == "13"


def test_a_message_that_is_too_large_is_not_heard_to_its_end(peer: Peer) -> None:
    peer.send(peer.headers(1))
    message = framed(b"x" * 70_000)
    for start in range(0, len(message), LARGE):
        peer.send(data(1, message[start : start + LARGE], 0))
    assert peer.answers[1].status == "8"
    assert peer.answers[1].ended
    assert peer.resets() == {1: NO_ERROR}
    assert held(peer) == 0
    assert peer.alive()


def test_a_message_may_be_as_large_as_allowed(peer: Peer) -> None:
    message = framed(b"x" * 65_536)
    pieces = [message[start : start + LARGE] for start in range(0, len(message), LARGE)]
    peer.send(peer.headers(1), *(data(1, piece, 0) for piece in pieces[:-1]), data(1, pieces[-1]))
    assert requests([*peer.events])[0].message == b"x" * 65_536


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_small_limit(limit: int) -> None:
    peer = Peer(Limits(message=limit))
    peer.send(peer.request(1, b"x" * limit), peer.request(3, b"x" * (limit + 1)))
    assert [event.stream_id for event in peer.events] == [1]
    assert peer.answers[3].status == "8"


def test_a_timeout_is_told(peer: Peer) -> None:
    peer.send(peer.request(1, fields=[*FIELDS, ("grpc-timeout", "250m")]))
    assert requests([*peer.events])[0].head.seconds == 0.25


def test_a_timeout_that_is_none(peer: Peer) -> None:
    peer.send(peer.request(1, fields=[*FIELDS, ("grpc-timeout", "now")]))
    assert peer.answers[1].status == "13"


# -- what does not end


def test_expire_resets_requests_that_do_not_end(peer: Peer) -> None:
    peer.now = 10
    peer.send(peer.headers(1), peer.headers(3), data(3, b"abc", 0), peer.request(5))
    peer.now = 20
    peer.send(peer.headers(7))
    assert peer.connection.expire(10) == []
    assert peer.connection.expire(15) == []
    peer.take()
    assert peer.resets() == {1: CANCEL, 3: CANCEL}
    assert peer.connection.open_streams == 2
    assert held(peer) == 0
    peer.respond()  # that of a complete request may take its time
    assert peer.answers[5].status == "0"
    assert peer.alive()


def test_expire_resets_answers_that_are_not_taken() -> None:
    peer = Peer(initial={INITIAL_WINDOW_SIZE: 7})
    peer.send(*(peer.request(n) for n in (1, 3, 5)))
    peer.connection.send(1, b"ab")  # and all of that is taken
    peer.now = 10
    peer.send(ping())
    peer.connection.send(3, b"abc")
    peer.connection.respond(5, b"abc")
    assert peer.connection.expire(10) == []
    assert peer.connection.expire(11) == [Cancelled(3)]  # 5 was answered, as far as we can
    peer.take()
    assert peer.resets() == {3: CANCEL, 5: CANCEL}
    assert peer.connection._sender.unsent == 0
    assert peer.connection.open_streams == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        PREFACE[:5],
        PREFACE,
        PREFACE + settings()[:8],
    ],
)
def test_expire_ends_connections_that_do_not_begin(sent: bytes) -> None:
    peer = Peer(opened=False)
    peer.now = 5
    peer.send(sent)
    peer.connection.expire(0)
    assert not peer.connection.closed
    peer.connection.expire(1)
    peer.take()
    assert peer.failed() == ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "sent", [b"\0", frame(PING, 0, 0, b"12345678")[:-1], frame(HEADERS, 0, 1, b"\x82")]
)
def test_expire_ends_connections_amid_a_frame_or_block(sent: bytes) -> None:
    peer = Peer()
    peer.now = 1000  # it was idle, which is no fault
    peer.send(sent)
    peer.connection.expire(999)
    assert not peer.connection.closed
    peer.connection.expire(1001)
    peer.take()
    assert peer.failed() == ENHANCE_YOUR_CALM


def test_expire_counts_from_the_last_whole_frame(peer: Peer) -> None:
    sent = ping() * 50
    for second, start in enumerate(range(0, len(sent), 10)):  # always amid a frame
        peer.now = second
        peer.send(sent[start : start + 10])
        peer.connection.expire(second - 5)
    assert not peer.connection.closed


def test_expire_does_not_blame_a_client_for_what_we_did_not_read(peer: Peer) -> None:
    peer.connection.feed(peer.request(1) + peer.request(3), 0)
    assert len(peer.connection.events(1)) == 1
    assert peer.connection.expire(100) == []
    assert not peer.connection.closed
    assert len(peer.connection.events(1)) == 1


# -- frames of ours


def test_our_first_block_resizes_the_table() -> None:
    for answer in ("respond", "fail", "send"):
        peer = Peer()
        peer.send(peer.request(1))
        if answer == "respond":
            peer.connection.respond(1, b"a")
        elif answer == "fail":
            peer.connection.fail(1, GrpcStatus.INTERNAL, "a")
        else:
            peer.connection.send(1, b"a")
        first = peer.take()[0]
        assert isinstance(first, HeadersFrame)
        assert first.data[:2] == b"\x20\x88"
        peer.send(peer.request(3))
        peer.connection.fail(3, GrpcStatus.INTERNAL, "once is enough")
        second = peer.take()[0]
        assert isinstance(second, HeadersFrame)
        assert second.data[:1] == b"\x88"


def test_a_goaway_says_why(peer: Peer) -> None:
    peer.send(frame(PING))
    last = peer.frames[-1]
    assert isinstance(last, GoAwayFrame)
    assert last.additional_data == b"PING of a wrong size"
    assert str(peer.connection.fault) == "PING of a wrong size"
