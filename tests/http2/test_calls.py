"""Calls and their answers: section 8.1 of RFC 9113, and gRPC over HTTP/2."""

import pytest

from authz.http2 import GrpcStatus, Limits
from tests.http2.wire import (
    CHECK,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FIELDS,
    LARGE,
    NO_ERROR,
    PROTOCOL_ERROR,
    Client,
    data,
    framed,
    requests,
    window_update,
)

# -- a call


def test_a_call_is_answered(client: Client) -> None:
    (event,) = requests(client.send(client.request(1, b"question")))
    assert (event.stream_id, event.message, event.head.path) == (1, b"question", CHECK)
    assert event.head.metadata == (("te", "trailers"), ("content-type", "application/grpc"))
    client.respond(b"answer")
    answer = client.answers[1]
    assert answer.blocks == [
        [(":status", "200"), ("content-type", "application/grpc")],
        [("grpc-status", "0")],
    ]
    assert answer.message == b"answer"
    assert answer.ended
    assert client.connection.open_streams == 0


def test_a_call_is_answered_with_a_status_alone(client: Client) -> None:
    client.send(client.request(1))
    client.connection.fail(1, GrpcStatus.UNIMPLEMENTED, "no such method: 100 %\n")
    client.take()
    assert client.answers[1].blocks == [
        [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-accept-encoding", "identity"),
            ("grpc-status", "12"),
            ("grpc-message", "no such method: 100 %25%0A"),
        ]
    ]
    assert client.answers[1].ended


def test_several_messages_and_a_status(client: Client) -> None:
    client.send(client.request(1))
    for message in (b"one", b"", b"three"):
        client.connection.send(1, message)
        client.take()
    assert not client.answers[1].ended
    client.connection.finish(1, GrpcStatus.UNAVAILABLE, "bye")
    client.take()
    answer = client.answers[1]
    assert answer.data == framed(b"one") + framed(b"") + framed(b"three")
    assert answer.blocks[1] == [("grpc-status", "14"), ("grpc-message", "bye")]


def test_no_messages_and_a_status(client: Client) -> None:
    client.send(client.request(1))
    client.connection.finish(1)
    client.take()
    assert len(client.answers[1].blocks) == 1
    assert client.answers[1].status == "0"


def test_an_answer_under_way_that_fails_is_not_begun_again(client: Client) -> None:
    client.send(client.request(1))
    client.connection.send(1, b"one")
    client.connection.fail(1, GrpcStatus.INTERNAL, "")
    client.take()
    assert client.answers[1].blocks[1:] == [[("grpc-status", "13")]]


def test_nothing_is_answered_twice(client: Client) -> None:
    client.send(client.request(1), client.headers(3), window_update(0, 1))
    for stream_id in (1, 3, 5):  # answered, not all there, never asked
        for _ in range(2):
            client.connection.respond(stream_id, b"a")
            client.connection.send(stream_id, b"a")
            client.connection.finish(stream_id)
            client.connection.fail(stream_id, GrpcStatus.INTERNAL, "")
    client.take()  # which checks that nothing follows END_STREAM
    assert client.answers.keys() == {1}
    assert client.answers[1].message == b"a"


def test_events_come_in_portions(client: Client) -> None:
    client.connection.feed(b"".join(client.request(2 * n + 1) for n in range(5)), 0)
    assert [len(client.connection.events(2)) for _ in range(4)] == [2, 2, 1, 0]
    assert not client.connection.has_more


def test_there_is_more_only_where_a_portion_ended(client: Client) -> None:
    client.connection.feed(client.request(1) + client.request(3)[:-1], 0)
    assert len(client.connection.events(1)) == 1
    assert client.connection.has_more
    assert client.connection.events(1) == []
    assert not client.connection.has_more


def test_more_may_be_fed_before_all_is_taken(client: Client) -> None:
    sent = b"".join(client.request(2 * n + 1, b"%d" % n) for n in range(20))
    found = []
    for start in range(0, len(sent), 50):
        client.connection.feed(sent[start : start + 50], 0)
        found += client.connection.events(1)
    while client.connection.has_more:
        found += client.connection.events(1)
    assert [one.message for one in requests(found)] == [b"%d" % n for n in range(20)]


# -- 8.1 requests


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_8_1_trailers(client: Client, parts: int) -> None:
    message = framed(b"abc")
    client.send(client.headers(1))
    for part in (message[:4], message[4:])[:parts] if parts == 2 else (message,)[:parts]:
        client.send(data(1, part, 0))
    client.send(client.headers(1, [("a", "b")], END_HEADERS | END_STREAM))
    if parts:
        assert requests(client.events)[0].message == b"abc"
    else:
        assert client.answers[1].status == "13"
    assert client.held == 0


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ([("a", "b")], END_HEADERS),  # no end
        ([(":path", "/")], END_HEADERS | END_STREAM),
        ([("A", "b")], END_HEADERS | END_STREAM),
        ([("connection", "close")], END_HEADERS | END_STREAM),
    ],
)
def test_8_1_malformed_trailers(client: Client, fields: list[tuple[str, str]], flags: int) -> None:
    client.send(client.headers(1), data(1, framed(b"abc"), 0), client.headers(1, fields, flags))
    assert client.resets() == {1: PROTOCOL_ERROR}
    assert client.events == []
    assert client.held == 0
    assert client.alive()


