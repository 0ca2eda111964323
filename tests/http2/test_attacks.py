"""Attacks on a connection, each with the bound that held.

What is bounded: how many frames that no request needs are read before the connection ends, how many
streams are open, how many bytes are kept, and how much work a byte can cause.
"""

import itertools
import math
import sys
import time
from collections.abc import Callable

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hyperframe.frame import DataFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.http2 import Cancelled, GrpcStatus, Limits, Request
from authz.http2.budget import PER_ANSWER, PER_SECOND
from authz.http2.connection import FRAMES, WORK
from authz.http2.hpack import TABLE_SIZE, Block, Decoder
from authz.http2.request_head import Field
from authz.http2.settings import INITIAL_WINDOW_SIZE
from authz.http2.streams import CLOSED, RESET, STREAM_BYTES, Streams
from tests.http2 import wire
from tests.http2.wire import (
    BLOCK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FIELDS,
    FRAME_SIZE_ERROR,
    HAS_PRIORITY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    Client,
    data,
    frame,
    framed,
    goaway,
    ping,
    rst,
    window_update,
)

CREDIT = Limits().credit


def open_stream(stream_id: int, flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream_id, BLOCK)


def ask(stream_id: int) -> bytes:
    return open_stream(stream_id) + data(stream_id, framed(b"a"))


LARGE_ENTRY = b"\x40\x01a\x7f\xa1\x1e" + b"v" * 4000
"""A literal that fills the table."""


def odd() -> "itertools.count[int]":
    return itertools.count(1, 2)


def sent_until_closed(client: Client, frames: Callable[[], bytes], most: int = 20_000) -> int:
    """How many times the client may send this."""
    for count in range(most):
        client.send(frames())
        if client.connection.closed:
            assert client.failed() == ENHANCE_YOUR_CALM
            return count
    return most


# -- floods: whoever only costs is cut off after as many frames as there is credit


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(ping(), id="PING"),
        pytest.param(ping(flags=1), id="PING that answers nothing"),
        pytest.param(wire.settings(), id="SETTINGS"),
        pytest.param(wire.settings([(INITIAL_WINDOW_SIZE, 7)] * 2730), id="large SETTINGS"),
        pytest.param(frame(SETTINGS, 1), id="SETTINGS that answer nothing"),
        pytest.param(frame(PRIORITY, 0, 1, bytes(5)), id="PRIORITY"),
        pytest.param(frame(PRIORITY, 0, 99, bytes(5)), id="PRIORITY of idle streams"),
        pytest.param(data(1, b"", 0), id="empty DATA"),
        pytest.param(data(1, b"\0", PADDED), id="DATA of padding"),
        pytest.param(data(1, b"x", 0), id="DATA of a byte"),
        pytest.param(data(1, b"\xffx" + bytes(255), PADDED), id="DATA of a byte and padding"),
        pytest.param(window_update(0, 1), id="WINDOW_UPDATE of the connection"),
        pytest.param(window_update(1, 1), id="WINDOW_UPDATE of a stream"),
        pytest.param(frame(0xFF), id="unknown frames"),
        pytest.param(frame(0xFF, 0, 1, bytes(16_384)), id="large unknown frames"),
        pytest.param(goaway(), id="GOAWAY"),
    ],
)
def test_floods(flood: bytes) -> None:
    client = Client()
    client.send(open_stream(1))
    assert CREDIT - 5 <= sent_until_closed(client, lambda: flood) <= CREDIT


def least(*work: Callable[[], object]) -> list[float]:
    """Seconds of the processor that each of these takes at best, side by side."""
    best = [math.inf] * len(work)
    for _ in range(5):
        for number, one in enumerate(work):
            start = time.thread_time()
            one()
            best[number] = min(best[number], time.thread_time() - start)
    return best


def test_a_flood_costs_no_more_than_it_sends() -> None:
    """SETTINGS that change every window 2730 times cost the same with one stream and with 1000."""
    flood = wire.settings([(INITIAL_WINDOW_SIZE, n) for n in range(2730)])
    few, many = Client(), Client()
    few.send(open_stream(1))
    many.send(*(open_stream(n) for n in range(1, 2000, 2)))
    one, thousand = least(lambda: few.send(flood), lambda: many.send(flood))
    assert thousand < 5 * one  # each changed one by one: a hundred times as much


