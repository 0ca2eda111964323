"""The server's side of a connection: its beginning, frames, streams, end. By section of RFC 9113.

Many cases are those of h2spec.
"""

import pytest
from hyperframe.frame import (
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from authz.http2 import Cancelled, Limits
from authz.http2.settings import (
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_HEADER_LIST_SIZE,
)
from tests.http2.wire import (
    ACK,
    CANCEL,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FIELDS,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    INTERNAL_ERROR,
    LARGE,
    LARGEST,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Client,
    data,
    frame,
    framed,
    goaway,
    ping,
    requests,
    rst,
    settings,
    window_update,
)

# -- 3.4 the preface


def test_3_4_ours_is_settings() -> None:
    client = Client(Limits(streams=7, header_list=5000, message=100_000), opened=False)
    first, second = client.take()
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
    client = Client(opened=False)
    client.send(sent)
    assert client.failed() == PROTOCOL_ERROR


def test_3_4_the_preface_may_come_in_pieces() -> None:
    for cut in range(len(PREFACE + settings())):
        client = Client(opened=False)
        sent = PREFACE + settings()
        client.send(sent[:cut])
        assert client.acknowledged() == 0
        client.send(sent[cut:], client.request(1))
        assert client.acknowledged() == 1
        assert len(client.events) == 1


# -- 4.1 frames


@pytest.mark.parametrize("kind", [10, 0x10, 0xFF])
def test_4_1_unknown_types_are_ignored(client: Client, kind: int) -> None:
    client.send(frame(kind, 0xFF, 0, b"?" * 8), frame(kind, 0, 7, b""), ping())
    assert client.alive()


def test_4_1_unknown_flags_are_ignored(client: Client) -> None:
    client.send(frame(PING, 0x16, 0, b"12345678"))
    assert isinstance(client.frames[-1], PingFrame)
    assert client.alive()


def test_4_1_the_reserved_bit_is_ignored(client: Client) -> None:
    client.send(frame(PING, 0, 0x80000000, b"12345678"))
    sent = client.headers(0x80000001) + data(0x80000001, framed(b"a"))
    assert len(client.send(sent)) == 1
    assert client.events[0].stream_id == 1


# -- 4.2 frame sizes


def test_4_2_frames_of_16_kib_are_taken(client: Client) -> None:
    payload = framed(b"x" * (LARGE - 5))
    client.send(client.headers(1), data(1, payload), frame(0xFF, 0, 0, b"x" * LARGE))
    assert len(client.events) == 1
    assert client.alive()


@pytest.mark.parametrize("kind", [DATA, HEADERS, PING, SETTINGS, CONTINUATION, 0xFF])
@pytest.mark.parametrize("size", [LARGE + 1, 0xFFFFFF])
def test_4_2_larger_frames_are_a_fault_at_once(client: Client, kind: int, size: int) -> None:
    client.send(client.headers(1), size.to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0, 1)))
    assert client.failed() == FRAME_SIZE_ERROR


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
def test_4_2_frames_with_too_little_or_too_much(client: Client, sent: bytes) -> None:
    client.send(client.headers(1), sent)
    assert client.failed() == FRAME_SIZE_ERROR


# -- 4.3 header blocks


@pytest.mark.parametrize("block", [b"\x80", b"\xff", b"\x40", b"\x82\x20", b"\x3f\xe2\x1f"])
def test_4_3_a_block_that_cannot_be_decoded(client: Client, block: bytes) -> None:
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert client.failed() == COMPRESSION_ERROR


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
def test_4_3_a_block_is_not_interrupted(client: Client, between: bytes) -> None:
    client.send(frame(HEADERS, 0, 1, b"\x82"), between)
    assert client.failed() == PROTOCOL_ERROR


# -- 5.1 the life of a stream


@pytest.mark.parametrize("stream_id", [1, 2, 99, LARGEST])
@pytest.mark.parametrize("kind", [DATA, RST_STREAM, WINDOW_UPDATE, CONTINUATION])
def test_5_1_idle(client: Client, kind: int, stream_id: int) -> None:
    client.send(frame(kind, 0, stream_id, b"\0\0\0\1"))
    assert client.failed() == PROTOCOL_ERROR


def test_5_1_idle_priority(client: Client) -> None:
    client.send(frame(PRIORITY, 0, 1, bytes(5)), frame(PRIORITY, 0, 2, bytes(5)))
    assert client.alive()


