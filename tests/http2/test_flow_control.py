"""Flow control of both sides: sections 5.2 and 6.9 of RFC 9113. Many cases are those of h2spec."""

import pytest
from hyperframe.frame import (
    WindowUpdateFrame,
)

from authz.http2 import GrpcStatus, Limits
from authz.http2.settings import (
    INITIAL_WINDOW_SIZE,
)
from tests.http2.wire import (
    END_STREAM,
    FLOW_CONTROL_ERROR,
    LARGE,
    LARGEST,
    PADDED,
    PROTOCOL_ERROR,
    Client,
    data,
    framed,
    requests,
    rst,
    settings,
    window_update,
)

# -- 5.2 and 6.9 flow control, ours


def test_6_9_the_window_is_given_back(client: Client) -> None:
    given = 1_048_576
    stream_id, total = -1, 0
    for _ in range(300):
        stream_id += 2
        sent = framed(b"x" * 16_000)
        total += len(sent)
        given -= len(sent)
        assert given >= 0
        client.send(client.headers(stream_id), data(stream_id, sent))
        given += sum(
            one.window_increment
            for one in client.frames
            if isinstance(one, WindowUpdateFrame) and one.stream_id == 0
        )
        client.frames.clear()
        client.respond()
    assert total > 4 * 1_048_576
    assert given == 1_048_576 - client.connection._receiver._taken > 524_288
    assert client.held == 0


def test_6_9_padding_and_dropped_data_are_given_back(client: Client) -> None:
    padded = b"\xff" + b"" + bytes(255)
    sent = given = 0
    stream_id = -1
    client.connection._budget._capacity = 10**9
    client.now = 1e9
    for round_ in range(5000):
        stream_id += 2
        kind = round_ % 4
        if kind == 0:  # padding alone
            client.send(client.headers(stream_id), data(stream_id, padded, PADDED), rst(stream_id))
            sent += 256
        elif kind == 1:  # on a stream that the client resets
            client.send(client.headers(stream_id), data(stream_id, b"x" * 1000, 0), rst(stream_id))
            sent += 1000
        elif kind == 2:  # after our reset
            client.send(client.headers(stream_id, [("a", "b")]), data(stream_id, b"x" * 1000))
            sent += 1000
        else:  # after the end
            client.send(client.request(stream_id, b""), data(stream_id, b"x" * 1000))
            sent += 1005
        given += sum(
            one.window_increment
            for one in client.frames
            if isinstance(one, WindowUpdateFrame) and one.stream_id == 0
        )
        client.frames.clear()
    assert client.failed() is None
    assert sent > 3 * 1_048_576
    assert 0 <= sent - given < 1_048_576 // 2
    assert client.held == 0
    assert not client.connection._receiver.parts


def test_6_9_padding_never_stops_a_request(client: Client) -> None:
    window = 65_536 + 5 + LARGE
    message, position = framed(b"x" * 65_536), 0
    client.connection._budget._capacity = 10**9
    client.now = 1e9
    client.send(client.headers(1))
    while position < len(message):
        piece = message[position : position + 70]
        position += len(piece)
        ends = END_STREAM if position == len(message) else 0
        window -= len(piece) + 256
        assert window >= 0
        client.send(data(1, b"\xff" + piece + bytes(255), PADDED | ends))
        for one in client.frames:
            if isinstance(one, WindowUpdateFrame) and one.stream_id == 1:
                window += one.window_increment
        client.frames.clear()
    (event,) = requests(client.events)
    assert event.message == message[5:]


def test_6_9_a_client_that_ignores_the_window_of_its_stream() -> None:
    client = Client(Limits(message=200_000))
    client.connection._receiver.stream_window = 65_535
    client.send(client.headers(1), *[data(1, b"x" * LARGE, 0)] * 4)
    assert client.resets() == {1: FLOW_CONTROL_ERROR}
    assert client.held == 0
    assert client.alive()


def test_6_9_a_client_that_ignores_the_window_of_the_connection() -> None:
    client = Client()
    client.connection._receiver.window = 65_535
    client.connection._receiver._taken = 32_000
    client.send(client.headers(1), data(1, b"x" * LARGE, 0))
    client.connection._receiver._taken = 60_000
    client.send(data(1, b"x" * LARGE, 0))
    assert client.failed() == FLOW_CONTROL_ERROR


# -- 6.9 flow control, the client's