# -- resets


@pytest.mark.parametrize("request_", [open_stream, ask])
def test_rapid_reset_cve_2023_44487(request_: Callable[[int], bytes]) -> None:
    """Streams opened and reset at once do not count as open; so they are counted otherwise."""
    ids, client = odd(), Client()
    assert sent_until_closed(client, lambda: request_(n := next(ids)) + rst(n)) == CREDIT - 1
    assert client.connection.open_streams == 0


def test_rapid_reset_among_answered_requests() -> None:
    """A request that is answered pays for some resets, no more."""
    ids, client = odd(), Client()

    def burst() -> bytes:
        client.respond()
        return b"".join(open_stream(n) + rst(n) for n in itertools.islice(ids, 20)) + ask(next(ids))

    assert sent_until_closed(client, burst) < CREDIT / (20 - PER_ANSWER) + 2


@pytest.mark.parametrize(
    ("provoke", "code"),
    [
        pytest.param(lambda n: window_update(n, 0), PROTOCOL_ERROR, id="WINDOW_UPDATE by nothing"),
        pytest.param(lambda n: window_update(n, 0x7FFFFFFF), 3, id="window overflow"),
        pytest.param(lambda n: frame(PRIORITY, 0, n, b""), FRAME_SIZE_ERROR, id="short PRIORITY"),
        pytest.param(
            lambda n: frame(PRIORITY, 0, n, n.to_bytes(4, "big") + b"\0"),
            PROTOCOL_ERROR,
            id="PRIORITY on itself",
        ),
        pytest.param(lambda n: data(n, b"x"), STREAM_CLOSED, id="DATA after the end"),
        pytest.param(open_stream, STREAM_CLOSED, id="HEADERS after the end"),
    ],
)
def test_made_you_reset_cve_2025_8671(provoke: Callable[[int], bytes], code: int) -> None:
    """Requests under way that the client makes the server reset count like its own resets."""
    ids, client = odd(), Client()
    count = sent_until_closed(client, lambda: ask(n := next(ids)) + provoke(n))
    assert CREDIT / 2 - 1 <= count <= CREDIT
    assert client.connection.open_streams == 0
    assert set(client.resets().values()) == {code}
    assert sum(isinstance(event, Cancelled) for event in client.events) == len(client.resets())


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(
            lambda n: frame(HEADERS, END_HEADERS | END_STREAM, n, b"\x82"), id="malformed"
        ),
        pytest.param(
            lambda n: open_stream(n) + frame(HEADERS, END_HEADERS, n, b"\x82"), id="amid the data"
        ),
        pytest.param(
            lambda n: (
                frame(HEADERS, END_HEADERS, n, BLOCK + b"\x0f\x0d\x019") + data(n, framed(b"a"))
            ),
            id="content-length",
        ),
        pytest.param(
            lambda n: open_stream(n) + data(n, b"\0\0\1\0\1" + b"x" * 16_000, 0) * 5,
            id="too large",
        ),
    ],
)
def test_requests_that_must_be_reset_are_counted(request_: Callable[[int], bytes]) -> None:
    ids, client = odd(), Client()
    assert CREDIT / 2 - 1 <= sent_until_closed(client, lambda: request_(next(ids))) <= CREDIT
    assert client.connection._receiver.held == 0


def test_refused_streams_are_counted() -> None:
    client = Client(Limits(streams=10))
    client.send(*(open_stream(n) for n in range(1, 20, 2)))
    ids = itertools.count(21, 2)
    assert sent_until_closed(client, lambda: open_stream(next(ids))) == CREDIT - 1
    assert set(client.resets().values()) == {REFUSED_STREAM}


def test_resets_of_answered_streams_are_free() -> None:
    """Envoy resets what timed out, also when the answer is on its way to it."""
    ids, client = odd(), Client()
    for _ in range(50):
        asked = list(itertools.islice(ids, 100))
        client.send(*(ask(n) for n in asked))
        client.respond()
        client.send(*(rst(n) for n in asked))
    assert not client.connection.closed
    assert client.alive()


def test_a_storm_of_resets_after_answers_is_free() -> None:
    """An Envoy that stood still for a moment gives up all that was answered meanwhile, at once."""
    ids, client, answered = odd(), Client(), []
    for _ in range(5):
        asked = list(itertools.islice(ids, CREDIT))
        client.send(*(ask(n) for n in asked))
        client.respond()
        answered += asked
    client.send(*(rst(n) for n in answered))
    assert not client.connection.closed
    assert client.alive()