def test_8_1_trailers_that_are_too_large(client: Client) -> None:
    fields = [("a", "b" * 15_000), ("c", "d" * 1500)]
    client.send(client.headers(1), client.headers(1, fields, END_HEADERS | END_STREAM))
    assert client.resets() == {1: ENHANCE_YOUR_CALM}
    assert client.alive()


@pytest.mark.parametrize(
    ("length", "code"), [("8", None), ("08", None), ("7", PROTOCOL_ERROR), ("9", PROTOCOL_ERROR)]
)
def test_8_1_1_content_length(client: Client, length: str, code: int | None) -> None:
    fields = [*FIELDS, ("content-length", length)]
    client.send(client.request(1, b"abc", fields))
    client.send(client.headers(3, fields), data(3, framed(b"abc"), 0), data(3, b""))
    assert len(client.events) == (2 if code is None else 0)
    assert client.resets() == ({} if code is None else {1: code, 3: code})


def test_8_1_1_content_length_and_no_content(client: Client) -> None:
    flags = END_HEADERS | END_STREAM
    client.send(client.headers(1, [*FIELDS, ("content-length", "1")], flags))
    assert client.resets() == {1: PROTOCOL_ERROR}
    fields = [(":method", "GET"), *FIELDS[1:], ("content-length", "1")]  # gRPC or not
    client.send(client.request(3, b"abc", fields))
    assert client.resets() == {1: PROTOCOL_ERROR, 3: PROTOCOL_ERROR}


def test_8_1_1_a_malformed_request_ends_its_stream_alone(client: Client) -> None:
    client.send(client.request(1), client.headers(3, [*FIELDS, ("Upper", "x")]), client.request(5))
    assert client.resets() == {3: PROTOCOL_ERROR}
    client.respond()
    assert client.answers[1].ended
    assert client.answers[5].ended


def test_8_1_1_a_head_that_is_refused_once_is_refused_again(client: Client) -> None:
    fields = [(":method", "GET"), *FIELDS[1:]]
    for stream_id in (1, 3, 5):
        client.send(client.request(stream_id, fields=fields))
        assert client.answers[stream_id].blocks == [[(":status", "405")]]
        assert client.answers[stream_id].ended
    assert client.resets() == {}
    assert client.events == []


def test_8_1_a_refusal_waits_for_the_end_of_its_request(client: Client) -> None:
    client.send(client.headers(1, [field for field in FIELDS if field[0] != "content-type"]))
    assert client.answers == {}
    client.send(data(1, b"abc", 0), data(1, b"def"))
    assert client.answers[1].blocks == [[(":status", "415")]]
    assert client.held == 0


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
def test_a_request_that_is_not_one_message(client: Client, payload: bytes, status: str) -> None:
    client.send(client.headers(1), data(1, payload))
    assert client.answers[1].status == status
    assert len(client.answers[1].blocks) == 1
    assert client.answers[1].ended
    assert client.events == []
    assert client.alive()


def test_a_compressed_message_is_told_what_would_do(client: Client) -> None:
    fields = [*FIELDS, ("grpc-encoding", "gzip")]
    client.send(client.headers(1, fields), data(1, framed(b"abc", flag=1)))
    assert client.answers[1].status == "12"
    assert client.answers[1].head["grpc-accept-encoding"] == "identity"


def test_a_request_without_data(client: Client) -> None:
    client.send(client.headers(1, flags=END_HEADERS | END_STREAM))
    assert client.answers[1].status == "13"


def test_a_message_that_is_too_large_is_not_heard_to_its_end(client: Client) -> None:
    client.send(client.headers(1))
    message = framed(b"x" * 70_000)
    for start in range(0, len(message), LARGE):
        client.send(data(1, message[start : start + LARGE], 0))
    assert client.answers[1].status == "8"
    assert client.answers[1].ended
    assert client.resets() == {1: NO_ERROR}
    assert client.held == 0
    assert client.alive()


def test_a_message_may_be_as_large_as_allowed(client: Client) -> None:
    message = framed(b"x" * 65_536)
    pieces = [message[start : start + LARGE] for start in range(0, len(message), LARGE)]
    client.send(
        client.headers(1), *(data(1, piece, 0) for piece in pieces[:-1]), data(1, pieces[-1])
    )
    assert requests(client.events)[0].message == b"x" * 65_536


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_a_small_limit(limit: int) -> None:
    client = Client(Limits(message=limit))
    client.send(client.request(1, b"x" * limit), client.request(3, b"x" * (limit + 1)))
    assert [event.stream_id for event in client.events] == [1]
    assert client.answers[3].status == "8"


def test_a_timeout_is_told(client: Client) -> None:
    client.send(client.request(1, fields=[*FIELDS, ("grpc-timeout", "250m")]))
    assert requests(client.events)[0].head.seconds == 0.25


def test_a_timeout_that_is_none(client: Client) -> None:
    client.send(client.request(1, fields=[*FIELDS, ("grpc-timeout", "now")]))
    assert client.answers[1].status == "13"
