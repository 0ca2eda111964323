"""HPACK: the RFC's examples, the `hpack` package as a witness, and what may be remembered."""

import random
from collections.abc import Iterator

import hpack
import pytest
from hpack import Encoder
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman as their_decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from authz.http2.faults import ConnectionFault, ErrorCode
from authz.http2.hpack import Block, Decoder, _integer
from authz.http2.huffman import decode_huffman
from authz.http2.request_head import Field

MAX_LIST = 65_536
Pairs = list[tuple[bytes, bytes]]

huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


@pytest.fixture(autouse=True, scope="module")
def _same_limit_on_integers() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr("hpack.hpack.VARINT_MAX_LENGTH", 4)
    yield
    patch.undo()


def pairs(block: Block) -> Pairs:
    assert block.fields is not None
    return [(field.name, field.value) for field in block.fields]


def table(decoder: Decoder) -> Pairs:
    return [(field.name, field.value) for field in decoder._table[62:]]


# -- RFC 7541 appendix C


@pytest.mark.parametrize(
    ("encoded", "mask", "value"),
    [("0a", 0x1F, 10), ("1f9a0a", 0x1F, 1337), ("2a", 0xFF, 42)],
)
def test_c_1_integers(encoded: str, mask: int, value: int) -> None:
    assert _integer(bytes.fromhex(encoded), 0, mask) == (value, len(encoded) // 2)


@pytest.mark.parametrize(
    ("encoded", "field", "inserted"),
    [
        (
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            (b"custom-key", b"custom-header"),
            True,
        ),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), False),
        ("100870617373776f726406736563726574", (b"password", b"secret"), False),
        ("82", (b":method", b"GET"), False),
    ],
)
def test_c_2_representations(encoded: str, field: tuple[bytes, bytes], inserted: bool) -> None:
    decoder = Decoder(MAX_LIST)
    assert pairs(decoder.decode(bytes.fromhex(encoded))) == [field]
    assert table(decoder) == ([field] if inserted else [])


REQUESTS = [
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
DATE, DATE_2 = b"Mon, 21 Oct 2013 20:13:21 GMT", b"Mon, 21 Oct 2013 20:13:22 GMT"
COOKIE = b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
LOCATION = (b"location", b"https://www.example.com")
RESPONSES = [
    [(b":status", b"302"), (b"cache-control", b"private"), (b"date", DATE), LOCATION],
    [(b":status", b"307"), (b"cache-control", b"private"), (b"date", DATE), LOCATION],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", DATE_2),
        LOCATION,
        (b"content-encoding", b"gzip"),
        (b"set-cookie", COOKIE),
    ],
]


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(
            [
                "828684410f7777772e6578616d706c652e636f6d",
                "828684be58086e6f2d6361636865",
                "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
            ],
            id="C.3",
        ),
        pytest.param(
            [
                "828684418cf1e3c2e5f23a6ba0ab90f4ff",
                "828684be5886a8eb10649cbf",
                "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
            ],
            id="C.4",
        ),
    ],
)
def test_c_3_and_4_requests(blocks: list[str]) -> None:
    decoder = Decoder(MAX_LIST)
    for block, expected in zip(blocks, REQUESTS, strict=True):
        assert pairs(decoder.decode(bytes.fromhex(block))) == expected
    assert table(decoder) == [
        (b"custom-key", b"custom-value"),
        (b"cache-control", b"no-cache"),
        (b":authority", b"www.example.com"),
    ]
    assert decoder._size == 164


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(
            [
                (
                    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a32"
                    "3120474d546e1768747470733a2f2f7777772e6578616d706c652e636f6d"
                ),
                "4803333037c1c0bf",
                (
                    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a6970"
                    "7738666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d61"
                    "67653d333630303b2076657273696f6e3d31"
                ),
            ],
            id="C.5",
        ),
        pytest.param(
            [
                (
                    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad"
                    "171863c78f0b97c8e9ae82ae43d3"
                ),
                "4883640effc1c0bf",
                (
                    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2"
                    "e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007"
                ),
            ],
            id="C.6",
        ),
    ],
)
def test_c_5_and_6_responses_with_a_small_table(blocks: list[str]) -> None:
    decoder = Decoder(MAX_LIST)
    decoder.decode(bytes.fromhex("3fe101"))  # 256 bytes
    for block, expected in zip(blocks, RESPONSES, strict=True):
        assert pairs(decoder.decode(bytes.fromhex(block))) == expected
    assert table(decoder) == [
        (b"set-cookie", COOKIE),
        (b"content-encoding", b"gzip"),
        (b"date", DATE_2),
    ]
    assert decoder._size == 215


