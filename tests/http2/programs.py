"""Programs for one connection: frames, bytes, answers and passing time, in any order."""

import os

from hypothesis import strategies as st

from authz.http2 import Cancelled, Event, GrpcStatus, Limits, Request
from authz.http2.faults import ErrorCode
from authz.http2.streams import ANSWERED, OPEN
from tests.http2 import wire
from tests.http2.wire import Client, frame, framed

LIMITS = Limits(
    streams=4,
    message=200,
    header_list=400,
    header_block=300,
    buffered=500,
    unsent=300,
    credit=40,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))


class Checked(Client):
    """A client that checks after every step what must hold, and answers in all ways there are."""

    def __init__(self) -> None:
        super().__init__(LIMITS, opened=False)
        self.take()
        self.asked: dict[int, Request[None]] = {}
        self.cancelled: set[int] = set()
        self.told: set[int] = set()  # with all that there is

    def step(self, sent: bytes) -> None:
        was_closed = self.connection.closed
        events = self.send(sent, most=2)
        if was_closed:
            assert events == []
            assert not self.connection._reader.unread
        self.watch(events)
        self.check()

    def watch(self, events: list[Event[None]]) -> None:
        for event in events:
            if isinstance(event, Cancelled):
                assert event.stream_id in self.asked
                assert event.stream_id not in self.cancelled | self.told
                self.cancelled.add(event.stream_id)
            else:
                assert event.stream_id & 1
                assert event.stream_id not in self.asked
                assert len(event.message) <= LIMITS.message
                assert event.head.path
                assert event.head.refusal is None
                self.asked[event.stream_id] = event

    def answer(self, how: int) -> None:
        """Answer one that was asked, or one that was not."""
        waiting = sorted(self.asked.keys() - self.told - self.cancelled)
        stream_id = waiting[how % len(waiting)] if waiting and how % 7 else how
        connection = self.connection
        size = how * 13 % 150
        match how % 4:
            case 0:
                connection.send(stream_id, b"s" * size)
                if not connection.closed:
                    self.take()
                    self.check()
                    return
            case 1:
                connection.fail(stream_id, GrpcStatus.NOT_FOUND, "n" * size)
            case 2:
                connection.finish(stream_id)
            case _:
                connection.respond(stream_id, b"r" * size)
        if stream_id in self.asked:
            self.told.add(stream_id)
        self.take()
        self.check()

    def check(self) -> None:
        connection = self.connection
        receiver, sender = connection._receiver, connection._sender
        streams = connection._streams
        assert not connection._output
        assert len(streams) <= LIMITS.streams
        assert streams.held == sum(one.held for one in streams.values())
        assert receiver.held == sum(len(part.data) for part in receiver.parts.values())
        assert receiver.held <= LIMITS.buffered
        assert receiver.parts.keys() <= {n for n, one in streams.items() if one.phase is OPEN}
        assert 0 <= receiver._taken < receiver.window
        assert sender.unsent == sum(len(one.unsent) for one in sender._waiting.values())
        assert sender.unsent <= LIMITS.unsent
        assert all(one.unsent for one in sender._waiting.values())
        answered = {n for n, one in streams.items() if one.phase is ANSWERED}
        assert answered <= sender._waiting.keys() <= streams.keys()
        decoder = connection._decoder
        assert decoder._size == sum(one.size for one in decoder._table[62:]) <= 4096
        assert connection._reader.unread <= 16_384 + 9 or connection.has_more
        if connection._unfinished is not None:
            assert len(connection._unfinished.block) <= LIMITS.header_block + 16_384
        for stream_id, answer in self.answers.items():
            if answer.blocks and stream_id not in self.asked:  # nobody said OK to this
                assert dict(answer.blocks[0]).get("grpc-status") != "0"
                assert not answer.data
        if connection.closed:
            assert connection.fault is not None
            assert isinstance(connection.fault.code, ErrorCode)
            assert not streams
            assert len(self.goaways) >= 1


kinds = st.one_of(st.integers(0, 10), st.integers(0, 255))

ids = st.one_of(st.integers(0, 9), st.sampled_from([1, 3, 5, 7, 11, 0x7FFFFFFF, 0x80000001]))

codes = st.integers(0, 15)