def test_resets_of_answered_streams_are_free_once() -> None:
    client = Client()
    client.send(ask(1))
    client.respond()
    assert sent_until_closed(client, lambda: rst(1)) <= CREDIT + 2


def test_under_load_some_timeouts_do_not_matter() -> None:
    """For an hour, a third of the requests is reset before it is answered."""
    ids, client = odd(), Client()
    for second in range(3600):
        client.now = second
        asked = list(itertools.islice(ids, 9))
        client.send(*(ask(n) for n in asked), *(rst(n) for n in asked[::3]))
        client.respond()
        client.frames.clear()
        client.answers.clear()
    assert not client.connection.closed


def test_where_many_share_a_connection_the_resets_of_one_end_it_for_nobody() -> None:
    client = Client(Limits(resets_cost=False, message=10))
    ids = odd()
    for _ in range(3 * CREDIT):
        client.send(open_stream(n := next(ids)), rst(n))
        client.send(ask(n := next(ids)), rst(n))
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, next(ids), b"\x82"))  # malformed
        client.send(open_stream(n := next(ids)), data(n, b"x" * 100, 0), data(n, b"x" * 100, 0))
        client.events.clear()
        client.frames.clear()
        client.answers.clear()
    client.send(open_stream(n := next(ids)), data(n, b"\0" + bytes(70)))
    assert not client.connection.closed
    assert client.connection.open_streams == 0
    assert client.alive()


def test_where_many_share_a_connection_refused_requests_are_answers() -> None:
    client = Client(Limits(resets_cost=False))
    ids = odd()
    for _ in range(2 * CREDIT):
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, next(ids), b"\x83\x86\x84"))  # 415
        client.send(open_stream(next(ids), END_HEADERS | END_STREAM))  # no message
    assert client.alive()


# -- header blocks


def test_continuation_flood_cve_2024_27316() -> None:
    """A block that never ends is not kept beyond its limit, in however many frames it comes."""
    for size in (0, 1, 16, 1000, 16_384):
        client = Client()
        client.send(frame(HEADERS, 0, 1, BLOCK))
        fragment = frame(CONTINUATION, 0, 1, b"\x82" * size)
        count = sent_until_closed(client, itertools.repeat(fragment).__next__)
        assert count <= min(CREDIT, 65_536 // size + 1 if size else CREDIT)
        assert client.connection._unfinished is None


def test_a_header_list_too_large_costs_one_request() -> None:
    """In as few bytes as there can be: one large entry, named again and again."""
    client = Client()
    name = LARGE_ENTRY
    client.send(frame(HEADERS, END_HEADERS, 1, BLOCK + name))
    assert len(client.connection._decoder._table) == 63
    before = client.connection.open_streams
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, BLOCK + b"\xbe" * 200))
    assert client.answers[3].blocks == [[(":status", "431")]]
    assert client.connection.open_streams == before
    assert client.alive()


@pytest.mark.parametrize("field", [b"\xbe", b"\x51\x00", b"\x40\x01a\x00"])
def test_a_header_bomb_is_not_decoded_to_its_end(
    field: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """14 KB of empty fields took 8 ms, were answered 431, and that earned credit."""
    inserted: list[Field] = []
    insert = Decoder._insert

    def inserting(decoder: Decoder, field: Field) -> None:
        inserted.append(field)
        insert(decoder, field)

    monkeypatch.setattr(Decoder, "_insert", inserting)
    client = Client()
    client.send(frame(HEADERS, END_HEADERS, 1, BLOCK + LARGE_ENTRY))
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, BLOCK + field * 3500))
    assert client.failed() == ENHANCE_YOUR_CALM
    assert client.connection.limited == {"header_fields": 1}
    assert len(inserted) <= 1 + Limits().header_fields
    assert 3 not in client.answers