# -- what must not be accepted


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param("80", id="6.1: index 0"),
        pytest.param("be", id="2.3.3: no such dynamic entry"),
        pytest.param("ffffffff0f", id="2.3.3: an index far beyond the table"),
        pytest.param("7f00", id="2.3.3: no such dynamic entry's name"),
        pytest.param("ffffffffff00", id="5.1: an integer that is too long"),
        pytest.param("ff8080808000", id="5.1: zeros that make an integer long"),
        pytest.param("ff", id="5.1: an integer that does not end"),
        pytest.param("00", id="5.2: no name"),
        pytest.param("0001", id="5.2: a name that does not end"),
        pytest.param("000161", id="5.2: no value"),
        pytest.param("0001610362", id="5.2: a value that does not end"),
        pytest.param("00016184ffffffff", id="5.2: EOS"),
        pytest.param("0001618100", id="5.2: padding that is no prefix of EOS"),
        pytest.param("00016182f8ff", id="5.2: padding of a whole byte"),
        pytest.param("3fe21f", id="6.3: a table above what we allow"),
        pytest.param("823f00", id="4.2: a size update after a field"),
    ],
)
def test_what_is_no_block_ends_the_connection(encoded: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        Decoder(MAX_LIST).decode(bytes.fromhex(encoded))
    assert caught.value.code is ErrorCode.COMPRESSION_ERROR


def test_a_field_larger_than_the_table_empties_it() -> None:
    decoder = Decoder(MAX_LIST)
    decoder.decode(b"\x40\x01a\x01b")
    assert len(table(decoder)) == 1
    decoder.decode(b"\x40\x01a\x7f\xa1\x1f" + b"b" * 4128)
    assert table(decoder) == []
    assert decoder._size == 0


def test_a_name_may_come_from_the_entry_that_its_field_evicts() -> None:
    decoder, value = Decoder(MAX_LIST), b"v" * 4000
    decoder.decode(b"\x40\x04name\x7f\xa1\x1e" + value)
    assert pairs(decoder.decode(b"\x7e\x7f\xa1\x1e" + value)) == [(b"name", value)]
    assert len(table(decoder)) == 1


def test_a_list_that_is_too_large_is_decoded_to_its_end_and_not_kept() -> None:
    decoder = Decoder(100, 2000)
    assert decoder.decode(b"\x82" * 1000 + b"\x40\x01a\x01b").fields is None
    assert pairs(decoder.decode(b"\xbe")) == [(b"a", b"b")]
    assert decoder.decode(b"\xbe" * 4).fields is None
    with pytest.raises(ConnectionFault):
        decoder.decode(b"\x82" * 1000 + b"\x20")


# -- the `hpack` package


def integer(value: int, bits: int, first: int) -> bytes:
    mask = (1 << bits) - 1
    if value < mask:
        return bytes((first | value,))
    out, value = bytearray((first | mask,)), value - mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


texts = st.one_of(
    st.sampled_from([b"", b"a", b"content-type", b"x" * 1300, b"y" * 3000, b"\xff\x00"]),
    st.binary(max_size=40),
)
strings = st.tuples(texts, st.booleans()).map(
    lambda it: (
        integer(len(coded := huffman.encode(it[0])), 7, 0x80) + coded
        if it[1]
        else integer(len(it[0]), 7, 0) + it[0]
    )
)
indices = st.one_of(st.integers(0, 75), st.integers(0, 300))
literals = st.builds(
    lambda kind, index, name, value: integer(index, *kind) + (b"" if index else name) + value,
    st.sampled_from([(6, 0x40), (4, 0x00), (4, 0x10)]),
    st.one_of(st.just(0), st.just(0), st.integers(0, 70)),
    strings,
    strings,
)
fields = st.one_of(indices.map(lambda index: integer(index, 7, 0x80)), literals, literals, literals)
sizes = st.sampled_from([0, 33, 64, 200, 1024, 2000, 4095, 4096, 4096, 4096, 4097])
updates = sizes.map(lambda size: integer(size, 5, 0x20))
blocks = st.builds(
    lambda before, block: b"".join(before + block),
    st.one_of(st.just([]), st.just([]), st.lists(updates, max_size=2)),
    st.lists(st.one_of(fields, fields, fields, fields, fields, updates), max_size=8),
)
well_formed = st.builds(
    lambda before, block: b"".join(before + block),
    st.one_of(st.just([]), st.just([]), st.lists(updates, max_size=2)),
    st.lists(literals, max_size=8),
)


def agree(sequence: list[bytes]) -> int:
    """Both decode the same, up to the first block on which both fail; how many did they decode."""
    ours, theirs = Decoder(MAX_LIST), hpack.Decoder(MAX_LIST)
    for count, block in enumerate(sequence):
        expected: Pairs | None
        try:
            expected = [(bytes(n), bytes(v)) for n, v in theirs.decode(block, raw=True)]
        except (hpack.HPACKError, IndexError):
            expected = None
        try:
            found = ours.decode(block).fields
        except ConnectionFault:
            found = None
        if expected is None or found is None:
            assert (expected is None) == (found is None), block.hex()
            return count
        assert [(field.name, field.value) for field in found] == expected, block.hex()
        assert table(ours) == [(bytes(n), bytes(v)) for n, v in theirs.header_table.dynamic_entries]
        assert ours._size == sum(len(n) + len(v) + 32 for n, v in table(ours)) <= ours._max_size
    return len(sequence)


@given(st.lists(blocks, max_size=6))
def test_any_sequence_of_representations_decodes_as_elsewhere(sequence: list[bytes]) -> None:
    agree(sequence)


@given(st.lists(well_formed, max_size=6))
def test_any_sequence_of_literals_and_resizes_decodes_as_elsewhere(sequence: list[bytes]) -> None:
    agree(sequence)


@given(st.lists(st.binary(max_size=60), max_size=3))
def test_any_bytes_decode_as_elsewhere(sequence: list[bytes]) -> None:
    agree(sequence)


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(texts, texts, st.booleans()), max_size=8),
            st.booleans(),
            st.one_of(st.none(), st.none(), st.sampled_from([0, 100, 1000, 4096])),
        ),
        max_size=8,
    )
)
def test_what_an_encoder_makes_is_decoded(
    lists: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]],
) -> None:
    encoder, sequence, expected = Encoder(), [], []
    for headers, use_huffman, size in lists:
        if size is not None:
            encoder.header_table_size = size
        sequence.append(encoder.encode(headers, huffman=use_huffman))
        expected.append([(name, value) for name, value, _ in headers])
    decoder = Decoder(1 << 24)
    assert [pairs(decoder.decode(block)) for block in sequence] == expected
    assert agree(sequence) == len(sequence)