blocks = st.one_of(
    st.sampled_from(
        [
            b"\x83\x86\x04\x02/a\x0f\x10\x10application/grpc",
            b"\x83\x86\x44\x02/a\x5f\x10application/grpc",
            b"\x83\x86\x44\x02/a\x5f\x10application/grpc\x0f\x0d\x017",
            b"\x83\x86\xbf\xbe",
            b"\x83\x86\xbe\xbf",
            b"\x20\x3f\xe1\x1f\x83\x86\x84",
            b"\x82\x86\x84",
            b"\x40\x01a\x01b",
            b"\x00\x0agrpc-hello\x01b",
            b"",
        ]
    ),
    st.binary(max_size=40),
)

messages = st.one_of(
    st.binary(max_size=60).map(framed),
    st.just(framed(b"ab")),
    st.integers(190, 210).map(lambda n: framed(b"m" * n)),
    st.binary(max_size=300),
)


def pads(payloads: st.SearchStrategy[bytes]) -> st.SearchStrategy[tuple[int, bytes]]:
    return st.one_of(
        payloads.map(lambda payload: (0, payload)),
        st.builds(
            lambda payload, pad, lie: (8, bytes(((pad + lie) % 256,)) + payload + bytes(pad)),
            payloads,
            st.integers(0, 20),
            st.sampled_from([0, 0, 0, 1, 100]),
        ),
    )


frames = st.one_of(
    st.builds(
        lambda flags, n, pad: frame(0, flags | pad[0], n, pad[1]),
        st.sampled_from([0, 1, 1]),
        ids,
        pads(messages),
    ),
    st.builds(
        lambda flags, n, pad: frame(1, flags | pad[0], n, pad[1]),
        st.sampled_from([0, 1, 4, 4, 4, 5, 5]),
        ids,
        pads(blocks),
    ),
    st.builds(
        lambda n, on, block: frame(1, 0x24, n, on.to_bytes(4, "big") + b"\0" + block),
        ids,
        ids,
        blocks,
    ),
    st.builds(lambda n, on: frame(2, 0, n, on.to_bytes(4, "big") + b"\0"), ids, ids),
    st.builds(wire.rst, ids, codes),
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([0, 1, 5, 20, 100, 16_384, 2**31 - 1, 2**31])),
        max_size=3,
    ).map(wire.settings),
    st.just(frame(4, 1)),
    st.builds(wire.ping, st.binary(min_size=8, max_size=8), st.integers(0, 1)),
    st.builds(wire.goaway, codes),
    st.builds(
        wire.window_update,
        ids,
        st.sampled_from([0, 1, 2, 7, 50, 65_535, 2**31 - 65_536, 2**31 - 1]),
    ),
    st.builds(lambda flags, n, block: frame(9, flags, n, block), st.integers(0, 4), ids, blocks),
    st.builds(frame, kinds, st.integers(0, 255), ids, st.binary(max_size=30)),
)

calls = st.builds(  # in order, so that more happens
    lambda n, message: (
        frame(1, 4, n, b"\x83\x86\x04\x02/a\x0f\x10\x10application/grpc") + frame(0, 1, n, message)
    ),
    st.sampled_from([1, 3, 5, 7, 9, 11, 13]),
    st.binary(max_size=60).map(framed),
)

Action = tuple[str, bytes | int]

actions = st.lists(
    st.one_of(
        st.tuples(st.just("send"), frames),
        st.tuples(st.just("send"), calls),
        st.tuples(st.just("send"), st.lists(st.one_of(frames, calls), max_size=4).map(b"".join)),
        st.tuples(st.just("answer"), st.integers(0, 99)),
        st.tuples(st.just("expire"), st.integers(0, 9)),
        st.tuples(st.just("wait"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["announce", "end"]), st.just(0)),
    ),
    max_size=40,
)


def act(client: Checked, what: str, value: bytes | int) -> None:
    if isinstance(value, bytes):
        client.step(value)
    elif what == "answer":
        client.answer(value)
    elif what == "expire":
        client.watch(client.connection.expire(client.now - value))
    elif what == "wait":
        client.now += value
    elif what == "announce":
        client.connection.announce_end()
    else:
        client.connection.end()
    client.take()
    client.check()
