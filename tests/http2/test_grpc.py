"""gRPC in HTTP/2: messages, timeouts, statuses."""

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.http2.grpc import (
    GrpcFault,
    GrpcStatus,
    framed,
    message_of,
    percent_encoded,
    timeout_of,
)


@given(st.binary(max_size=300))
def test_a_message_is_what_was_framed(message: bytes) -> None:
    assert message_of(framed(message), limit=300) == message


@pytest.mark.parametrize(
    ("data", "encoding", "status"),
    [
        (b"", "identity", GrpcStatus.INTERNAL),
        (b"\0", "identity", GrpcStatus.INTERNAL),
        (b"\0\0\0\0", "identity", GrpcStatus.INTERNAL),
        (b"\0\0\0\0\1", "identity", GrpcStatus.INTERNAL),  # ends within a message
        (b"\0\0\0\0\5abcd", "identity", GrpcStatus.INTERNAL),
        (b"\0\0\0\0\1ab", "identity", GrpcStatus.UNIMPLEMENTED),  # and something more
        (framed(b"a") * 2, "identity", GrpcStatus.UNIMPLEMENTED),
        (framed(b"a") + b"\0", "identity", GrpcStatus.UNIMPLEMENTED),
        (b"\1\0\0\0\1a", "identity", GrpcStatus.INTERNAL),  # compressed, and nothing says how
        (b"\1\0\0\0\1a", "gzip", GrpcStatus.UNIMPLEMENTED),
        (b"\2\0\0\0\1a", "gzip", GrpcStatus.INTERNAL),
        (b"\xff\0\0\0\1a", "identity", GrpcStatus.INTERNAL),
        (b"\0\0\0\0\x0babcdefghijk", "identity", GrpcStatus.RESOURCE_EXHAUSTED),
        (b"\0\xff\xff\xff\xff", "identity", GrpcStatus.RESOURCE_EXHAUSTED),  # a lie
        (b"\0\xff\xff\xff\xffabc", "identity", GrpcStatus.RESOURCE_EXHAUSTED),
    ],
)
def test_what_is_not_one_message_is_refused(data: bytes, encoding: str, status: GrpcStatus) -> None:
    with pytest.raises(GrpcFault) as caught:
        message_of(data, limit=10, encoding=encoding)
    assert caught.value.status is status
    assert caught.value.text


def test_a_message_may_be_plain_although_an_encoding_is_named() -> None:
    assert message_of(framed(b"a"), limit=10, encoding="gzip") == b"a"


@given(st.binary(max_size=40), st.integers(0, 20))
def test_any_data_is_one_message_or_refused(data: bytes, limit: int) -> None:
    try:
        message = message_of(data, limit=limit)
    except GrpcFault:
        return
    assert framed(message) == data
    assert len(message) <= limit


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("250m", 0.25),
        ("5u", 5e-6),
        ("7n", 7e-9),
        ("0S", 0),
        ("00000001S", 1),
        ("99999999H", 99_999_999 * 3600),
        ("", None),
        ("S", None),
        ("1", None),
        ("1s", None),
        ("1h", None),
        ("-1S", None),
        ("+1S", None),
        ("1.5S", None),
        (" 1S", None),
        ("1S ", None),
        ("1S\n", None),
        ("1 S", None),
        ("1_0S", None),
        ("123456789S", None),
        ("\u0661S", None),
        ("1SS", None),
    ],
)
def test_timeouts(value: str, seconds: float | None) -> None:
    assert timeout_of(value) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=20))
def test_any_text_is_a_timeout_or_none(value: str) -> None:
    seconds = timeout_of(value)
    assert seconds is None or seconds >= 0


FIELD_VALUE = re.compile(rb"([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)?")


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=200))
def test_a_message_of_a_status_is_a_field_value_and_comes_back(text: str) -> None:
    encoded = percent_encoded(text)
    assert FIELD_VALUE.fullmatch(encoded)
    assert unquote(encoded.decode()) == text


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("no such method: /a.B/C", b"no such method: /a.B/C"),
        ("100 %", b"100 %25"),
        ("a\r\nb\0", b"a%0D%0Ab%00"),
        ("\u20ac", b"%E2%82%AC"),
        (" a b ", b"%20a b%20"),
        ("  ", b"%20%20"),
        ("~\x7f", b"~%7F"),
    ],
)
def test_percent_encoding(text: str, encoded: bytes) -> None:
    assert percent_encoded(text) == encoded


@pytest.mark.parametrize("text", ["\ud800", "\U0001f600" * 5000, "%" * 50_000, " " * 50_000])
def test_any_text_fits_into_a_frame(text: str) -> None:
    assert len(percent_encoded(text)) <= 12_000
    assert FIELD_VALUE.fullmatch(percent_encoded(text))