def test_one_call_decodes_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that are each a new one, and together far more than one turn should take."""
    decoded: list[int] = []
    decode = Decoder.decode

    def decoding(decoder: Decoder, encoded: bytes) -> Block:
        decoded.append(len(encoded))
        return decode(decoder, encoded)

    monkeypatch.setattr(Decoder, "decode", decoding)
    client, count = Client(), 30
    blocks = [BLOCK + b"\0\2%02d\0" % n + b"\x51\x00" * 200 for n in range(count)]
    sent = [
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, block) for n, block in enumerate(blocks)
    ]
    client.connection.feed(b"".join(sent), client.now)
    calls = 0
    while client.connection.has_more or not calls:
        decoded.clear()
        client.connection.events(100)
        assert sum(decoded) < WORK + len(blocks[0])
        calls += 1
    assert calls >= count / (WORK // len(blocks[0]) + 1)


def test_one_call_tells_few_large_messages() -> None:
    """Each may take milliseconds to answer: 15 that wait for their last byte, ended at once."""
    client, size, ids = Client(), 60_000, range(1, 31, 2)
    for n in ids:
        whole = framed(bytes(size))
        pieces = [whole[at : at + 16_000] for at in range(0, len(whole), 16_000)]
        client.send(frame(HEADERS, END_HEADERS, n, BLOCK), *(data(n, one, 0) for one in pieces))
    client.connection.feed(b"".join(data(n, b"") for n in ids), client.now)
    for n in ids:
        events = client.connection.events(100)
        assert [event.stream_id for event in events] == [n]


def test_what_is_refused_earns_nothing() -> None:
    """A 431 or 415 costs what it cost, and pays for no other frames; an answer does."""

    def refused(stream_id: int) -> bytes:
        return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, b"\x83\x86\x84")

    for what, ends in ((refused, True), (ask, False)):
        client, ids = Client(), odd()

        def burst(client: Client = client, what: Callable[[int], bytes] = what) -> bytes:
            client.respond()
            return what(next(ids)) + PER_ANSWER * ping()  # noqa: B023

        count = sent_until_closed(client, burst, most=2 * CREDIT)
        assert count == ((CREDIT - 1) // PER_ANSWER if ends else 2 * CREDIT)


def test_a_status_that_is_no_answer_earns_nothing_either() -> None:
    client, ids = Client(), odd()

    def burst() -> bytes:
        for event in client.events:
            if isinstance(event, Request):
                client.connection.fail(event.stream_id, GrpcStatus.UNIMPLEMENTED, "")
        client.events.clear()
        return ask(next(ids)) + PER_ANSWER * ping()

    assert sent_until_closed(client, burst) == (CREDIT - 1) // PER_ANSWER


def test_a_reset_may_cross_a_refusal_for_nothing() -> None:
    client, ids = Client(), odd()
    for _ in range(3 * CREDIT):
        n = next(ids)
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, n, b"\x83\x86\x84"), rst(n))
    assert client.alive()


@pytest.mark.parametrize(
    "useless",
    [
        pytest.param(window_update(0, 1), id="WINDOW_UPDATE of the connection"),
        pytest.param(wire.settings([(INITIAL_WINDOW_SIZE, 0)]), id="SETTINGS"),
        pytest.param(wire.settings(), id="empty SETTINGS"),
    ],
)
def test_frames_that_open_no_window_look_at_no_answer(
    useless: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each looked at all that wait: a thousand frames of 13 bytes took 70 ms."""
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    client.send(*(ask(n) for n in range(1, 2000, 2)))
    client.respond(b"x" * 100)
    assert client.connection.open_streams == 1000
    flushed: list[int] = []
    monkeypatch.setattr(client.connection._sender, "_flush", lambda n, *_: flushed.append(n))
    client.send(useless * 900)
    assert flushed == []
    client.send(wire.settings([(INITIAL_WINDOW_SIZE, 1)]))
    assert len(flushed) == 1000


def test_a_frame_that_opens_all_windows_ends_the_call() -> None:
    """However many there are: whoever calls looks at the clock between them."""
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    client.send(*(ask(n) for n in range(1, 2000, 2)))
    client.respond(b"x" * 100)
    count = 20
    opening = [wire.settings([(INITIAL_WINDOW_SIZE, n)]) for n in range(1, count + 1)]
    client.connection.feed(b"".join(opening), client.now)
    for n in range(count):
        client.connection.events(100)
        sent = [one for one in client.take() if isinstance(one, DataFrame)]
        assert len(sent) == 1000, n