@given(st.binary(max_size=100))
def test_huffman_decodes_what_was_encoded(text: bytes) -> None:
    assert decode_huffman(huffman.encode(text)) == text


@given(st.binary(max_size=30))
def test_huffman_fails_where_the_other_fails(coded: bytes) -> None:
    try:
        expected = their_decode_huffman(coded)
    except hpack.HPACKDecodingError:
        with pytest.raises(ConnectionFault):
            decode_huffman(coded)
    else:
        assert decode_huffman(coded) == expected


# -- what is remembered

IDENTITIES = [f"By=spiffe://c/ns/authz/sa/a;URI=spiffe://c/ns/tenant-{n}/sa/s" for n in range(6)]

calls = st.lists(
    st.tuples(
        st.integers(0, len(IDENTITIES) - 1),
        st.sampled_from(["", "indexed", "plain"]),  # how a header comes that changes
        st.integers(0, 9),  # the destination
        st.sampled_from([None] * 60 + [0, 500, 4096]),
    ),
    min_size=60,
    max_size=250,
)
Call = tuple[int, str, int, int | None]


def plain(name: bytes, value: bytes) -> bytes:
    """A literal without indexing."""
    return b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value


def envoy_block(encoder: Encoder, count: int, call: Call, *, lean: bool) -> tuple[bytes, Pairs]:
    """`lean`: only what changes goes into the table, so blocks recur sooner."""
    identity, tracing, destination, size = call
    if size is not None:
        encoder.header_table_size = size
    before = [(b":method", b"POST"), (b":scheme", b"http")]
    path = (b":path", b"/envoy.service.auth.v3.Authorization/Check")
    stay = [
        (b":authority", b"authz.istio-system"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"x-authz-upstream", b"outbound|80||svc.tenant-%d.svc.cluster.local" % destination),
    ]
    change = [(b"x-forwarded-client-cert", IDENTITIES[identity].encode())]
    trace = [(b"traceparent", b"00-%032d-%016d-01" % (count, count))]
    block = encoder.encode(before) + plain(*path)
    block += b"".join(plain(*field) for field in stay) if lean else encoder.encode(stay)
    block += encoder.encode(change)
    if tracing == "indexed":
        block += encoder.encode(trace)
    elif tracing == "plain":
        block += plain(*trace[0])
    return block, [*before, path, *stay, *change, *(trace if tracing else [])]


