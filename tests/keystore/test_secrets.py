"""No secret is ever shown: not in the files, nor in a repr, an error or a log line."""

import asyncio
import base64
import logging
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authz.domain import rotation
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import Namespace
from authz.errors import AuthzError
from authz.keystore import (
    Kek,
    Keks,
    SealedStore,
    generate_kek_file,
    parse_kek,
    read_kek_file,
    update,
)
from authz.keystore.sealing import unseal
from tests.keystore.support import BOTH, KEK, KEKS, NEW_KEK, RING, sqlite_store

LIFE = TokenLife()


def spellings(secret: bytes) -> Iterator[bytes]:
    """The ways in which a secret might be written, each long enough to be no accident."""
    yield secret
    yield secret[:12]
    yield secret.hex()[:24].encode()
    yield secret.hex().upper()[:24].encode()
    yield repr(secret)[2:-1].encode()[:16]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # as it would look in the middle of a longer text
            yield encode(bytes(shift) + secret)[4:24]


def test_the_search_would_find_a_secret() -> None:
    secret = KEK.secret
    for text in (
        secret,
        secret.hex().encode(),
        repr(KEK.secret).encode(),
        base64.b64encode(b"xx" + secret),
        base64.urlsafe_b64encode(secret),
    ):
        assert any(spelling in text for spelling in spellings(secret))


async def everything_that_is_said(path: Path, secrets: set[bytes]) -> list[str]:
    """Use the store in every way, rightly and wrongly."""
    said: list[str] = []

    def note(*values: object) -> None:
        said.extend(text for value in values for text in (repr(value), str(value)))

    async def fail(store: SealedStore) -> None:
        for work in (
            store.load(),
            store.compare_and_swap(None, RING),
            store.compare_and_swap(99, RING),
            store.reseal(NEW_KEK),
        ):
            try:
                note(await work)
            except AuthzError as error:
                note(error)
                said.extend(traceback.format_exception(error))

    store = sqlite_store(path)
    note(store, KEK, KEKS, BOTH, RING, await store.compare_and_swap(None, RING))
    changes: list[Callable[[Keyring], Keyring]] = [
        lambda ring: rotation.rotate_root(ring, 5_000, delay=60, life=LIFE),
        lambda ring: rotation.rotate_namespace(ring, Namespace("a"), 5_000, delay=60, life=LIFE),
        lambda ring: rotation.revoke_root(ring, ring.roots[0].id, 5_000, life=LIFE),
    ]
    for change in changes:
        snapshot = await update(store, change)
        secrets.update(root.secret for root in snapshot.keyring.roots if root.secret)
        note(snapshot, snapshot.keyring.signing_key(Namespace("a"), 9_000))
    note(unseal(await store._backend.read(), KEKS))
    await fail(store)
    await fail(sqlite_store(path, Keks(NEW_KEK)))

    kek_file = path.with_name("kek")
    kek = generate_kek_file(kek_file)
    secrets.add(kek.secret)
    note(kek, read_kek_file(kek_file))
    kek_file.chmod(0o644)
    mistakes: list[Callable[[], Kek]] = [
        lambda: read_kek_file(kek_file),
        lambda: generate_kek_file(kek_file),
        lambda: parse_kek(base64.b64encode(kek.secret).decode() + "!", source="NAME"),
    ]
    for wrong in mistakes:
        with pytest.raises(AuthzError) as caught:
            wrong()
        note(caught.value)
        said.extend(traceback.format_exception(caught.value))
    kek_file.unlink()

    # A file in the middle of a change has a journal.
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE keyring SET record = x'00'")
    said.extend(file.read_bytes().decode("latin-1") for file in path.parent.iterdir())
    connection.close()

    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    await fail(store)
    path.write_bytes(b"x" * 5_000)
    await fail(store)
    path.unlink()
    await fail(store)
    await store.close()
    return said


async def test_no_secret_is_shown_anywhere(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    secrets = {KEK.secret, NEW_KEK.secret, *(root.secret for root in RING.roots)}
    said = await everything_that_is_said(path, secrets)
    logging.getLogger().debug("the end")
    assert "the end" in caplog.text
    haystack = "\n".join([*said, caplog.text]).encode("latin-1", "replace")
    assert len(secrets) >= 5
    assert len(haystack) > 20_000
    for secret in secrets:
        for spelling in spellings(secret):
            assert spelling not in haystack


def test_neither_a_keyring_nor_its_store_shows_a_secret_to_a_failed_assertion() -> None:
    ring = Keyring.of(*RING.roots)
    with pytest.raises(AssertionError) as caught:
        assert ring == rotation.create(0)
    for secret in spellings(RING.roots[0].secret):
        assert secret not in str(caught.value).encode("latin-1", "replace")