def test_huffman_expands_by_less_than_two() -> None:
    """Of the shortest code alone, 16 KB in a frame are 26 KB in the list, which has a limit."""
    coded = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(b"0" * 26_000)
    literal = b"\0\1a" + bytes((0xFF,)) + leb(len(coded) - 127) + coded
    assert len(literal) < 16_384
    for limit, refused in ((16_384, True), (27_000, False)):
        client = Client(Limits(header_list=limit))
        client.send(frame(HEADERS, END_HEADERS, 1, BLOCK + literal))
        client.send(data(1, framed(b"a")))
        assert (client.events == []) == refused


@settings(max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.integers(0, TABLE_SIZE).map(
                lambda n: bytes((0x20 | n,)) if n < 31 else b"\x3f" + leb(n - 31)
            ),
            st.binary(max_size=300).map(lambda v: b"\x40\x01a" + length(v) + v),
        ),
        max_size=60,
    )
)
def test_table_size_games(steps: list[bytes]) -> None:
    """However the table is resized and filled, it is no larger than it may be."""
    client = Client()
    decoder = client.connection._decoder
    for stream_id, step in zip(odd(), steps, strict=False):
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, step))
        entries = decoder._table[62:]
        assert decoder._size == sum(entry.size for entry in entries) <= decoder._max_size
        assert decoder._max_size <= TABLE_SIZE
        assert len(decoder._remembered) <= 64


def leb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes((value,))


def length(text: bytes) -> bytes:
    return bytes((len(text),)) if len(text) < 127 else b"\x7f" + leb(len(text) - 127)


def test_resizing_the_table_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[int] = []
    monkeypatch.setattr(Decoder, "_evict", lambda _, size: resized.append(size))
    client = Client()
    block = b"\x3f\xe1\x1f\x20" * 4000 + b"\x82"
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
    assert len(resized) == Limits().header_fields
    assert client.connection.limited == {"header_fields": 1}


def test_what_is_remembered_is_little() -> None:
    client = Client()
    for n in range(5000):
        value = b"%05d" % n + b"x" * 90
        literal = b"\0\1a" + bytes((len(value),)) + value
        client.send(frame(HEADERS, END_HEADERS, 2 * n + 1, BLOCK + literal), rst(2 * n + 1))
        client.connection._budget._credit = 100
    remembered = client.connection._decoder._remembered
    assert len(remembered) <= 64
    assert sum(map(len, remembered)) <= 64 * 1024


# -- sizes


def test_oversized_frames_are_refused_before_they_come() -> None:
    for kind in range(12):
        client = Client()
        client.send((16_385).to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0, 0)))
        assert client.failed() == FRAME_SIZE_ERROR


def test_a_length_prefix_that_lies_reserves_nothing() -> None:
    client = Client()
    client.send(open_stream(1), data(1, b"\0\xff\xff\xff\xff" + b"x" * 100, 0))
    assert client.connection._receiver.held == 105
    client.send(data(1, b""))
    assert client.answers[1].status == "8"


@pytest.mark.parametrize("message", [10, 1000, 65_536])
def test_a_message_is_kept_up_to_its_limit(message: int) -> None:
    client = Client(Limits(message=message))
    client.send(open_stream(1))
    most = 0
    for _ in range(2000):
        if client.resets():
            break
        client.send(data(1, b"x" * 100, 0))
        most = max(most, client.connection._receiver.held)
    assert client.resets() == {1: NO_ERROR}
    assert client.answers[1].status == "8"
    assert most <= message + 5
    assert client.connection._receiver.held == 0


def test_data_that_comes_in_crumbs_takes_no_more_room() -> None:
    client = Client()
    client.send(open_stream(1), *(data(1, b"x" * 64, 0) for _ in range(1000)))
    (part,) = client.connection._receiver.parts.values()
    assert sys.getsizeof(part.data) < 2 * 64_000


# -- crowds


def test_half_open_crowds_leave_room_for_those_who_end() -> None:
    """Held data has a limit over all streams; the oldest goes first, those that end pass."""
    client = Client(Limits(resets_cost=False))
    ids = odd()
    for _ in range(3000):
        client.send(open_stream(n := next(ids)), data(n, b"x" * 16_000, 0))
        assert client.connection._receiver.held <= 1_048_576
        client.send(ask(next(ids)))
        assert len(client.events) == 1
        client.respond()
        client.frames.clear()
        client.answers.clear()
    assert client.connection.open_streams <= 1_048_576 // 16_000
    assert not client.connection.closed
    client.now = 10
    client.send(ask(next(ids)))
    client.connection.expire(5)
    client.take()
    assert client.connection.open_streams == 1
    assert client.connection._receiver.held == 0


