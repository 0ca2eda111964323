"""Whole conversations with the `h2` package as the client: it speaks the protocol by itself."""

import itertools
from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.http2 import Cancelled, Connection, GrpcStatus, Limits, Request
from tests.http2.wire import CHECK, FIELDS, framed

Fields = list[tuple[str, str]]


class Client:
    """An `h2` client, and the connection that serves it. Answers come from `answer`."""

    def __init__(
        self,
        answer: Callable[[Request[None]], bytes | None],
        limits: Limits | None = None,
        cuts: list[int] | None = None,
        initial: dict[SettingCodes, int] | None = None,
        *,
        greedy: bool = True,
    ) -> None:
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.local_settings = h2.settings.Settings(
            client=True, initial_values={SettingCodes.ENABLE_PUSH: 0, **(initial or {})}
        )
        self.served: Connection[None] = Connection(limits or Limits(), 0)
        self.answer = answer
        self.cuts = cuts or []
        self.greedy = greedy  # takes data as soon as it comes
        self.asked: dict[int, Request[None]] = {}
        self.cancelled: list[int] = []
        self.headers: dict[int, Fields] = {}
        self.data: dict[int, bytes] = {}
        self.trailers: dict[int, Fields] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaways: list[h2.events.ConnectionTerminated] = []
        self.h2.initiate_connection()
        self.run()

    def run(self) -> None:
        """Until neither side has anything to say."""
        while True:
            sent, answered = self.h2.data_to_send(), self.served.output()
            if not sent and not answered:
                return
            for event in self.h2.receive_data(answered):
                self._note(event)
            for piece in self._pieces(sent):
                self.served.feed(piece, 0)
                self._serve()

    def _pieces(self, sent: bytes) -> list[bytes]:
        edges = sorted({0, len(sent), *(cut for cut in self.cuts if cut < len(sent))})
        return [sent[start:end] for start, end in itertools.pairwise(edges)]

    def _serve(self) -> None:
        more = True
        while more:
            events = self.served.events(3)
            more = self.served.has_more
            for event in events:
                if isinstance(event, Cancelled):
                    self.cancelled.append(event.stream_id)
                    continue
                assert event.stream_id not in self.asked
                self.asked[event.stream_id] = event
                answer = self.answer(event)
                if answer is None:
                    self.served.fail(event.stream_id, GrpcStatus.UNIMPLEMENTED, "no such: 100 %")
                else:
                    self.served.respond(event.stream_id, answer)

    def _note(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.headers[event.stream_id] = [(str(n), str(v)) for n, v in event.headers]
        elif isinstance(event, h2.events.DataReceived):
            self.data[event.stream_id] = self.data.get(event.stream_id, b"") + event.data
            if self.greedy and event.flow_controlled_length:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.trailers[event.stream_id] = [(str(n), str(v)) for n, v in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            assert event.stream_id not in self.ended
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code)
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.goaways.append(event)

    def ask(
        self,
        message: bytes,
        fields: Fields | None = None,
        *,
        frame: int = 16_384,
        pad: int | None = None,
        trailers: bool = False,
    ) -> int:
        """Send a whole request, as fast as the windows allow."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, fields or list(FIELDS))
        rest = framed(message)
        while rest:
            window = self.h2.local_flow_control_window(stream_id) - (0 if pad is None else pad + 1)
            size = min(frame, window, len(rest))
            assert size > 0, "the window is never given back"
            piece, rest = rest[:size], rest[size:]
            self.h2.send_data(
                stream_id, piece, end_stream=not rest and not trailers, pad_length=pad
            )
            if stream_id not in self.h2.streams or rest:
                self.run()
        if trailers:
            self.h2.send_headers(stream_id, [("a", "b")], end_stream=True)
        return stream_id

    def answered(self, stream_id: int, message: bytes) -> None:
        assert self.headers[stream_id] == [(":status", "200"), ("content-type", "application/grpc")]
        assert self.data[stream_id] == framed(message)
        assert self.trailers[stream_id] == [("grpc-status", "0")]
        assert stream_id in self.ended
        assert stream_id not in self.resets


def echo(request: Request[None]) -> bytes | None:
    return request.message[::-1] if request.head.path == CHECK else None


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=8),
    st.lists(st.integers(1, 400), max_size=20),
)
def test_requests_are_answered_however_their_bytes_come(
    messages: list[bytes], cuts: list[int]
) -> None:
    client = Client(echo, cuts=cuts)
    asked = [client.ask(message) for message in messages]
    client.run()
    for stream_id, message in zip(asked, messages, strict=True):
        client.answered(stream_id, message[::-1])
    assert client.served.open_streams == 0


def test_every_boundary() -> None:
    for cut in range(1, 400):
        client = Client(echo, cuts=[cut])
        asked = [client.ask(b"first", pad=3), client.ask(b"second", frame=4, trailers=True)]
        client.run()
        client.answered(asked[0], b"tsrif")
        client.answered(asked[1], b"dnoces")


def test_byte_by_byte() -> None:
    client = Client(echo, cuts=list(range(2000)))
    asked = client.ask(b"x" * 1000, pad=100)
    client.run()
    client.answered(asked, b"x" * 1000)


@settings(max_examples=60)
@given(
    st.integers(0, 65_536),
    st.integers(1, 16_384),
    st.one_of(st.none(), st.integers(0, 255)),
    st.booleans(),
)
def test_requests_of_any_size_and_shape(
    size: int, frame: int, pad: int | None, trailers: bool
) -> None:
    frame = min(max(frame, size // 60), 16_384 - 256)
    client = Client(echo)
    message = bytes(n % 251 for n in range(size))
    asked = client.ask(message, frame=frame, pad=pad, trailers=trailers)
    client.run()
    client.answered(asked, message[::-1])
    assert client.served._receiver.held == 0


@settings(max_examples=60)
@given(
    st.integers(0, 3000),
    st.sampled_from([0, 1, 5, 100, 1000, 65_535, 2**31 - 1]),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3000)), max_size=6),
    st.integers(1, 2000),
)
def test_windows_of_any_size(
    size: int, window: int, changes: list[tuple[bool, int]], step: int
) -> None:
    client = Client(
        lambda _: b"y" * size,
        initial={SettingCodes.INITIAL_WINDOW_SIZE: window},
        greedy=False,
    )
    asked = [client.ask(b"a"), client.ask(b"b")]
    client.run()  # h2 fails if more comes than its windows allow
    for by_settings, value in changes:
        if by_settings:
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: value})
        elif asked[0] not in client.ended and value:
            client.h2.increment_flow_control_window(value, asked[0])
        client.run()
    for stream_id in asked:
        while stream_id not in client.ended:
            client.h2.increment_flow_control_window(max(step, size // 100), stream_id)
            client.run()
        client.answered(stream_id, b"y" * size)
    assert client.served.open_streams == 0
    assert client.served._sender.unsent == 0


def test_answers_larger_than_all_windows() -> None:
    client = Client(lambda _: b"y" * 300_000, Limits(unsent=2_000_000))
    asked = [client.ask(b"a") for _ in range(4)]
    client.run()
    for stream_id in asked:
        client.answered(stream_id, b"y" * 300_000)


def test_a_connection_that_lives_long() -> None:
    client = Client(echo)
    for n in range(2000):
        fields = [*FIELDS, ("traceparent", f"00-{n:032}-{n:016}-01"), ("x-n", str(n % 7))]
        asked = client.ask(b"message %d" % n, fields)
        client.run()
        client.answered(asked, (b"message %d" % n)[::-1])
        assert client.asked[asked].head.metadata == tuple(fields[4:])
        for kept in (client.data, client.headers, client.trailers, client.asked):
            kept.clear()


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"x-[a-z0-9]{1,8}", fullmatch=True),
            st.from_regex(r"[!-~]([ -~]{0,40}[!-~])?", fullmatch=True),
        ),
        max_size=10,
    )
)
def test_metadata_comes_as_it_was_sent(more: Fields) -> None:
    client = Client(echo)
    for _ in range(2):
        asked = client.ask(b"a", [*FIELDS, *more])
        client.run()
        assert client.asked[asked].head.metadata == (*FIELDS[4:], *more)


def test_metadata_over_several_frames() -> None:
    client = Client(echo, Limits(header_list=60_000))
    more = [(f"x-{n}", "".join(chr(33 + (n * i) % 90) for i in range(900))) for n in range(40)]
    asked = client.ask(b"a", [*FIELDS, *more])
    client.run()
    client.answered(asked, b"a")
    assert client.asked[asked].head.metadata == (*FIELDS[4:], *more)


def test_a_header_list_that_is_too_large_costs_its_request_alone() -> None:
    client = Client(echo)
    more = [(f"x-{n}", "z" * 900) for n in range(40)]
    large = client.ask(b"a", [*FIELDS, *more])
    other = client.ask(b"a", [*FIELDS, more[39]])  # from the table
    client.run()
    assert client.headers[large] == [(":status", "431")]
    client.answered(other, b"a")


@pytest.mark.parametrize("size", [0, 100, 4096, 65_536])
def test_a_client_with_another_table_size(size: int) -> None:
    client = Client(echo, initial={SettingCodes.HEADER_TABLE_SIZE: size})
    for _ in range(3):
        asked = client.ask(b"a")
        client.run()
        client.answered(asked, b"a")
    for other in (0, 4096, 10):
        client.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: other})
        asked = client.ask(b"a")
        client.run()
        client.answered(asked, b"a")


def test_a_method_that_is_not_there() -> None:
    client = Client(echo)
    asked = client.ask(b"a", [*FIELDS[:2], (":path", "/none"), *FIELDS[3:]])
    client.run()
    assert dict(client.headers[asked])["grpc-status"] == "12"
    assert dict(client.headers[asked])["grpc-message"] == "no such: 100 %25"
    assert asked in client.ended


def test_pings_resets_and_priorities() -> None:
    client = Client(echo)
    client.h2.ping(b"12345678")
    asked = client.h2.get_next_available_stream_id()
    client.h2.send_headers(asked, list(FIELDS), priority_weight=5, priority_depends_on=7)
    client.h2.prioritize(asked, weight=16, depends_on=9, exclusive=True)
    client.run()
    client.h2.reset_stream(asked, 8)
    client.run()
    assert client.cancelled == []
    assert client.served.open_streams == 0
    other = client.ask(b"a")
    client.run()
    client.answered(other, b"a")


def test_leaving_in_two_steps() -> None:
    client = Client(echo)
    client.served.announce_end()
    client.run()
    assert [one.last_stream_id for one in client.goaways] == [2**31 - 1]
    client.served.end()
    assert client.served.done
    client.run()
    assert [one.last_stream_id for one in client.goaways] == [2**31 - 1, 0]


def test_a_client_that_leaves() -> None:
    client = Client(echo)
    asked = client.ask(b"a")
    client.run()
    client.h2.close_connection()
    client.run()
    client.answered(asked, b"a")
    assert client.served.done
    assert not client.served.closed
