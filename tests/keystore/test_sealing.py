import base64
import json
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.keys import SECRET_BYTES, Keyring, NamespaceKeys, RootKey
from authz.domain.names import Namespace
from authz.errors import KeyStoreError
from authz.keystore import Keks
from authz.keystore.sealing import seal, unseal
from tests.keystore.support import BOTH, KEK, KEKS, NEW_KEK, RING, ROOT

times = st.integers(0, 2**63)
ids = st.text("01234567", min_size=8, max_size=8)
secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
usable_roots = st.builds(RootKey, ids, secrets, times, st.none() | times)
revoked_roots = st.builds(RootKey, ids, st.just(b""), times, times, st.just(True))
lasting_roots = st.builds(RootKey, ids, secrets, times, st.none())
namespaces = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).map(Namespace)
keyrings = st.builds(
    Keyring,
    st.lists(usable_roots | revoked_roots, max_size=5)
    .flatmap(lambda others: lasting_roots.map(lambda root: [*others, root]))
    .filter(lambda roots: len({root.id for root in roots}) == len(roots))
    .flatmap(st.permutations)
    .map(tuple),
    st.dictionaries(namespaces, st.builds(NamespaceKeys, times, times, times), max_size=8),
    st.frozensets(st.text("89abcdef", min_size=8, max_size=8), max_size=3),
    st.none() | times,
)


@given(keyrings, st.integers(1, 2**64 - 1))
def test_any_keyring_comes_back_as_it_was(keyring: Keyring, version: int) -> None:
    assert unseal(seal(keyring, version, KEK), BOTH) == (keyring, version, KEK, ())


def test_two_records_of_one_keyring_share_no_nonce() -> None:
    records = {seal(RING, 1, KEK)[22:34] for _ in range(100)}
    assert len(records) == 100


@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_record_with_any_byte_changed_is_never_a_keyring(flip: int) -> None:
    record = seal(RING, 1, KEK)
    for offset in range(len(record)):
        changed = bytearray(record)
        changed[offset] ^= flip
        with pytest.raises(KeyStoreError):
            unseal(bytes(changed), BOTH)


def test_a_record_that_is_cut_short_or_lengthened_is_never_a_keyring() -> None:
    record = seal(RING, 1, KEK)
    for length in range(len(record)):
        with pytest.raises(KeyStoreError, match="damaged: restore a backup"):
            unseal(record[:length], KEKS)
    with pytest.raises(KeyStoreError, match="damaged"):
        unseal(record + b"\0", KEKS)


def test_what_was_never_a_record_is_damaged_rather_than_under_an_unknown_kek() -> None:
    with pytest.raises(KeyStoreError, match="damaged"):
        unseal(b"\xa5" * 200, KEKS)


def test_a_record_cannot_be_passed_off_as_another_version() -> None:
    old = seal(RING, 7, KEK)
    forged = old[:14] + struct.pack(">Q", 8) + old[22:]
    with pytest.raises(KeyStoreError, match="damaged"):
        unseal(forged, KEKS)


def test_the_wrong_kek_is_named_with_those_that_are_there() -> None:
    with pytest.raises(KeyStoreError) as caught:
        unseal(seal(RING, 1, NEW_KEK), KEKS)
    assert str(caught.value) == (
        f"the keyring is sealed under KEK {NEW_KEK.id}; readable here: {KEK.id}. "
        "Configure the file of that KEK too"
    )


def test_a_record_renamed_to_another_kek_does_not_open() -> None:
    record = seal(RING, 1, NEW_KEK)
    with pytest.raises(KeyStoreError, match="damaged"):
        unseal(record[:10] + bytes.fromhex(KEK.id) + record[14:], BOTH)


def test_a_newer_format_asks_for_an_upgrade() -> None:
    record = seal(RING, 1, KEK)
    with pytest.raises(KeyStoreError, match=r"format 3 .* up to format 2: .* so upgrade this one"):
        unseal(record[:8] + struct.pack(">H", 3) + record[10:], KEKS)


def test_a_record_cannot_be_passed_off_as_one_of_an_older_format() -> None:
    record = seal(RING, 1, KEK)
    with pytest.raises(KeyStoreError, match="damaged"):
        unseal(record[:8] + struct.pack(">H", 1) + record[10:], KEKS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"roots":[],"namespaces":[]}',
        b'{"roots":[["00000001","c2hvcnQ=",0,null,false]],"namespaces":[]}',
        b'{"roots":[["00000001","c2hvcnQ"]],"namespaces":[]}',
        b'{"roots":1,"namespaces":[]}',
        b'{"roots":[["00000001",7,0,null,false]],"namespaces":[]}',
        json.dumps(
            {
                "roots": [["00000001", base64.b64encode(bytes(32)).decode(), 0, None, False]],
                "namespaces": [["shop", -1, 0, 0]],
            }
        ).encode(),
        json.dumps(
            {
                "roots": [["00000001", base64.b64encode(bytes(32)).decode(), 0, None, False]],
                "namespaces": [["shop", 1, 0, 0, 0]],
            }
        ).encode(),
    ],
)
def test_content_that_makes_no_keyring_is_refused_without_being_quoted(content: bytes) -> None:
    header = seal(RING, 1, KEK)[:34]
    record = header + AESGCM(KEK.secret).encrypt(header[22:], content, header)
    with pytest.raises(KeyStoreError, match="another program, or by a faulty version") as caught:
        unseal(record, KEKS)
    assert caught.value.__suppress_context__


def test_a_record_of_format_1_stays_readable() -> None:
    # Made once by seal(RING, 3, KEK), and never again.
    record = (Path(__file__).parent / "format-1.record").read_bytes()
    assert unseal(record, KEKS) == (RING, 3, KEK, ())
    assert (RING.gone, RING.changed_at) == (frozenset(), None)
    assert seal(RING, 4, KEK)[8:10] == struct.pack(">H", 2)


def test_the_record_does_not_show_what_it_holds() -> None:
    record = seal(RING, 1, KEK)
    assert ROOT.secret not in record
    assert b"shop" not in record
    assert repr(unseal(record, Keks(KEK))).count("secret") == 0
