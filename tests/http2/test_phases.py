"""The phases of a stream: every entry of the table is played, and nothing happens beside it."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.http2 import GrpcStatus
from authz.http2.faults import ConnectionFault
from authz.http2.settings import INITIAL_WINDOW_SIZE
from authz.http2.streams import TABLE, Phase, Row, Wrong
from tests.http2 import wire
from tests.http2.programs import EXAMPLES, Action, Checked, act, actions
from tests.http2.wire import (
    BLOCK,
    END_HEADERS,
    END_STREAM,
    Client,
    data,
    framed,
    rst,
    window_update,
)

TRAILERS = b"\x00\x01a\x01b"


def headers(stream_id: int, flags: int = 0, block: bytes = BLOCK) -> bytes:
    return wire.frame(wire.HEADERS, END_HEADERS | flags, stream_id, block)


def whole(stream_id: int) -> bytes:
    return headers(stream_id) + data(stream_id, framed(b"m"))


def ours(client: Client) -> int:
    return 2


def idle(client: Client) -> int:
    return 9


def late(client: Client) -> int:
    client.connection.end()
    return 9


def unfinished(client: Client) -> int:
    client.send(headers(5), data(5, framed(b"m"), 0))
    return 5


def asked(client: Client) -> int:
    client.send(whole(5))
    return 5


def answering(client: Client) -> int:
    client.connection.send(asked(client), b"one")
    return 5


def answered(client: Client) -> int:
    client.connection.respond(asked(client), b"all")
    return 5


def closed(client: Client) -> int:
    client.connection.fail(asked(client), GrpcStatus.INTERNAL, "")
    return 5


def reset(client: Client) -> int:
    client.send(headers(5), headers(5))
    return 5


def unused(client: Client) -> int:
    client.send(headers(5))
    return 3


INTO: dict[Phase, Callable[[Client], int]] = {
    Phase.OURS: ours,
    Phase.IDLE: idle,
    Phase.LATE: late,
    Phase.OPEN: unfinished,
    Phase.ASKED: asked,
    Phase.ANSWERING: answering,
    Phase.ANSWERED: answered,
    Phase.CLOSED: closed,
    Phase.RESET: reset,
    Phase.UNUSED: unused,
}
"""How a stream comes to be in a phase, while the client lets no answer through: its id."""


def in_phase(phase: Phase) -> tuple[Client, int]:
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    stream_id = INTO[phase](client)
    client.take()
    client.frames.clear()
    assert client.connection._streams.phase_of(stream_id) is phase
    return client, stream_id


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("frame", "make"),
    [
        ("headers", headers),
        ("last_headers", lambda n: headers(n, END_STREAM, BLOCK if n == 9 else TRAILERS)),
        ("data", lambda n: data(n, b"", 0)),
        ("last_data", lambda n: data(n, b"")),
        ("rst_stream", rst),
        ("window_update", lambda n: window_update(n, 1)),
    ],
)
def test_every_entry_for_a_frame(phase: Phase, frame: str, make: Callable[[int], bytes]) -> None:
    client, stream_id = in_phase(phase)
    client.send(make(stream_id))
    then = getattr(TABLE[phase], frame)
    if isinstance(then, Wrong) and then.fault is ConnectionFault:
        assert client.failed() == then.code
        return
    assert client.failed() is None
    assert client.resets() == ({stream_id: then.code} if isinstance(then, Wrong) else {})
    if phase is Phase.IDLE and frame == "last_headers":
        then = Phase.CLOSED  # such a request holds no message, which is answered at once
    expected = Phase.RESET if isinstance(then, Wrong) else then
    assert client.connection._streams.phase_of(stream_id) is expected


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("what", ["message", "end"])
def test_every_entry_for_an_answer(phase: Phase, what: str) -> None:
    client, stream_id = in_phase(phase)
    if what == "message":
        client.connection.send(stream_id, b"two")
    else:
        client.connection.finish(stream_id)
    client.take()
    then = getattr(TABLE[phase], what) or phase
    if phase is Phase.ASKED and what == "end":
        then = Phase.CLOSED  # without a message there is nothing that waits
    assert client.connection._streams.phase_of(stream_id) is then
    assert bool(client.frames) == (
        phase is Phase.ASKED
    )  # the head; the window is closed for others


IDS = range(1, 20)
BESIDE = {
    (Phase.IDLE, Phase.UNUSED),  # a higher one was used
    (Phase.LATE, Phase.UNUSED),
    (Phase.OPEN, Phase.RESET),  # too much is held, or too long
    (Phase.ANSWERED, Phase.CLOSED),  # the window of the connection, or of all streams
    (Phase.ANSWERING, Phase.RESET),  # it waits for too long
    (Phase.ANSWERED, Phase.RESET),
}
"""What may happen to a stream without a frame on it."""
GIVEN = {(Phase.IDLE, Phase.LATE)} | {
    (phase, then)
    for phase in (Phase.ASKED, Phase.ANSWERING)
    for then in (Phase.ANSWERING, Phase.ANSWERED, Phase.CLOSED)
}
"""What may happen by what we do."""


def phases(client: Client) -> list[Phase]:
    return [client.connection._streams.phase_of(stream_id) for stream_id in IDS]


def step_of(row: Row, kind: int, *, ends: bool) -> Phase | Wrong | None:
    """What the table says of a frame."""
    if kind in (wire.HEADERS, wire.CONTINUATION):
        return row.last_headers if ends else row.headers
    if kind == wire.DATA:
        return row.last_data if ends else row.data
    return {wire.RST_STREAM: row.rst_stream, wire.WINDOW_UPDATE: row.window_update}.get(kind)


def frames_of(sent: bytes) -> Iterator[bytes]:
    while sent:
        size = 9 + int.from_bytes(sent[:3], "big")
        yield sent[:size]
        sent = sent[size:]


def say(client: Checked, frame: bytes) -> None:
    """Send a frame, and hold what becomes of all streams against the table."""
    kind, flags = frame[3], frame[4]
    on = int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF
    unfinished = client.connection._unfinished
    ends = bool(flags & END_STREAM) if unfinished is None else unfinished.ends
    before = phases(client)
    client.step(frame)
    if client.connection.closed:
        return
    for stream_id, was, now in zip(IDS, before, phases(client), strict=True):
        step = step_of(TABLE[was], kind, ends=ends) if stream_id == on else None
        if step is None or client.connection._unfinished is not None:
            bad_priority = kind == wire.PRIORITY and stream_id == on and now is Phase.RESET
            assert was is now or (was, now) in BESIDE or bad_priority  # RFC 9113, 6.3
        elif isinstance(step, Wrong):
            assert step.fault is not ConnectionFault
            assert now is Phase.RESET
        else:  # wrong in another way, refused, or all is sent
            answered = step in (Phase.ASKED, Phase.ANSWERED)
            assert now in (step, Phase.RESET) or (now is Phase.CLOSED and answered)


@settings(max_examples=EXAMPLES)
@given(actions, st.sampled_from([0, 7, 65_535]))
def test_no_sequence_leaves_the_table(steps: list[Action], window: int) -> None:
    client = Checked()
    client.step(wire.PREFACE + wire.settings({INITIAL_WINDOW_SIZE: window}))
    for what, value in steps:
        if isinstance(value, bytes):
            for frame in frames_of(value):
                say(client, frame)
        else:
            before = phases(client)
            act(client, what, value)
            changes = {
                pair for pair in zip(before, phases(client), strict=True) if len({*pair}) > 1
            }
            assert client.connection.closed or changes <= BESIDE | GIVEN