def first_difference(decoder: Decoder, sequence: list[Call], *, lean: bool = True) -> int | None:
    """Which block of Envoy's is decoded to another list, or head, than was encoded."""
    encoder, fresh = Encoder(), Decoder(MAX_LIST)
    for count, call in enumerate(sequence):
        block, expected = envoy_block(encoder, count, call, lean=lean)
        decoded = decoder.decode(block)
        fresh._remembered.clear()
        assert pairs(fresh.decode(block)) == expected
        if pairs(decoded) != expected:
            return count
        assert decoded.fields is not None
        text = tuple((n.decode(), v.decode()) for n, v in expected if n[:1] != b":")
        if decoded.head().metadata != text:
            return count
    return None


@given(calls, st.booleans())
def test_what_is_remembered_is_what_decoding_would_give(sequence: list[Call], lean: bool) -> None:
    assert first_difference(Decoder(MAX_LIST), sequence, lean=lean) is None


chance = random.Random(7)
LONG: list[Call] = [
    (chance.randrange(2), "indexed" if chance.random() < 0.7 else "", chance.randrange(2), None)
    for _ in range(1500)
]
"""So that the table is full most of the time: each insertion evicts, and its length stays."""


def test_a_full_table_is_no_reason_to_remember() -> None:
    decoder = Decoder(MAX_LIST)
    assert first_difference(decoder, list(LONG)) is None
    assert decoder._size > 3900


class JudgesByLength(Decoder):
    """Remembers while the number of dynamic entries does not change."""

    def decode(self, encoded: bytes) -> Block:
        kept, length = dict(self._remembered), len(self._table)
        block = super().decode(encoded)
        if len(self._table) == length:
            self._remembered.update(kept)
        return block


class ForgetsNothing(Decoder):
    """Remembers the right blocks, and for ever."""

    def decode(self, encoded: bytes) -> Block:
        kept = dict(self._remembered)
        block = super().decode(encoded)
        self._remembered.update(kept)
        return block


class KeepsThroughResizes(Decoder):
    """Takes a resize for no change."""

    def decode(self, encoded: bytes) -> Block:
        kept = dict(self._remembered)
        block = super().decode(encoded)
        if encoded[0] & 0xE0 == 0x20:
            self._remembered.update(kept)
        return block


class RemembersInsertions(Decoder):
    """Remembers blocks that insert."""

    def decode(self, encoded: bytes) -> Block:
        block = super().decode(encoded)
        self._remembered[encoded] = block
        return block


@pytest.mark.parametrize("wrong", [JudgesByLength, ForgetsNothing])
def test_the_test_notices_a_wrong_rule(wrong: type[Decoder]) -> None:
    assert first_difference(wrong(MAX_LIST), list(LONG)) is not None


@pytest.mark.parametrize(
    ("wrong", "sequence"),
    [
        # a resize empties the table, and the same block names an entry that is not there
        (KeepsThroughResizes, ["4001610162", "be", "203fe11f", "be"]),
        # the second time, the block must insert again
        (RemembersInsertions, ["4001610162", "4001610162", "bebf"]),
    ],
)
def test_what_a_wrong_rule_would_say(wrong: type[Decoder], sequence: list[str]) -> None:
    def run(decoder: Decoder) -> list[object]:
        said: list[object] = []
        for block in sequence:
            try:
                said.append(pairs(decoder.decode(bytes.fromhex(block))))
            except ConnectionFault:
                said.append("fault")
        return said

    right = Decoder(MAX_LIST)
    plain = Decoder(MAX_LIST)
    plain._remembered = Nothing()
    assert run(right) == run(plain)
    assert run(wrong(MAX_LIST)) != run(Decoder(MAX_LIST))


