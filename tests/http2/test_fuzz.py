"""Arbitrary bytes, and valid frames in any order: what holds whatever comes."""

import itertools

from hypothesis import example, given, settings
from hypothesis import strategies as st

from authz.http2 import Connection, Request
from tests.http2 import wire
from tests.http2.programs import (
    EXAMPLES,
    LIMITS,
    Action,
    Checked,
    act,
    actions,
    calls,
    frames,
)
from tests.http2.wire import PREFACE, frame


@settings(max_examples=EXAMPLES)
@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_any_bytes(pieces: list[bytes], opened: bool) -> None:
    client = Checked()
    if opened:
        client.step(PREFACE + wire.settings())
    for piece in pieces:
        client.step(piece)


@settings(max_examples=EXAMPLES)
@given(actions, st.sampled_from([0, 7, 65_535]))
@example([("send", wire.ping()), ("send", frame(6)), ("end", 0), ("answer", 3)], 0)
def test_valid_frames_in_any_order(steps: list[Action], window: int) -> None:
    client = Checked()
    client.step(PREFACE + wire.settings({4: window}))
    for what, value in steps:
        act(client, what, value)


@settings(max_examples=EXAMPLES // 3)
@given(st.lists(st.one_of(frames, calls), max_size=20), st.lists(st.integers(1, 600), max_size=8))
def test_pieces_make_no_difference(sent: list[bytes], cuts: list[int]) -> None:
    whole = PREFACE + wire.settings() + b"".join(sent)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})

    def run(pieces: list[bytes]) -> tuple[list[object], bytes]:
        connection: Connection[None] = Connection(LIMITS, 0)
        told: list[object] = []
        for piece in pieces:
            connection.feed(piece, 0)
            for event in connection.events(1000):
                if isinstance(event, Request):
                    told.append((event.stream_id, event.head.metadata, event.message))
                else:
                    told.append(event)
        return told, connection.output()

    assert run([whole]) == run([whole[a:b] for a, b in itertools.pairwise(edges)])