def test_half_open_crowds_of_heads_are_limited_and_expire() -> None:
    client = Client(Limits(resets_cost=False, streams=100))
    client.send(*(open_stream(n) for n in range(1, 1000, 2)))
    assert client.connection.open_streams == 100
    assert sum(code == REFUSED_STREAM for code in client.resets().values()) == 400
    client.now = 10
    client.connection.expire(5)
    client.take()
    assert client.connection.open_streams == 0
    assert client.alive()


def test_crowds_that_expire_are_counted() -> None:
    client, ids = Client(), odd()
    for second in range(100):
        client.now = second
        client.send(*(open_stream(next(ids)) for _ in range(500)))
        client.connection.expire(second)
        client.take()
        if client.connection.closed:
            break
    assert client.failed() == ENHANCE_YOUR_CALM
    assert second <= 4


def test_what_was_reset_is_remembered_in_a_bounded_way() -> None:
    streams = Streams(300)
    for stream_id in range(1, 100_001, 4):
        streams.use(stream_id)
        streams.reset(stream_id)
        assert len(streams._reset) <= 300
        assert len(streams._skipped) <= 16
        assert streams.phase_of(stream_id) is RESET
    assert streams.phase_of(1) is RESET  # forgotten, so nobody is blamed
    streams.use(200_001)
    assert streams.phase_of(200_001) is CLOSED


def test_frames_on_many_reset_streams_blame_nobody_and_are_counted() -> None:
    """A thousand requests expire while their data is on its way: that is no fault."""
    client = Client(Limits(credit=5000))
    ids = [2 * n + 1 for n in range(1000)]
    client.send(*(open_stream(n) for n in ids))
    client.now = 10
    client.connection.expire(5)
    client.send(*(data(n, framed(b"late")) for n in ids))
    assert not client.connection.closed
    assert client.connection.open_streams == 0
    assert sent_until_closed(client, lambda: data(1, b"x", 0)) <= 5000


# -- peers that take nothing


def test_zero_windows_with_ever_more_requests() -> None:
    """Answers that wait have a limit in bytes, and their streams one in number."""
    client = Client(Limits(unsent=100_000), initial={INITIAL_WINDOW_SIZE: 0})
    for count in range(1, 2000, 2):
        client.send(ask(count))
        client.respond(b"x" * 1000)
        assert client.connection._sender.unsent <= 100_000 + 1005
        if client.connection.closed:
            break
    assert client.failed() == ENHANCE_YOUR_CALM
    assert count // 2 == 99
    assert client.connection._sender.unsent == 0
    assert not client.connection._streams


def test_zero_windows_fill_the_streams() -> None:
    client = Client(Limits(streams=50), initial={INITIAL_WINDOW_SIZE: 0})
    for count in range(1, 2000, 2):
        client.send(ask(count))
        client.respond()
        assert client.connection.open_streams <= 50
        if client.connection.closed:
            break
    assert sum(code == REFUSED_STREAM for code in client.resets().values()) == count // 2 - 50
    client.take()


def test_slow_readers_expire() -> None:
    """Who takes a byte at a time does not buy time."""
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    client.send(ask(1))
    client.respond(b"x" * 1000)
    for second in range(20):
        client.now = second
        client.send(window_update(1, 1))
        client.connection.expire(second - 10)
        client.take()
        if client.resets():
            break
    assert second == 11
    assert client.connection.open_streams == 0


def test_windows_do_not_overflow() -> None:
    client = Client()
    client.send(open_stream(1), *[window_update(1, 0x40000000)] * 2)
    assert client.resets() == {1: 3}
    client.send(*[window_update(0, 0x40000000)] * 2)
    assert client.failed() == 3


# -- bytes