@pytest.mark.parametrize("window", [0, 1, 4, 5, 8, 9, 10])
def test_6_9_2_small_windows(window: int) -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: window})
    client.send(client.request(1))
    client.respond(b"well")
    answer = client.answers[1]
    assert len(answer.data) == min(window, 9)
    assert answer.ended == (window >= 9)
    while not answer.ended:
        before = len(answer.data)
        client.send(window_update(1, 2))
        assert before < len(answer.data) <= before + 2
    assert answer.message == b"well"
    assert client.connection.open_streams == 0


def test_6_9_the_connections_window_is_everybodys() -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: 10**6})
    client.send(*(client.request(n) for n in (1, 3, 5)))
    client.respond(b"x" * 30_000)
    sent = [len(client.answers[n].data) for n in (1, 3, 5)]
    assert sent == [30_005, 30_005, 65_535 - 60_010]
    client.send(window_update(0, 10))
    assert len(client.answers[5].data) == 65_535 - 60_010 + 10
    client.send(client.request(7))
    client.respond()
    assert not client.answers[7].data
    client.send(window_update(0, LARGEST))
    assert all(answer.ended for answer in client.answers.values())


def test_6_9_2_a_new_initial_window_moves_those_of_open_streams() -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: 5})
    client.send(client.request(1), client.headers(3))
    client.respond(b"x" * 15)  # 20 bytes, of which 5 go
    assert len(client.answers[1].data) == 5
    client.send(settings({INITIAL_WINDOW_SIZE: 2}))  # the window is now -3
    client.send(window_update(1, 3))
    assert len(client.answers[1].data) == 5
    client.send(window_update(1, 1))
    assert len(client.answers[1].data) == 6
    client.send(settings({INITIAL_WINDOW_SIZE: 5}))
    assert len(client.answers[1].data) == 9
    client.send(settings([(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 100)]))
    assert client.answers[1].message == b"x" * 15
    client.send(data(3, framed(b"a")))
    client.respond(b"x" * 95)
    assert client.answers[3].ended


def test_6_9_2_while_several_messages_wait() -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    client.send(client.request(1))
    for message in (b"one", b"two"):
        client.connection.send(1, message)
    client.connection.finish(1, GrpcStatus.ABORTED)
    client.connection.finish(1)
    client.take()
    assert len(client.answers[1].blocks) == 1
    client.send(settings({INITIAL_WINDOW_SIZE: 9}))
    client.connection.send(1, b"not any more")
    client.send(settings({INITIAL_WINDOW_SIZE: LARGEST}))
    assert client.answers[1].data == framed(b"one") + framed(b"two")
    assert client.answers[1].status == "10"


def test_6_9_1_an_update_by_nothing(client: Client) -> None:
    client.send(client.headers(1), window_update(1, 0))
    assert client.resets() == {1: PROTOCOL_ERROR}
    client.send(window_update(0, 0))
    assert client.failed() == PROTOCOL_ERROR


def test_6_9_1_windows_have_a_limit(client: Client) -> None:
    client.send(client.headers(1), window_update(1, LARGEST - 65_535), client.headers(3))
    assert client.resets() == {}
    client.send(window_update(1, 1))
    assert client.resets() == {1: FLOW_CONTROL_ERROR}
    client.send(window_update(0, LARGEST - 65_535))
    assert client.failed() is None
    client.send(window_update(0, 1))
    assert client.failed() == FLOW_CONTROL_ERROR


@pytest.mark.parametrize("values", [[65_536], [65_536, 0], [0, 65_536]])
def test_6_9_2_windows_have_a_limit_for_settings_too(client: Client, values: list[int]) -> None:
    client.send(client.headers(1), window_update(1, LARGEST - 65_535))
    client.send(settings([(INITIAL_WINDOW_SIZE, value) for value in values]))
    assert client.failed() == FLOW_CONTROL_ERROR


def test_6_9_2_windows_may_be_at_the_limit(client: Client) -> None:
    client.send(settings({INITIAL_WINDOW_SIZE: 0}), client.headers(1), window_update(1, LARGEST))
    client.send(settings({INITIAL_WINDOW_SIZE: 1}))
    assert client.failed() == FLOW_CONTROL_ERROR


def test_6_9_head_and_status_need_no_window() -> None:
    client = Client(initial={INITIAL_WINDOW_SIZE: 0})
    client.send(client.request(1), client.request(3))
    client.connection.fail(1, GrpcStatus.INTERNAL, "")
    client.connection.send(3, b"")
    client.take()
    assert client.answers[1].ended
    assert len(client.answers[3].blocks) == 1