@pytest.mark.parametrize(
    "sent", [data(1, b"x", 0), data(1, b"", END_STREAM), frame(HEADERS, 5, 1, b"\x82")]
)
def test_5_1_half_closed(client: Client, sent: bytes) -> None:
    client.send(client.request(1))
    client.events.clear()
    assert client.send(sent) == [Cancelled(1)]
    assert client.resets() == {1: STREAM_CLOSED}
    client.connection.respond(1, b"late")
    assert client.take() == []
    assert client.alive()


def test_5_1_half_closed_takes_other_frames(client: Client) -> None:
    client.send(client.request(1), window_update(1, 5), frame(PRIORITY, 0, 1, bytes(5)))
    client.respond()
    assert client.answers[1].ended
    client.send(client.request(3), rst(3))
    assert client.events[-1] == Cancelled(3)
    assert client.alive()


@pytest.mark.parametrize("sent", [data(1, b"x", 0), frame(HEADERS, 5, 1, b"\x82")])
def test_5_1_closed_by_both_ends(client: Client, sent: bytes) -> None:
    client.send(client.request(1))
    client.respond()
    client.send(sent)
    assert client.failed() == STREAM_CLOSED


@pytest.mark.parametrize("sent", [data(1, b"x", 0), frame(HEADERS, 5, 1, b"\x82")])
def test_5_1_closed_by_the_clients_reset(client: Client, sent: bytes) -> None:
    client.send(client.headers(1), rst(1), sent)
    assert client.failed() == STREAM_CLOSED


def test_5_1_closed_takes_late_window_updates_and_resets(client: Client) -> None:
    client.send(client.request(1))
    client.respond()
    client.send(window_update(1, 5), window_update(1, 0), rst(1), frame(PRIORITY, 0, 1, bytes(5)))
    assert client.alive()


def test_5_1_closed_by_our_reset_what_is_under_way_is_read_and_dropped(client: Client) -> None:
    client.send(client.headers(1, flags=END_HEADERS | END_STREAM, fields=[(":path", "/")]))
    assert client.resets() == {1: PROTOCOL_ERROR}
    client.send(data(1, b"x" * 1000, 0), client.headers(1, [("new", "entry")], END_HEADERS))
    client.send(window_update(1, 1), rst(1))
    assert client.events == []
    fields = [*FIELDS, ("new", "entry")]  # the table has it
    (event,) = requests(client.send(client.request(3, fields=fields)))
    assert event.head.metadata[-1] == ("new", "entry")


def test_5_1_1_ids_may_be_skipped(client: Client) -> None:
    client.send(client.request(1), client.request(9), client.request(1001))
    assert [event.stream_id for event in client.events] == [1, 9, 1001]


def test_5_1_1_ids_end(client: Client) -> None:
    client.send(client.request(LARGEST))
    client.respond()
    assert client.answers[LARGEST].status == "0"
    client.send(client.request(LARGEST))
    assert client.failed() == STREAM_CLOSED


def test_5_1_2_too_many_streams_are_refused_and_their_blocks_decoded() -> None:
    client = Client(Limits(streams=2))
    client.send(client.request(1), client.headers(3))
    client.send(client.request(5, fields=[*FIELDS, ("new", "entry")]))
    assert client.resets() == {5: REFUSED_STREAM}
    client.respond()
    (event,) = requests(client.send(client.request(7, fields=[*FIELDS, ("new", "entry")])))
    assert event.head.metadata[-1] == ("new", "entry")
    assert client.send(data(3, framed(b"a")))


# -- 6.8 GOAWAY


def done(client: Client) -> bool:
    return client.connection.done


@pytest.mark.parametrize("code", [NO_ERROR, INTERNAL_ERROR, 0xFFFF])
def test_6_8_from_the_client(client: Client, code: int) -> None:
    client.send(client.request(1), goaway(code))
    assert not done(client)
    client.respond()
    assert client.answers[1].ended
    assert done(client)
    assert not client.connection.closed
    assert client.alive()  # what it asks all the same is answered


