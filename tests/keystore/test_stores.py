"""What every key store does, whatever it is kept in."""

import asyncio
import dataclasses

import pytest

from authz.domain import rotation
from authz.domain.keys import KeyId, TokenLife
from authz.domain.names import Namespace
from authz.domain.reason import InvalidToken, Reason
from authz.errors import Conflict, KeyringError, KeyStoreError
from authz.keystore import Keks, KeyStore, Snapshot, base, update
from tests.keystore.conftest import Opener
from tests.keystore.support import BOTH, KEKS, NEW_KEK, RING, ROOT, count, counted_up, watching
from tests.support.waiting import soon

LIFE = TokenLife()
SHOP = Namespace("shop")


async def test_what_was_created_is_loaded_by_another_store_object(opened: Opener) -> None:
    created = await opened().compare_and_swap(None, RING)
    assert created == Snapshot(RING, 1)
    assert await opened().load() == created


async def test_an_empty_store_loads_nothing_and_says_so(opened: Opener) -> None:
    with pytest.raises(KeyStoreError, match=r"no keyring yet|does not exist"):
        await opened().load()
    with pytest.raises(KeyStoreError, match=r"no keyring yet|does not exist"):
        await opened().compare_and_swap(1, RING)


async def test_nothing_is_created_over_a_keyring(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING)
    with pytest.raises(Conflict, match="holds a keyring already"):
        await store.compare_and_swap(None, rotation.create(0))
    assert await store.load() == Snapshot(RING, 1)


async def test_a_keyring_is_created_under_one_kek_only(opened: Opener) -> None:
    with pytest.raises(KeyStoreError, match=r"2 are configured .*: name the one to use"):
        await opened(BOTH).compare_and_swap(None, RING)
    with pytest.raises(KeyStoreError):
        await opened().load()


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_change_of_another_version_is_refused(opened: Opener, expected: int) -> None:
    store = opened()
    await store.compare_and_swap(None, RING)
    await store.compare_and_swap(1, counted_up(RING))
    with pytest.raises(Conflict, match=f"version 2 .* not {expected}"):
        await store.compare_and_swap(expected, RING)
    assert count(await store.load()) == 1


async def test_update_repeats_the_change_on_what_somebody_else_stored(opened: Opener) -> None:
    mine, theirs = opened(), opened()
    await mine.compare_and_swap(None, RING)
    seen: list[int] = []

    class Overtaken:
        """The store, which somebody else changes between the first load and the first write."""

        def __getattr__(self, name: str) -> object:
            return getattr(mine, name)

        async def load(self) -> Snapshot:
            snapshot = await mine.load()
            if not seen:
                await update(theirs, counted_up)
            seen.append(snapshot.version)
            return snapshot

    store: KeyStore = Overtaken()  # type: ignore[assignment] # by __getattr__
    snapshot = await update(store, counted_up)
    assert (seen, count(snapshot), snapshot.version) == ([1, 2], 2, 3)


async def test_update_gives_up_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_LONGEST_PAUSE", 0)
    attempts = 0

    class Contested:
        async def load(self) -> Snapshot:
            return Snapshot(RING, 1)

        async def compare_and_swap(self, *_: object, **__: object) -> Snapshot:
            nonlocal attempts
            attempts += 1
            raise Conflict("too late")

    with pytest.raises(Conflict, match="too late"):
        await update(Contested(), lambda keyring: keyring)  # type: ignore[arg-type]
    assert attempts == 20


async def test_what_the_change_raises_is_passed_on_and_nothing_is_stored(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING)
    with pytest.raises(KeyringError, match="no root key 'ffffffff'"):
        await update(store, lambda ring: rotation.revoke_root(ring, "ffffffff", 0, life=LIFE))
    assert await store.load() == Snapshot(RING, 1)


async def test_many_writers_at_once_lose_no_change(opened: Opener) -> None:
    await opened().compare_and_swap(None, RING)
    stores = [opened() for _ in range(4)]
    await asyncio.gather(*(update(store, counted_up) for store in stores for _ in range(5)))
    snapshot = await opened().load()
    assert (count(snapshot), snapshot.version) == (20, 21)


async def test_a_watch_yields_what_is_there_and_then_what_others_change(opened: Opener) -> None:
    await opened().compare_and_swap(None, RING)
    async with watching(opened()) as watcher:
        assert await watcher.version(1) == Snapshot(RING, 1)
        other = opened()
        for version in (2, 3):
            written = await update(other, counted_up)
            assert await watcher.version(version) == written


async def test_a_watch_yields_what_its_own_store_changes(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING)
    async with watching(store) as one, watching(store) as two:
        await one.version(1)
        await update(store, counted_up)
        assert count(await one.version(2)) == count(await two.version(2)) == 1


async def test_a_watch_waits_for_a_keyring_that_is_created_later(opened: Opener) -> None:
    async with watching(opened()) as watcher:
        assert "key store" in await watcher.problem()
        await opened().compare_and_swap(None, RING)
        await watcher.version(1)


async def test_a_watch_reports_after_each_look_also_where_nothing_changes(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING)
    async with watching(store) as watcher:
        for _ in range(3):
            assert await soon(watcher.reports.get()) is None
        assert watcher.snapshots.qsize() == 1


async def test_a_watch_ends_when_its_store_is_closed(opened: Opener) -> None:
    store, bystander = opened(), opened()
    await store.compare_and_swap(None, RING)
    async with watching(bystander) as unmoved:
        versions = []
        async for snapshot in store.watch():
            versions.append(snapshot.version)
            await store.close()
            await store.close()  # again is harmless
        assert versions == [1]
        await update(opened(), counted_up)
        await unmoved.version(2)


