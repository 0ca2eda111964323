"""What is noted of changes: bounded, printable, by whomever; no key depends on it."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authz.errors import Conflict, KeyStoreError
from authz.keystore import Change, Note, SealedStore, update
from authz.keystore.history import (
    MAX_BY,
    MAX_BYTES,
    MAX_CHANGES,
    MAX_REASON,
    MAX_WHAT,
    as_json,
    noted,
    since,
)
from authz.keystore.sealing import seal, unseal
from tests.keystore.conftest import Opener
from tests.keystore.support import BOTH, KEK, KEKS, NEW_KEK, RING, ROOT, counted_up, watching

NOTE = Note(1_700_000_000, "ada@bastion", "all earlier tokens of shop are revoked", "ticket 17")


def record_with(history: Any, version: int = 9) -> bytes:
    """A record in which somebody who has the KEK wrote this history."""
    record, gcm = seal(RING, version, KEK), AESGCM(KEK.secret)
    header, nonce = record[:34], record[22:34]
    content = {**json.loads(gcm.decrypt(nonce, record[34:], header)), "history": history}
    return header + gcm.encrypt(nonce, json.dumps(content).encode(), header)


# A store keeps it ------------------------------------------------------------------------------


async def test_every_store_keeps_what_is_noted_and_watchers_see_it(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING, note=NOTE)
    async with watching(opened()) as watcher:
        await watcher.version(1)
        changed = await update(store, counted_up, note=lambda new: NOTE._replace(what="changed"))
        assert changed.history == (Change(1, NOTE), Change(2, NOTE._replace(what="changed")))
        assert (await watcher.version(2)).history == changed.history
    assert (await opened().load()).history == changed.history


async def test_a_change_without_a_note_keeps_those_before(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING, note=NOTE)
    await update(store, counted_up)
    snapshot = await update(store, counted_up, note=lambda _: NOTE)
    assert [change.version for change in snapshot.history] == [1, 3]
    assert since(snapshot.history, 1, 3) == ([Change(3, NOTE)], 1)


async def test_resealing_is_noted_too(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING, note=NOTE)
    both = opened(BOTH)
    await both.reseal(NEW_KEK, note=NOTE)
    assert [change.version for change in (await both.load()).history] == [1, 2]


async def test_a_rehearsal_writes_nothing_and_refuses_what_the_store_would(opened: Opener) -> None:
    store = opened()
    rehearsal = SealedStore(store._backend, KEKS, rehearse=True)
    assert (await rehearsal.compare_and_swap(None, RING, note=NOTE)).version == 1
    with pytest.raises(KeyStoreError):
        await store.load()
    await store.compare_and_swap(None, RING)
    record = await store._backend.read()
    assert (await update(rehearsal, counted_up, note=lambda _: NOTE)).version == 2
    with pytest.raises(Conflict, match="holds a keyring already"):
        await rehearsal.compare_and_swap(None, RING)
    with pytest.raises(Conflict, match="holds version 1"):
        await rehearsal.compare_and_swap(7, RING)
    with pytest.raises(Conflict, match="was changed by somebody else"):
        await store._backend.write(b"new", replaces=b"another", rehearse=True)
    assert await store._backend.read() == record


# Bounds ----------------------------------------------------------------------------------------


def test_the_last_changes_are_kept() -> None:
    history: tuple[Change, ...] = ()
    for version in range(1, 3 * MAX_CHANGES):
        history = noted(history, version, NOTE)
    assert [it.version for it in history] == [*range(2 * MAX_CHANGES, 3 * MAX_CHANGES)]
    assert unseal(seal(RING, 3 * MAX_CHANGES, KEK, history), KEKS).history == history


def test_long_notes_take_no_more_room_than_there_is() -> None:
    widest = Note(1, "\U0001f511" * MAX_BY, "\U0001f511" * MAX_WHAT, "\U0001f511" * MAX_REASON)
    history: tuple[Change, ...] = ()
    for version in range(1, 50):
        history = noted(history, version, widest)
        assert history[-1] == Change(version, widest)
        assert len(json.dumps(as_json(history))) <= MAX_BYTES
    assert 1 < len(history) < 50


# Forged ----------------------------------------------------------------------------------------

GOOD = [3, *NOTE]


@pytest.mark.parametrize(
    "forged",
    [
        [4, 1, "by", "line\nbreak", ""],
        [4, 1, "by", "\x1b[2J", ""],
        [4, 1, "by", "what", "\u202e"],
        [4, 1, "by", "what", "x" * (MAX_REASON + 1)],
        [4, 1, "b" * (MAX_BY + 1), "what", ""],
        [4, 1, "by", "w" * (MAX_WHAT + 1), ""],
        [4, 1, "", "what", ""],
        [4, 1, "by", "", ""],
        [4, 1, "by", "what"],
        [4, 1, "by", "what", "", ""],
        [4, -1, "by", "what", ""],
        [4, 10**30, "by", "what", ""],
        [4, 1.5, "by", "what", ""],
        [4, "1", "by", "what", ""],
        [4, 1, None, "what", ""],
        [4, 1, "by", ["what"], ""],
        [True, 1, "by", "what", ""],
        [3, 1, "by", "twice", ""],
        [2, 1, "by", "before", ""],
        [0, 1, "by", "never", ""],
        [-4, 1, "by", "never", ""],
        [10, 1, "by", "not yet", ""],
        [4, True, "by", "what", ""],
        {"version": 4},
        "4",
        None,
        7,
        [],
    ],
    ids=str,
)
def test_what_is_no_record_is_left_out_and_the_keys_count(forged: Any) -> None:
    unsealed = unseal(record_with([GOOD, forged]), KEKS)
    assert unsealed.keyring == RING
    assert unsealed.history == (Change(3, NOTE),)


@pytest.mark.parametrize("history", [None, {}, "text", 7, True, [[GOOD]], [None] * 100_000])
def test_what_is_no_history_is_none_and_the_keys_count(history: Any) -> None:
    unsealed = unseal(record_with(history), KEKS)
    assert (unsealed.keyring, unsealed.history) == (RING, ())


def test_more_changes_than_are_kept_are_not_read() -> None:
    history = [[version, *NOTE] for version in range(1, 1000)]
    found = unseal(record_with(history, 2000), KEKS).history
    assert [it.version for it in found] == [*range(1000 - MAX_CHANGES, 1000)]


def test_a_history_is_sealed_with_the_keys_and_holds_none() -> None:
    record = seal(RING, 3, KEK, (Change(3, NOTE),))
    assert b"ada" not in record
    assert b"ticket" not in record
    assert ROOT.secret.decode() not in json.dumps(as_json((Change(3, NOTE),)))
    with pytest.raises(KeyStoreError, match="damaged"):
        unseal(record[:-17] + bytes([record[-17] ^ 1]) + record[-16:], KEKS)
