"""Header lists, by the tables of RFC 9113 sections 8.2 and 8.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.http2.events import Head
from authz.http2.faults import HttpFault, Malformed
from authz.http2.grpc import GrpcFault, GrpcStatus
from authz.http2.request_head import Field, check_trailers, head_of

Pairs = list[tuple[bytes, bytes]]

PSEUDO: Pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C")]
GRPC: Pairs = [(b"content-type", b"application/grpc")]


def fields(pairs: Pairs) -> list[Field]:
    return [Field(name, value) for name, value in pairs]


def read(*more: tuple[bytes, bytes]) -> Head[None]:
    return head_of(fields([*PSEUDO, *GRPC, *more]))


def test_a_head_is_what_was_sent() -> None:
    head = head_of(
        fields(
            [
                (b":scheme", b"https"),
                (b":path", b"/a.B/C"),
                (b":authority", b"authz:9000"),
                (b":method", b"POST"),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"grpc-timeout", b"250m"),
                (b"grpc-encoding", b"gzip"),
                (b"content-length", b"12"),
                (b"x", b"\xe4"),
                (b"x", b""),
            ]
        )
    )
    assert head.path == "/a.B/C"
    assert head.metadata == (
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("grpc-timeout", "250m"),
        ("grpc-encoding", "gzip"),
        ("content-length", "12"),
        ("x", "\xe4"),
        ("x", ""),
    )
    assert head.seconds == 0.25
    assert head.encoding == "gzip"
    assert head.length == 12
    assert head.refusal is None


def test_what_is_not_said_has_a_default() -> None:
    head = read()
    assert (head.seconds, head.length, head.encoding, head.refusal) == (
        None,
        None,
        "identity",
        None,
    )


@pytest.mark.parametrize(
    "pairs",
    [
        # 8.3: pseudo-header fields
        pytest.param([(b":method", b"POST"), (b":scheme", b"http")], id="no path"),
        pytest.param([(b":method", b"POST"), (b":path", b"/a")], id="no scheme"),
        pytest.param([(b":scheme", b"http"), (b":path", b"/a")], id="no method"),
        pytest.param([*PSEUDO, PSEUDO[0]], id="method twice"),
        pytest.param([*PSEUDO, (b":scheme", b"https")], id="scheme twice"),
        pytest.param([*PSEUDO, PSEUDO[2]], id="path twice"),
        pytest.param([*PSEUDO, (b":authority", b"a"), (b":authority", b"a")], id="authority twice"),
        pytest.param([*PSEUDO, (b":status", b"200")], id="a response's"),
        pytest.param([*PSEUDO, (b":unknown", b"a")], id="unknown"),
        pytest.param([*PSEUDO, (b":protocol", b"websocket")], id="extended CONNECT"),
        pytest.param([*PSEUDO, (b":", b"a")], id="only a colon"),
        pytest.param([*PSEUDO, (b":Path", b"a")], id="upper case"),
        pytest.param([PSEUDO[0], PSEUDO[1], (b"a", b"b"), PSEUDO[2]], id="after a regular one"),
        pytest.param([*PSEUDO[:2], (b":path", b"")], id="empty path"),
        pytest.param([*PSEUDO[:2], (b":path", b"a.B/C")], id="path without slash"),
        pytest.param([*PSEUDO[:2], (b":path", b"*")], id="asterisk with POST"),
        pytest.param([*PSEUDO[:2], (b":path", b"/a ")], id="path ends in a space"),
        pytest.param([*PSEUDO[:2], (b":path", b"/a\r\nb: c")], id="path with CR LF"),
        pytest.param([(b":method", b""), *PSEUDO[1:]], id="empty method"),
        pytest.param([PSEUDO[0], (b":scheme", b""), PSEUDO[2]], id="empty scheme"),
        # 8.5: CONNECT
        pytest.param([(b":method", b"CONNECT"), *PSEUDO[1:]], id="CONNECT with path"),
        pytest.param([(b":method", b"CONNECT")], id="CONNECT to nowhere"),
        # 8.2.1: names and values
        pytest.param([*PSEUDO, (b"", b"a")], id="empty name"),
        pytest.param([*PSEUDO, (b"Name", b"a")], id="upper case name"),
        pytest.param([*PSEUDO, (b"na me", b"a")], id="name with space"),
        pytest.param([*PSEUDO, (b"na:me", b"a")], id="name with colon"),
        pytest.param([*PSEUDO, (b"name\n", b"a")], id="name with LF"),
        pytest.param([*PSEUDO, (b"n\x00", b"a")], id="name with NUL"),
        pytest.param([*PSEUDO, (b"n\xff", b"a")], id="name beyond ASCII"),
        pytest.param([*PSEUDO, (b"a", b"\x00")], id="value with NUL"),
        pytest.param([*PSEUDO, (b"a", b"b\rc")], id="value with CR"),
        pytest.param([*PSEUDO, (b"a", b"b\nc")], id="value with LF"),
        pytest.param([*PSEUDO, (b"a", b"b\n")], id="value ends in LF"),
        pytest.param([*PSEUDO, (b"a", b" b")], id="value begins with space"),
        pytest.param([*PSEUDO, (b"a", b"b\t")], id="value ends in tab"),
        pytest.param([*PSEUDO, (b"a", b" ")], id="value is a space"),
        # 8.2.2: of the connection
        pytest.param([*PSEUDO, (b"connection", b"close")], id="connection"),
        pytest.param([*PSEUDO, (b"proxy-connection", b"close")], id="proxy-connection"),
        pytest.param([*PSEUDO, (b"keep-alive", b"1")], id="keep-alive"),
        pytest.param([*PSEUDO, (b"transfer-encoding", b"chunked")], id="transfer-encoding"),
        pytest.param([*PSEUDO, (b"upgrade", b"h2c")], id="upgrade"),
        pytest.param([*PSEUDO, (b"te", b"gzip")], id="te other than trailers"),
        pytest.param([*PSEUDO, (b"te", b"trailers, deflate")], id="te with more than trailers"),
        # 8.3.1: two answers to one question
        pytest.param([*PSEUDO, (b":authority", b"a"), (b"host", b"b")], id="host is another"),
        pytest.param([*PSEUDO, (b"host", b"a"), (b"host", b"b")], id="two hosts"),
        pytest.param([*PSEUDO, *GRPC, (b"content-type", b"text/plain")], id="two content-types"),
        pytest.param([*PSEUDO, (b"grpc-timeout", b"1S"), (b"grpc-timeout", b"2S")], id="two times"),
        # 8.1.1: content-length
        pytest.param([*PSEUDO, (b"content-length", b"1"), (b"content-length", b"2")], id="lengths"),
        pytest.param([*PSEUDO, (b"content-length", b"")], id="empty length"),
        pytest.param([*PSEUDO, (b"content-length", b"+1")], id="signed length"),
        pytest.param([*PSEUDO, (b"content-length", b"1, 1")], id="length list"),
        pytest.param([*PSEUDO, (b"content-length", b"1_0")], id="length with underscore"),
        pytest.param([*PSEUDO, (b"content-length", b"\xb2")], id="length as superscript"),
        pytest.param([*PSEUDO, (b"content-length", b"1" * 5000)], id="endless length"),
        pytest.param([], id="empty"),
    ],
)
def test_malformed(pairs: Pairs) -> None:
    with pytest.raises(Malformed):
        head_of(fields(pairs))


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        ([(b":method", b"GET"), *PSEUDO[1:], *GRPC], 405),
        ([(b":method", b"post"), *PSEUDO[1:], *GRPC], 405),
        ([(b":method", b"OPTIONS"), PSEUDO[1], (b":path", b"*")], 405),
        ([(b":method", b"CONNECT"), (b":authority", b"a:1")], 405),
        (PSEUDO, 415),
        ([*PSEUDO, (b"content-type", b"")], 415),
        ([*PSEUDO, (b"content-type", b"application/json")], 415),
        ([*PSEUDO, (b"content-type", b"application/grpc-web")], 415),
        ([*PSEUDO, (b"content-type", b"application/grpc+json")], 415),
        ([*PSEUDO, (b"content-type", b"application/grpcx")], 415),
    ],
)
def test_what_is_http_and_not_grpc_is_refused_as_http(pairs: Pairs, status: int) -> None:
    refusal = head_of(fields(pairs)).refusal
    assert isinstance(refusal, HttpFault)
    assert refusal.status == status


@pytest.mark.parametrize(
    "kind",
    [
        b"application/grpc",
        b"application/grpc+proto",
        b"application/grpc;charset=utf-8",
        b"application/grpc ; a=b",
        b"Application/GRPC",
    ],
)
def test_content_types_of_grpc(kind: bytes) -> None:
    assert head_of(fields([*PSEUDO, (b"content-type", kind)])).refusal is None


def test_a_timeout_that_is_none_is_refused_as_grpc() -> None:
    refusal = read((b"grpc-timeout", b"soon")).refusal
    assert isinstance(refusal, GrpcFault)
    assert refusal.status is GrpcStatus.INTERNAL


@pytest.mark.parametrize(
    "more",
    [
        [(b"te", b"trailers")],
        [(b"host", b"a"), (b"host", b"a")],
        [(b"content-length", b"7"), (b"content-length", b"7")],
        [(b"a", b"b c\td")],
        [(b"a", b"\x01\x7f\xff")],  # section 8.2.1 names only NUL, CR and LF
        [(b"!#$%&'*+-.^_`|~09az", b"")],
    ],
)
def test_well_formed(more: Pairs) -> None:
    head = read(*more)
    assert head.refusal is None
    assert [(n.encode("latin-1"), v.encode("latin-1")) for n, v in head.metadata] == [*GRPC, *more]


def test_host_may_repeat_authority() -> None:
    pairs = [*PSEUDO, (b":authority", b"Authz:1"), *GRPC, (b"host", b"authz:1")]
    assert head_of(fields(pairs)).refusal is None


@pytest.mark.parametrize(
    ("pairs", "well"),
    [
        ([], True),
        ([(b"a", b"b")], True),
        ([(b":path", b"/")], False),
        ([(b":status", b"200")], False),
        ([(b"A", b"b")], False),
        ([(b"a", b"b ")], False),
        ([(b"connection", b"b")], False),
    ],
)
def test_trailers(pairs: Pairs, well: bool) -> None:
    if well:
        check_trailers(fields(pairs))
    else:
        with pytest.raises(Malformed):
            check_trailers(fields(pairs))


names = st.one_of(
    st.sampled_from([b":method", b":path", b":scheme", b":authority", b"host", b"te", b"a"]),
    st.sampled_from([b"content-type", b"content-length", b"grpc-timeout", b"grpc-encoding"]),
    st.binary(max_size=5),
)
values = st.one_of(
    st.sampled_from([b"POST", b"http", b"/a", b"application/grpc", b"trailers", b"1", b"1S"]),
    st.binary(max_size=5),
)


@given(st.permutations([*PSEUDO, *GRPC]), st.lists(st.tuples(names, values), max_size=4))
def test_any_list_is_a_head_or_malformed(some: Pairs, more: Pairs) -> None:
    whole = fields([*some, *more])
    try:
        head = head_of(whole)
    except Malformed:
        return
    assert head.path[:1] in {"/", "*", ""}
    assert all(name[0] != ":" for name, _ in head.metadata)
    again = head_of(whole)  # with all that was noted on the fields
    assert (again.path, again.metadata) == (head.path, head.metadata)


@given(st.lists(st.tuples(names, values), max_size=4))
def test_any_trailers_are_well_formed_or_malformed(pairs: Pairs) -> None:
    try:
        check_trailers(fields(pairs))
    except Malformed:
        return
    assert all(name[:1] != b":" for name, _ in pairs)