def test_6_8_in_two_steps(client: Client) -> None:
    client.send(client.request(1))
    for _ in range(2):  # the second time says nothing new
        client.connection.announce_end()
    client.take()
    assert [one.last_stream_id for one in client.goaways] == [LARGEST]
    client.send(client.request(3))
    for _ in range(2):
        client.connection.end()
    client.connection.announce_end()
    client.take()
    assert [one.last_stream_id for one in client.goaways] == [LARGEST, 3]
    assert all(one.error_code == NO_ERROR for one in client.goaways)
    assert len(client.events) == 2
    # This came too late. Its block is decoded all the same, its data counted.
    assert not client.send(client.headers(5, [*FIELDS, ("a", "b")]), data(5, framed(b"x")), rst(5))
    assert not done(client)
    client.respond()
    assert client.answers.keys() == {1, 3}
    assert done(client)
    assert not client.connection.closed


def test_6_8_the_last_stream_never_grows(client: Client) -> None:
    client.send(client.request(1))
    client.connection.end()
    client.send(client.request(3), frame(PING))
    assert client.failed() == FRAME_SIZE_ERROR
    assert [one.last_stream_id for one in client.goaways] == [1, 1]


def test_6_8_after_a_fault_there_is_nothing(client: Client) -> None:
    client.send(client.request(1), client.headers(3), frame(PING))
    assert client.failed() == FRAME_SIZE_ERROR
    assert client.goaways[0].last_stream_id == 3
    assert done(client)
    client.frames.clear()
    client.connection.announce_end()
    client.connection.end()
    assert client.send(client.request(5), ping()) == []
    client.respond()
    assert client.connection.expire(10**9) == []
    assert client.frames == []
    assert not client.connection.has_more
    assert client.connection.open_streams == 0
    assert client.connection._reader.unread == 0


def test_6_8_what_was_asked_before_a_fault_is_told(client: Client) -> None:
    assert len(client.send(client.request(1), frame(PING))) == 1
    assert client.failed() == FRAME_SIZE_ERROR


# -- what does not end


def test_expire_resets_requests_that_do_not_end(client: Client) -> None:
    client.now = 10
    client.send(client.headers(1), client.headers(3), data(3, b"abc", 0), client.request(5))
    client.now = 20
    client.send(client.headers(7))
    assert client.connection.expire(10) == []
    assert client.connection.expire(15) == []
    client.take()
    assert client.resets() == {1: CANCEL, 3: CANCEL}
    assert client.connection.open_streams == 2
    assert client.held == 0
    client.respond()  # that of a complete request may take its time
    assert client.answers[5].status == "0"
    assert client.alive()


def test_expire_resets_answers_that_are_not_taken() -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: 7})
    client.send(*(client.request(n) for n in (1, 3, 5)))
    client.connection.send(1, b"ab")  # and all of that is taken
    client.now = 10
    client.send(ping())
    client.connection.send(3, b"abc")
    client.connection.respond(5, b"abc")
    assert client.connection.expire(10) == []
    assert client.connection.expire(11) == [Cancelled(3)]  # 5 was answered, as far as we can
    client.take()
    assert client.resets() == {3: CANCEL, 5: CANCEL}
    assert client.connection._sender.unsent == 0
    assert client.connection.open_streams == 1


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
    client = Client(opened=False)
    client.now = 5
    client.send(sent)
    client.connection.expire(0)
    assert not client.connection.closed
    client.connection.expire(1)
    client.take()
    assert client.failed() == ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "sent", [b"\0", frame(PING, 0, 0, b"12345678")[:-1], frame(HEADERS, 0, 1, b"\x82")]
)
def test_expire_ends_connections_amid_a_frame_or_block(sent: bytes) -> None:
    client = Client()
    client.now = 1000  # it was idle, which is no fault
    client.send(sent)
    client.connection.expire(999)
    assert not client.connection.closed
    client.connection.expire(1001)
    client.take()
    assert client.failed() == ENHANCE_YOUR_CALM


def test_expire_counts_from_the_last_whole_frame(client: Client) -> None:
    sent = ping() * 50
    for second, start in enumerate(range(0, len(sent), 10)):  # always amid a frame
        client.now = second
        client.send(sent[start : start + 10])
        client.connection.expire(second - 5)
    assert not client.connection.closed


def test_expire_does_not_blame_a_client_for_what_we_did_not_read(client: Client) -> None:
    client.connection.feed(client.request(1) + client.request(3), 0)
    assert len(client.connection.events(1)) == 1
    assert client.connection.expire(100) == []
    assert not client.connection.closed
    assert len(client.connection.events(1)) == 1