@pytest.mark.parametrize("step", [1, 2, 7])
def test_dribbled_bytes_cost_in_proportion(step: int) -> None:
    """A frame of 16 KiB and one of a fourth, in crumbs: no more than so many times."""

    def dribble(size: int) -> None:
        sent = open_stream(1) + data(1, framed(b"x" * (size - 5)))
        connection = Client().connection
        for at in range(0, len(sent), step):
            connection.feed(sent[at : at + step], 0)
            events = connection.events(10)
        assert len(events) == 1

    small, large = least(lambda: dribble(4096), lambda: dribble(16_384))
    assert large < 12 * small


def test_bytes_that_are_not_read_are_no_more_than_a_frame() -> None:
    client = Client()
    sent = (ask(1) + frame(0xFF, 0, 0, bytes(16_384))) * 3
    for at in range(0, len(sent), 100):
        client.send(sent[at : at + 100])
        assert client.connection._reader.unread <= 16_384 + 9
        if client.connection.closed:
            break


def test_one_turn_reads_so_many_frames_and_no_more() -> None:
    """However much is fed at once, and whatever credit is left: the smallest frames there are."""
    client = Client(Limits(credit=100_000))
    flood = frame(0xFF) * 50_000
    client.connection.feed(flood, client.now)
    turns = 0
    before = client.connection._reader.unread
    while before:
        assert client.connection.events(1000) == []
        assert before - client.connection._reader.unread == min(FRAMES * 9, before)
        before = client.connection._reader.unread
        turns += 1
    assert turns == -(-50_000 // FRAMES)
    assert not client.connection.closed


def test_what_waits_is_counted_and_given_back() -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    assert client.connection.buffered == 0
    client.send(open_stream(1))
    opened = client.connection.buffered
    fields = ":methodPOST", ":schemehttp", ":path/a/b", "content-typeapplication/grpc"
    assert opened == STREAM_BYTES + 4 * sum(len(field) + 32 for field in fields)
    client.send(data(1, b"x" * 100, 0))
    assert client.connection.buffered == opened + 100
    client.send(ping()[:5])
    assert client.connection.buffered == opened + 105
    client.send(ping()[5:], rst(1))
    assert client.connection.buffered == 0
    client.send(ask(3))
    client.respond(b"y" * 1000)
    assert client.connection.buffered == opened + 1005
    client.send(window_update(3, 2000))
    assert client.connection.buffered == 0
    client.send(frame(HEADERS, 0, 5, BLOCK), frame(CONTINUATION, 0, 5, b"\x83"))
    assert client.connection.buffered == len(BLOCK) + 1
    client.now = 1
    client.connection.expire(1)
    assert client.connection.closed
    assert client.connection.buffered == 0


# -- the innocent


def test_a_connection_that_is_idle_for_days_is_not_asked_to_calm_down() -> None:
    """PING every ten seconds for a week, a request now and then."""
    client = Client()
    ids = odd()
    for tick in range(60_480):
        client.now = 10.0 * tick
        client.send(ping())
        if tick % 1000 == 0:
            client.send(ask(next(ids)), window_update(0, 5))
            client.respond()
        client.frames.clear()
        client.connection.expire(client.now - 5)
    assert not client.connection.closed


def test_a_client_that_pings_and_widens_for_each_request() -> None:
    client, ids = Client(), odd()
    for _ in range(3000):
        client.send(ask(n := next(ids)), ping(), window_update(0, 10))
        client.respond()
        client.send(window_update(n, 10))
        client.answers.clear()
        client.frames.clear()
    assert not client.connection.closed


def test_credit_comes_back_with_time() -> None:
    client = Client()
    for second in range(100):
        client.now = second
        client.send(*[ping()] * (PER_SECOND - 1))
        client.frames.clear()
    assert not client.connection.closed


def test_events_hold_only_whole_requests() -> None:
    client = Client()
    client.send(open_stream(1), data(1, framed(b"abc")[:-1], 0), open_stream(3))
    client.send(frame(HEADERS, END_HEADERS | HAS_PRIORITY, 5, bytes(5) + BLOCK))
    assert client.events == []
    client.send(data(1, b"c"))
    assert [event.message for event in client.events if isinstance(event, Request)] == [b"abc"]


def test_nothing_but_the_preface_opens_a_connection() -> None:
    client = Client(opened=False)
    for byte in PREFACE[:-1]:
        client.send(bytes((byte,)))
    assert not client.connection.closed
    client.send(b"?" + FIELDS[0][0].encode())
    assert client.failed() == PROTOCOL_ERROR