async def test_a_rotated_root_signs_later_and_the_old_one_verifies_until_then(
    opened: Opener,
) -> None:
    store, now = opened(), 5_000
    await store.compare_and_swap(None, RING)
    await update(store, lambda ring: rotation.rotate_root(ring, now, delay=3600, life=LIFE))
    ring = (await opened().load()).keyring
    old = ring.signing_key(SHOP, now)
    new = ring.signing_key(SHOP, now + 3600)
    assert old.id.root == ROOT.id != new.id.root
    assert ring.verifying_secret(SHOP, old.id, now + 3600) == old.secret
    assert ring.verifying_secret(SHOP, new.id, now) == new.secret


async def test_a_rotated_namespace_keeps_its_overlap(opened: Opener) -> None:
    store, now = opened(), 5_000
    await store.compare_and_swap(None, RING)
    before = RING.signing_key(SHOP, now)
    await update(
        store, lambda ring: rotation.rotate_namespace(ring, SHOP, now, delay=60, life=LIFE)
    )
    ring = (await opened().load()).keyring
    after = ring.signing_key(SHOP, now + 60)
    assert (before.id.generation, after.id.generation) == (2, 3)
    assert ring.signing_key(SHOP, now) == before
    assert ring.verifying_secret(SHOP, before.id, now + 60) == before.secret
    with pytest.raises(InvalidToken) as caught:
        ring.verifying_secret(SHOP, before.id, now + 60 + LIFE.gone_after)
    assert caught.value.reason is Reason.KEY_RETIRED


async def test_a_revoked_namespace_and_a_revoked_root_stay_revoked(opened: Opener) -> None:
    store, now = opened(), 5_000
    await store.compare_and_swap(None, RING)
    before = RING.signing_key(SHOP, now)
    await update(store, lambda ring: rotation.revoke_namespace(ring, SHOP, now))
    ring = (await opened().load()).keyring
    with pytest.raises(InvalidToken) as caught:
        ring.verifying_secret(SHOP, before.id, now)
    assert caught.value.reason is Reason.KEY_REVOKED

    await update(store, lambda ring: rotation.revoke_root(ring, ROOT.id, now, life=LIFE))
    ring = (await opened().load()).keyring
    with pytest.raises(InvalidToken) as caught:
        ring.verifying_secret(SHOP, KeyId(ROOT.id, 3), now)
    assert caught.value.reason is Reason.KEY_REVOKED
    assert [root.secret for root in ring.roots if root.revoked] == [b""]


async def test_resealing_changes_the_kek_and_nothing_else(opened: Opener) -> None:
    await opened().compare_and_swap(None, RING)
    async with watching(opened(BOTH)) as watcher:
        await watcher.version(1)
        assert await opened(BOTH).reseal(NEW_KEK) == Snapshot(RING, 2)
        assert await watcher.version(2) == Snapshot(RING, 2)
    assert await opened(Keks(NEW_KEK)).load() == Snapshot(RING, 2)
    with pytest.raises(KeyStoreError, match=f"sealed under KEK {NEW_KEK.id}; readable here: "):
        await opened(KEKS).load()


async def test_who_can_read_two_keks_writes_under_the_one_in_use(opened: Opener) -> None:
    await opened().compare_and_swap(None, RING)
    await update(opened(BOTH), counted_up)
    assert count(await opened(KEKS).load()) == 1
    await opened(BOTH).reseal(NEW_KEK)
    await update(opened(BOTH), counted_up)
    assert count(await opened(Keks(NEW_KEK)).load()) == 2


async def test_nobody_reseals_under_a_kek_that_he_cannot_read(opened: Opener) -> None:
    store = opened()
    await store.compare_and_swap(None, RING)
    with pytest.raises(KeyStoreError, match="configure it too, here and on every server"):
        await store.reseal(NEW_KEK)
    assert await store.load() == Snapshot(RING, 1)


async def test_resealing_loses_no_change_that_is_made_meanwhile(opened: Opener) -> None:
    await opened().compare_and_swap(None, RING)
    writers = [update(opened(BOTH), counted_up) for _ in range(5)]
    resealers = [opened(BOTH).reseal(NEW_KEK) for _ in range(3)]
    await asyncio.gather(*writers, *resealers)
    snapshot = await opened(Keks(NEW_KEK)).load()
    assert (count(snapshot), snapshot.version) == (5, 9)


async def test_a_writer_without_the_kek_changes_nothing(opened: Opener) -> None:
    await opened().compare_and_swap(None, RING)
    stranger = opened(Keks(NEW_KEK))
    for attempt in (
        stranger.load(),
        stranger.compare_and_swap(1, RING),
        stranger.reseal(NEW_KEK),
        update(stranger, counted_up),
    ):
        with pytest.raises(KeyStoreError, match="Configure the file of that KEK too") as caught:
            await attempt
        assert not isinstance(caught.value, Conflict)
    assert await opened().load() == Snapshot(RING, 1)


async def test_a_watch_that_cannot_unseal_goes_on_and_reports(opened: Opener) -> None:
    await opened().compare_and_swap(None, RING)
    async with watching(opened()) as watcher:
        await watcher.version(1)
        await opened(BOTH).reseal(NEW_KEK)
        assert f"sealed under KEK {NEW_KEK.id}" in await watcher.problem()
        await opened(BOTH).reseal(KEKS.only())
        await watcher.version(3)
        await watcher.all_well()


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Snapshot(RING, 1).version = 2  # type: ignore[misc]
