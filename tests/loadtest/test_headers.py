"""Header blocks: as Envoy makes them, and as the `hpack` library reads them."""

import json
from pathlib import Path

import pytest
from hpack import Decoder, HPACKError
from hpack import Encoder as Witness
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.headers import Answers, Encoder, Field, Fields

RECORDED = json.loads((Path(__file__).parent / "envoy_blocks.json").read_text())
NAMES = ["te", ":path", ":method", "content-type", "x-authz-question", "x-authz-upstream"]


def test_blocks_are_those_that_envoy_made_byte_for_byte() -> None:
    decoder, encoder, fields = Decoder(), Encoder(), Fields()
    blocks = [bytes.fromhex(block) for block in RECORDED["blocks"]]
    for block in blocks:
        head = {name.decode(): value.decode() for name, value in decoder.decode(block, raw=True)}
        assert encoder.encode(fields.head(head)) == block
    assert len(blocks) > 50  # so many fill the table, and push entries out of it


def test_a_repeated_head_is_short_and_always_the_same() -> None:
    encoder, fields = Encoder(), Fields()
    head = fields.head({":method": "POST", "x-authz-question": "sign", "te": "trailers"})
    first, *later = [encoder.encode(head) for _ in range(5)]
    assert len(first) > 10
    assert set(later) == {b"\x83\xbf\xbe"}


heads = st.lists(
    st.dictionaries(
        st.sampled_from(NAMES), st.text("abc/%|", max_size=90) | st.just("POST"), max_size=6
    ),
    max_size=80,
)


@given(heads)
@settings(max_examples=60)
def test_the_library_reads_every_block_as_it_was_meant(given_heads: list[dict[str, str]]) -> None:
    decoder, encoder, fields = Decoder(), Encoder(), Fields()
    for head in given_heads:
        block = encoder.encode(fields.head(head))
        read = [(bytes(name).decode(), bytes(value).decode()) for name, value in
                decoder.decode(block, raw=True)]  # fmt: skip
        assert read == list(head.items())


def test_a_field_that_changes_each_time_is_read_each_time() -> None:
    decoder, encoder, fields = Decoder(), Encoder(), Fields()
    head = fields.head({"te": "trailers", "x-authz-question": "verify"})
    for number in range(300):
        trace = b"%055d" % number
        block = encoder.encode((*head, Field(b"traceparent", trace)))
        assert dict(decoder.decode(block, raw=True))[b"traceparent"] == trace


@given(heads)
@settings(max_examples=60)
def test_answers_are_read_as_the_library_reads_them(given_heads: list[dict[str, str]]) -> None:
    witness, plain, answers = Witness(), Decoder(), Answers()
    for number, head in enumerate(given_heads):
        if number % 7 == 3:
            witness.header_table_size = 4096 if number % 2 else 100
        block = witness.encode(list(head.items()), huffman=number % 2 == 0)
        read = {bytes(name): bytes(value) for name, value in plain.decode(block, raw=True)}
        assert answers.decode(block) == read


def test_a_remembered_block_is_forgotten_when_the_table_changes() -> None:
    answers, indexed = Answers(), b"\xbe"  # the newest entry
    answers.decode(b"\x40\x01a\x01x")
    assert answers.decode(indexed) == answers.decode(indexed) == {b"a": b"x"}
    answers.decode(b"\x40\x01b\x01y")
    assert answers.decode(indexed) == {b"b": b"y"}
    answers.decode(b"\x20")  # no table any more
    with pytest.raises(HPACKError):
        answers.decode(indexed)
