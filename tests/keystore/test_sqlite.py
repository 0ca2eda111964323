"""One SQLite file: privacy, sharing, replacing, and every way in which it cannot be used."""

import errno
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from authz.domain.keys import Keyring, NamespaceKeys
from authz.domain.names import Namespace
from authz.errors import Conflict, KeyringReplaced, KeyStoreError
from authz.keystore import Keks, Snapshot, SqliteBackend, open_store, update
from authz.keystore.mark import Mark
from authz.keystore.sqlite_file import APPLICATION_ID
from tests.keystore.support import (
    BOTH,
    KEK,
    KEKS,
    NEW_KEK,
    RING,
    ROOT,
    Child,
    become_nobody,
    count,
    counted_up,
    outcome,
    sqlite_store,
    tell_outcome,
    watching,
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")

LARGE = Keyring(
    (ROOT,), {Namespace(f"tenant-{i:05}"): NamespaceKeys(1, 1_000, 1_780) for i in range(10_000)}
)
"""A keyring of half a megabyte."""


async def create(path: Path, keyring: Keyring = RING, *, rehearse: bool = False) -> None:
    store = sqlite_store(path, rehearse=rehearse)
    await store.compare_and_swap(None, keyring)
    await store.close()


async def refusal(path: Path, keks: Keks = KEKS) -> str:
    """What loading and updating both say. Whatever it is, the file must be as it was."""
    before = path.read_bytes() if path.is_file() else None
    store = sqlite_store(path, keks, patience=0.05)
    with pytest.raises(KeyStoreError) as loading:
        await store.load()
    with pytest.raises(KeyStoreError) as updating:
        await update(store, counted_up)
    await store.close()
    assert str(loading.value) == str(updating.value)
    assert str(path) in str(loading.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    return str(loading.value)


def in_sql(path: Path, *statements: str) -> None:
    with sqlite3.connect(path, isolation_level=None) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


# --- opening ---------------------------------------------------------------------------------


async def test_a_url_opens_the_file(path: Path) -> None:
    await create(path)
    store = open_store(f"sqlite:{path}", KEKS)
    assert await store.load() == Snapshot(RING, 1)
    await store.close()


async def test_a_url_opens_a_memory_of_its_own() -> None:
    one, two = open_store("memory:", KEKS), open_store("memory:", KEKS)
    await one.compare_and_swap(None, RING)
    with pytest.raises(KeyStoreError, match="no keyring yet"):
        await two.load()


@pytest.mark.parametrize("url", ["", "sqlite", "sqlite:", "sqlite://h/x", "memory:x", "etcd:/x"])
def test_another_url_is_refused_with_those_that_work(url: str) -> None:
    with pytest.raises(KeyStoreError, match=r"write sqlite:/path/to/keys\.db, kubernetes:"):
        open_store(url, KEKS)


async def test_a_path_is_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&b%20#c é"
    await create(path)
    store = sqlite_store(path)
    assert await store.load() == Snapshot(RING, 1)
    await store.close()
    assert {file.name for file in tmp_path.iterdir()} == {path.name, f"{path.name}.mark"}


# --- privacy ---------------------------------------------------------------------------------


async def test_file_and_journal_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        await create(path)
    finally:
        os.umask(before)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE keyring SET record = x'00'")
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    connection.close()
    assert modes == {"keys.db": 0o600, "keys.db-journal": 0o600, "keys.db.mark": 0o600}


async def test_between_changes_the_file_is_all_there_is(path: Path) -> None:
    store = sqlite_store(path)
    await store.compare_and_swap(None, RING)
    await update(store, counted_up)
    assert sorted(file.name for file in path.parent.iterdir()) == ["keys.db", "keys.db.mark"]
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    await store.close()
    restored = sqlite_store(copy)
    assert count(await restored.load()) == 1
    await restored.close()


async def test_after_resealing_nothing_sealed_under_the_old_kek_is_left(path: Path) -> None:
    await create(path, LARGE)
    old = await SqliteBackend(path).read()
    store = sqlite_store(path, BOTH)
    await store.compare_and_swap(1, RING)  # so that pages of the file fall free
    await store.reseal(NEW_KEK)
    await store.close()
    content = path.read_bytes()
    assert not any(old[start : start + 16] in content for start in range(0, len(old) - 16, 16))


async def test_a_change_reaches_the_disk_before_it_is_reported(path: Path) -> None:
    await create(path)
    backend = SqliteBackend(path)
    await backend.read()
    # A killed process cannot tell, and a test cannot cut the power: so ask. 3 is EXTRA.
    settings = await backend._run(
        lambda: [
            backend._file._open().execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode")
        ]
    )
    assert settings == [3, "delete"]
    await backend.close()


# --- sharing ---------------------------------------------------------------------------------


async def test_a_replaced_file_is_seen_and_written(path: Path) -> None:
    await create(path)
    other = path.with_name("other.db")
    await create(other, LARGE)
    in_use, another = sqlite_store(path), sqlite_store(other)
    await in_use.load()
    assert await update(another, counted_up) == await another.load()
    await another.close()
    other.replace(path)
    assert count(await in_use.load()) == 1
    await update(in_use, counted_up, adopt=True)
    await in_use.close()
    reopened = sqlite_store(path)
    assert count(await reopened.load()) == 2
    await reopened.close()


@pytest.mark.parametrize(
    "put", [shutil.copyfile, shutil.copy2, os.replace], ids=["cp", "cp -p", "mv"]
)
async def test_an_older_copy_is_reported_and_not_taken_over(
    path: Path, put: Callable[[Path, Path], object]
) -> None:
    await create(path)
    backup, newest = path.with_name("backup.db"), path.with_name("newest.db")
    shutil.copy(path, backup)
    store = sqlite_store(path, interval=0.01)
    async with watching(store) as watcher:
        await watcher.version(1)
        await update(store, counted_up)
        await watcher.version(2)
        shutil.copy(path, newest)
        put(backup, path)
        problem = await watcher.problem()
        assert f"{path} holds version 1 of the keyring, which takes back what version 2" in problem
        assert "namespace counted is at generation 0, and was at 1" in problem
        assert "Put the newest one back, or run `authz keys recover`" in problem

        # Other changes, of the same number or of a greater one, do not make it newer.
        for version in (2, 3, 4):
            await update(store, lambda keyring: keyring, adopt=True)
            while f"holds version {version}" not in (problem := await watcher.problem()):
                assert f"holds version {version - 1}" in problem
        assert watcher.snapshots.empty()

        put(newest, path)
        await watcher.all_well()
        assert watcher.snapshots.empty()
        await update(store, lambda keyring: keyring, adopt=True)
        await watcher.version(3)
        await update(store, counted_up)
        assert count(await watcher.version(4)) == 2
    await store.close()


async def test_a_copy_that_is_written_over_the_file_is_seen_though_it_changed_as_often(
    path: Path,
) -> None:
    """SQLite counts changes, and then counts as many."""
    await create(path)
    backup = path.with_name("backup.db")
    shutil.copyfile(path, backup)
    running, other = sqlite_store(path), sqlite_store(path)
    await update(other, counted_up)
    assert count(await running.load()) == 1
    shutil.copyfile(backup, path)
    await update(other, lambda ring: counted_up(counted_up(ring)), adopt=True)
    assert count(await running.load()) == 2
    await running.close()
    await other.close()


async def test_a_copy_that_was_put_back_is_told_and_not_changed(path: Path) -> None:
    await create(path)
    backup, newest = path.with_name("backup.db"), path.with_name("newest.db")
    shutil.copyfile(path, backup)
    store = sqlite_store(path, BOTH)
    changed = await update(store, counted_up)
    assert changed.put_by is None
    shutil.copyfile(path, newest)
    shutil.copyfile(backup, path)
    assert (await store.load()).put_by == "took the place of what `authz keys` wrote last"
    for work in (update(store, counted_up), store.reseal(NEW_KEK)):
        with pytest.raises(KeyringReplaced, match=r"holds a copy .* Run `authz keys recover`"):
            await work
    assert path.read_bytes() == backup.read_bytes()
    shutil.copyfile(newest, path)
    assert (await store.load()).put_by is None
    shutil.copyfile(backup, path)
    await update(store, counted_up, adopt=True)
    assert (await store.load()).put_by is None
    assert count(await update(store, counted_up)) == 2
    await store.close()


@pytest.mark.parametrize("mark", [None, b"", b"garbage", b"0" * 65])
async def test_without_a_mark_nothing_is_known_and_the_next_change_makes_one(
    path: Path, mark: bytes | None
) -> None:
    await create(path)
    backup, file = path.with_name("backup.db"), path.with_name("keys.db.mark")
    shutil.copyfile(path, backup)
    store = sqlite_store(path)
    await update(store, counted_up)
    file.unlink()
    if mark is not None:
        file.write_bytes(mark)
    assert (await store.load()).put_by is None
    await update(store, counted_up)
    shutil.copyfile(backup, path)
    assert (await store.load()).put_by is not None
    await store.close()


async def test_whoever_is_killed_beside_a_change_leaves_no_doubt(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(path)
    store = sqlite_store(path)
    put_down = Mark.put_down
    for call in (1, 2):  # before the change is committed, and after
        calls = 0

        def die(mark: Mark, *records: bytes) -> None:
            nonlocal calls
            put_down(mark, *records)
            calls += 1
            if calls == call:  # noqa: B023 - at once
                raise Killed

        monkeypatch.setattr(Mark, "put_down", die)
        with pytest.raises(Killed):
            await update(store, counted_up)
        monkeypatch.setattr(Mark, "put_down", put_down)
        assert (await store.load()).put_by is None
        await update(store, counted_up)
    await store.close()


class Killed(BaseException):
    pass


async def test_a_disk_that_is_full_when_a_change_is_marked_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(path)
    store = sqlite_store(path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Mark, "put_down", full)
        with pytest.raises(KeyStoreError, match="the disk is full: make room and try again"):
            await update(store, counted_up)
    assert await store.load() == Snapshot(RING, 1)
    assert count(await update(store, counted_up)) == 1
    await store.close()


async def test_where_a_keyring_was_none_is_made_anew(path: Path) -> None:
    await create(path)
    os.truncate(path, 0)
    text = await refusal(path)
    assert "holds no keyring, though one was written into it: put its newest copy back" in text
    assert "init" not in text
    with pytest.raises(Conflict, match="lock out every tenant: put its newest copy back, or rem"):
        await create(path)
    path.unlink()
    assert "does not exist, though one was written into it" in await refusal(path)
    await create(path)  # whoever removed the file knows that it is gone
    store = sqlite_store(path)
    assert (await store.load()).put_by is None
    await store.close()


async def test_a_watch_survives_that_the_file_is_away_for_a_while(path: Path) -> None:
    await create(path)
    away = path.with_name("away.db")
    store = sqlite_store(path, interval=0.01)
    async with watching(store) as watcher:
        await watcher.version(1)
        path.rename(away)
        assert "no longer holds the keyring that is in use here" in await watcher.problem()
        away.rename(path)
        await watcher.all_well()
        assert watcher.snapshots.empty()
        await update(store, counted_up)
        await watcher.version(2)
    await store.close()


async def test_a_locked_file_says_so_and_is_used_when_it_is_free(path: Path) -> None:
    await create(path)
    store = sqlite_store(path, patience=0.05)
    locker = sqlite3.connect(path, isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    assert await store.load() == Snapshot(RING, 1)
    with pytest.raises(KeyStoreError, match=r"locked by another process: .*fuser") as caught:
        await update(store, counted_up)
    assert not isinstance(caught.value, Conflict)
    locker.close()
    assert count(await update(store, counted_up)) == 1
    await store.close()


# --- what cannot be used ---------------------------------------------------------------------


async def test_a_missing_file_is_not_made_by_looking_for_it(path: Path) -> None:
    text = await refusal(path)
    assert "does not exist: put its newest copy back" in text
    assert "if there never was a keyring, run `authz keys init`" in text
    assert "there is no directory" in await refusal(path.parent / "nowhere" / "keys.db")


async def test_nothing_is_created_where_there_is_no_directory(path: Path) -> None:
    store = sqlite_store(path.parent / "nowhere" / "keys.db")
    with pytest.raises(KeyStoreError, match="cannot be made: there is no directory"):
        await store.compare_and_swap(None, RING)
    await store.close()


async def test_an_empty_file_is_a_store_to_be_created(path: Path) -> None:
    path.touch()
    assert "holds no keyring: put its newest copy back" in await refusal(path)
    await create(path)


async def test_a_directory_is_refused(path: Path) -> None:
    path.mkdir()
    assert "is not a file: correct the path" in await refusal(path)


async def test_the_wrong_kek_is_refused(path: Path) -> None:
    await create(path)
    text = await refusal(path, Keks(NEW_KEK))
    assert f"sealed under KEK {KEK.id}; readable here: {NEW_KEK.id}" in text


async def test_what_is_no_database_is_refused_and_not_overwritten(path: Path) -> None:
    path.write_text("a letter to my mother\n" * 1000)
    assert "is not a key store: correct the path" in await refusal(path)
    store = sqlite_store(path)
    with pytest.raises(KeyStoreError, match="is not a key store"):
        await store.compare_and_swap(None, RING)
    await store.close()
    assert path.read_text().startswith("a letter")


async def test_another_programs_database_is_refused_and_not_changed(path: Path) -> None:
    in_sql(path, "CREATE TABLE letters (text)")
    assert "is the database of another program" in await refusal(path)
    in_sql(path, "PRAGMA application_id = 7")
    assert "is the database of another program" in await refusal(path)
    store = sqlite_store(path)
    with pytest.raises(KeyStoreError, match="another program"):
        await store.compare_and_swap(None, RING)
    await store.close()


async def test_a_newer_schema_asks_for_an_upgrade(path: Path) -> None:
    await create(path)
    in_sql(path, "PRAGMA user_version = 2")
    assert "has schema 2 and this program knows schema 1" in await refusal(path)


async def test_a_newer_schema_stops_a_running_server_from_writing(path: Path) -> None:
    await create(path)
    store = sqlite_store(path)
    await store.load()
    in_sql(path, "PRAGMA user_version = 2")
    with pytest.raises(KeyStoreError, match="so upgrade this one"):
        await update(store, counted_up)
    await store.close()


def cut(path: Path, at: int) -> None:
    os.truncate(path, at)


def overwrite(path: Path, at: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * length)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut in the first page": lambda path: cut(path, 1000),
    "cut after the first page": lambda path: cut(path, 4096),
    "cut in the middle": lambda path: cut(path, path.stat().st_size // 2),
    "last page lost": lambda path: cut(path, path.stat().st_size - 4096),
    "header overwritten": lambda path: overwrite(path, 0, 100),
    "page size overwritten": lambda path: overwrite(path, 16, 2),
    "first tree overwritten": lambda path: overwrite(path, 100, 100),
    "second tree overwritten": lambda path: overwrite(path, 4096, 100),
    "record overwritten": lambda path: overwrite(path, path.stat().st_size - 200, 1),
    "record gone": lambda path: in_sql(path, "DELETE FROM keyring"),
    "table gone": lambda path: in_sql(path, "DROP TABLE keyring"),
    "no record": lambda path: in_sql(
        path, "PRAGMA ignore_check_constraints = 1", "UPDATE keyring SET record = 7"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_refused_and_left_alone(path: Path, damage: str) -> None:
    await create(path, LARGE)
    DAMAGES[damage](path)
    text = await refusal(path)
    assert "damaged" in text or "is not a key store" in text
    assert "restore a backup" in text


async def test_no_byte_of_the_file_changes_the_keyring_unnoticed(path: Path) -> None:
    await create(path)
    original = path.read_bytes()
    for offset in range(0, len(original), 5):
        changed = path.with_name("changed.db")
        changed.write_bytes(
            original[:offset] + bytes([original[offset] ^ 0xFF]) + original[offset + 1 :]
        )
        store = sqlite_store(changed, patience=0.05)
        left = await outcome(store.load())
        # Some bytes say nothing: those of free space, for instance.
        assert left == Snapshot(RING, 1) or (isinstance(left, str) and str(changed) in left)
        await store.close()


async def test_a_file_that_may_not_grow_stays_as_it_was(path: Path) -> None:
    await create(path)
    backend = SqliteBackend(path)
    store = open_store(f"sqlite:{path}", KEKS)
    record = await backend.read()

    def limit() -> None:
        backend._file._open().execute("PRAGMA max_page_count = 3")

    await backend._run(limit)
    with pytest.raises(KeyStoreError, match="the disk is full: make room and try again"):
        await backend.write(bytes(100_000), replaces=record)
    assert await store.load() == Snapshot(RING, 1)
    assert count(await update(store, counted_up)) == 1
    await backend.close()
    await store.close()


async def test_a_full_disk_leaves_the_store_unharmed(small_disk: Path) -> None:
    path = small_disk / "keys.db"
    await create(path)
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(bytes(1 << 20))
    store = sqlite_store(path)
    for change in (counted_up, lambda _: LARGE):
        with pytest.raises(KeyStoreError, match=r"disk is full|check the disk"):
            await update(store, change)
        assert await store.load() == Snapshot(RING, 1)
    with pytest.raises(KeyStoreError, match=r"No space left|disk is full|check the disk"):
        await create(small_disk / "another.db")
    filler.unlink()
    with pytest.raises(KeyStoreError, match="the disk is full: make room"):
        await update(store, lambda _: LARGE)
    assert count(await update(store, counted_up)) == 1
    await store.close()
    await create(small_disk / "another.db")


async def test_a_read_only_disk_can_be_read(small_disk: Path) -> None:
    path = small_disk / "keys.db"
    await create(path)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    store = sqlite_store(path)
    assert await store.load() == Snapshot(RING, 1)
    for tried in (store, sqlite_store(path, rehearse=True)):
        with pytest.raises(KeyStoreError, match="cannot be written: give this user the permission"):
            await update(tried, counted_up)
    for rehearse in (False, True):
        with pytest.raises(KeyStoreError, match="Read-only file system"):
            await create(small_disk / "another.db", rehearse=rehearse)
    assert await store.load() == Snapshot(RING, 1)
    await store.close()


async def test_a_rehearsal_says_what_the_file_would_not_take(path: Path) -> None:
    """And leaves no trace, not even beside it."""
    await create(path)
    before = {it: (it.read_bytes(), it.stat().st_mtime_ns) for it in path.parent.iterdir()}
    store = sqlite_store(path, patience=0.01, rehearse=True)
    assert count(await update(store, counted_up)) == 1
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(KeyStoreError, match="is locked by another process"):
            await update(store, counted_up)
    await store.close()
    with pytest.raises(KeyStoreError, match="there is no directory"):
        await create(path.parent / "nowhere" / "keys.db", rehearse=True)
    await create(path.parent / "another.db", rehearse=True)
    assert {it: (it.read_bytes(), it.stat().st_mtime_ns) for it in path.parent.iterdir()} == before


def update_within_limit(connection: Connection, path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    tell_outcome(connection, lambda: update(sqlite_store(path), lambda _: LARGE))


async def test_a_limit_on_file_sizes_leaves_the_store_unharmed(path: Path) -> None:
    await create(path)
    with Child(update_within_limit, path) as child:
        assert "cannot be read or written: check the disk, quotas and limits" in child.hear()
    store = sqlite_store(path)
    assert await store.load() == Snapshot(RING, 1)
    await store.close()


# --- permissions -----------------------------------------------------------------------------


def load_as_nobody(connection: Connection, path: Path) -> None:
    become_nobody()
    tell_outcome(connection, lambda: sqlite_store(path).load())


def update_as_nobody(connection: Connection, path: Path) -> None:
    become_nobody()
    tell_outcome(connection, lambda: update(sqlite_store(path), counted_up))


def create_as_nobody(connection: Connection, path: Path) -> None:
    become_nobody()
    tell_outcome(connection, lambda: sqlite_store(path).compare_and_swap(None, RING))


def answer(main: Callable[[Connection, Path], None], path: Path) -> object:
    with Child(main, path) as child:
        return child.hear()


@needs_root
async def test_without_permission_for_the_file_nothing_is_read(public_folder: Path) -> None:
    path = public_folder / "keys.db"
    await create(path)
    for main in (load_as_nobody, update_as_nobody, create_as_nobody):
        text = str(answer(main, path))
        assert f"key store {path} cannot be opened: give this user the permission" in text


@needs_root
async def test_without_permission_for_the_folder_nothing_is_read(public_folder: Path) -> None:
    path = public_folder / "keys.db"
    await create(path)
    path.chmod(0o666)
    public_folder.chmod(0o700)
    for main in (load_as_nobody, update_as_nobody, create_as_nobody):
        text = str(answer(main, path))
        assert f"key store {path} cannot be opened: give this user the permission" in text


@needs_root
async def test_who_may_only_read_loads_and_cannot_write(public_folder: Path) -> None:
    path = public_folder / "keys.db"
    await create(path)
    path.chmod(0o644)
    assert answer(load_as_nobody, path) == 1
    assert "cannot be written: give this user" in str(answer(update_as_nobody, path))
    path.chmod(0o666)  # the folder still lets nobody make a journal
    assert "give this user the permission" in str(answer(update_as_nobody, path))
    assert "cannot be opened: give" in str(answer(create_as_nobody, public_folder / "other.db"))
    store = sqlite_store(path)
    assert await store.load() == Snapshot(RING, 1)
    await store.close()


def test_the_file_says_whose_it_is() -> None:
    assert APPLICATION_ID.to_bytes(4, "big") == b"auzk"