class Nothing(dict[bytes, Block]):
    """A memory that keeps nothing."""

    def __setitem__(self, key: bytes, value: Block) -> None:
        pass


def test_a_block_is_decoded_once() -> None:
    decoder = Decoder(MAX_LIST)
    assert decoder.decode(b"\x82\x04\x01/") is decoder.decode(b"\x82\x04\x01/")


@pytest.mark.parametrize("change", ["4001610162", "3f00", "20", "3fe11f"])
def test_an_insertion_or_resize_forgets_all(change: str) -> None:
    decoder = Decoder(MAX_LIST)
    before = decoder.decode(b"\x82")
    decoder.decode(bytes.fromhex(change))
    assert not decoder._remembered
    assert decoder.decode(b"\x82") is not before


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"\x82", id="indexed"),
        pytest.param(b"\x51\x00", id="inserted"),
        pytest.param(b"\x00\x01a\x00", id="literal"),
        pytest.param(b"\x20", id="table size update"),
    ],
)
def test_no_more_fields_are_decoded_than_a_block_may_have(field: bytes) -> None:
    decoder = Decoder(MAX_LIST, 3)
    decoder.decode(field * 3)
    before = len(decoder._table)
    with pytest.raises(ConnectionFault) as caught:
        decoder.decode(field * 100)
    assert caught.value.limit == "header_fields"
    assert len(decoder._table) <= before + 3


def test_few_and_short_blocks_are_remembered() -> None:
    decoder = Decoder(MAX_LIST, 2000)
    for n in range(1000):
        decoder.decode(b"\x00\x01a\x02" + n.to_bytes(2, "big"))
        assert len(decoder._remembered) <= 64
    decoder.decode(b"\x82" * 1025)
    assert b"\x82" * 1025 not in decoder._remembered


def test_all_blocks_that_are_remembered_are_short_together() -> None:
    decoder = Decoder(MAX_LIST, 2000)
    for n in range(100):
        block = b"\x82" * (n * 37 % 500) + b"\x00\x01a\x01" + bytes((n,))
        assert decoder.decode(block) is decoder.decode(block)
        assert sum(map(len, decoder._remembered)) <= 1024
    decoder.decode(b"\x40\x01a\x01b")
    for n in range(30):
        decoder.decode(b"\x82" * 30 + bytes((0x82 + n % 5,)))
    assert len(decoder._remembered) == 5  # forgetting counts anew, and what is known counts once


@pytest.mark.parametrize("first", range(0x01, 0x0F))
@pytest.mark.parametrize("never_indexed", [0x00, 0x10])
def test_short_literals_are_told_apart_and_end_where_they_say(
    first: int, never_indexed: int
) -> None:
    for value in (b"", b"a", b"b", b"x" * 126, b"x" * 127, b"x" * 128):
        head = bytes((first | never_indexed,))
        size = bytes((len(value),)) if len(value) < 127 else bytes((127, len(value) - 127))
        block = head + size + value
        for _ in range(2):
            assert pairs(Decoder(MAX_LIST).decode(block + b"\x82")) == [
                (hpack.table.HeaderTable.STATIC_TABLE[first - 1][0], value),
                (b":method", b"GET"),
            ]
            if value:
                with pytest.raises(ConnectionFault):
                    Decoder(MAX_LIST).decode(block[:-1])


def test_what_was_made_of_a_head_stays_with_its_connection() -> None:
    block = b"\x83\x86\x84\x41\x01a"
    one, other = Decoder(MAX_LIST), Decoder(MAX_LIST)
    for decoder in (one, other):
        decoder.decode(block)  # inserts
    again = b"\x83\x86\x84\xbe"
    assert one.decode(again) is one.decode(again)
    assert one.decode(again) is not other.decode(again)


def test_a_field_counts_as_the_rfc_says() -> None:
    assert Field(b"name", b"value").size == 41
