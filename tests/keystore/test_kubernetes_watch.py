"""How a key store in a Secret is followed, whatever the API server does."""

import asyncio
import base64
import json
import time
from contextlib import aclosing

import lightkube
import pytest
from lightkube.resources.core_v1 import Secret

from authz.errors import KeyringReplaced
from authz.keystore import SealedStore, update
from authz.keystore.kubernetes import KEY, KubernetesBackend
from authz.keystore.sealing import seal
from authz.kube import Pace
from authz.kube import api as api_module
from tests.keystore.in_secret import HOME, Opened, Sleeps, secret, watched
from tests.keystore.support import KEK, KEKS, RING, count, counted_up, watching
from tests.kube_double import (
    STREAM,
    ApiDouble,
    Fault,
    raw,
)
from tests.support.waiting import soon, until

GONE = json.dumps({"type": "ERROR", "object": {"code": 410, "message": "too old"}}).encode()


@pytest.mark.parametrize("as_event", [False, True], ids=["status", "event"])
async def test_a_version_that_was_forgotten_makes_us_list_again(
    api: ApiDouble, another: Opened, as_event: bool
) -> None:
    api.gone_as_event = as_event
    api.bookmark_every = 1000  # so that the version gets old
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        with api.away():
            record = seal(counted_up(RING), 2, KEK)
            api.put("secrets", secret(record))
            api.compact()
        assert count(await watcher.version(2)) == 1
        await watcher.all_well()
    assert len(api.asked("list")) >= 3  # create's, the watch's first and its second


async def test_410_in_the_middle_of_a_watch_makes_us_list_again(
    api: ApiDouble, another: Opened
) -> None:
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        before = len(api.asked("list"))
        api.tell(GONE + b"\n")
        await until(lambda: len(api.asked("list")) > before)
        await update(another(), counted_up)
        await watcher.version(2)


async def test_a_server_that_always_says_410_is_left_alone_longer_and_longer(
    api: ApiDouble, another: Opened, sleeps: Sleeps
) -> None:
    api.fault("watch", *[Fault(410)] * 12)
    async with watched(another, uniform=lambda _, most: most):
        await until(lambda: api.watching)
    assert sleeps.seconds[:4] == [0.1, 0.2, 0.4, 0.8]
    assert sleeps.seconds[11] == 15


@pytest.mark.parametrize(
    "torn", [b'{"type":"MODIFIED","object":{"metadata":{"resourceVer', b"{", b"\xff\xfe"]
)
async def test_a_line_that_is_cut_off_is_told_again(
    api: ApiDouble, another: Opened, torn: bytes
) -> None:
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        lists = len(api.asked("list"))
        api.tell(torn)
        api.cut()
        await until(lambda: api.watching)
        assert len(api.asked("list")) == lists  # it went on where it was
        await update(another(), counted_up)
        await watcher.version(2)
        while not watcher.reports.empty():
            assert watcher.reports.get_nowait() is None


@pytest.mark.parametrize("tail", [b"ff\r\nabc", b"zz\r\n", b"ff", b""])
async def test_a_chunk_that_is_half_written_is_no_event(
    api: ApiDouble, another: Opened, tail: bytes
) -> None:
    api.fault("watch", Fault(write=raw(STREAM + tail)))
    async with watched(another) as watcher:
        await update(another(), counted_up)
        await watcher.version(2)
        while not watcher.reports.empty():
            assert watcher.reports.get_nowait() is None


async def test_what_changed_between_two_watches_is_seen_without_a_list(
    api: ApiDouble, another: Opened
) -> None:
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        lists = len(api.asked("list"))
        with api.away():
            api.put("secrets", secret(seal(counted_up(RING), 2, KEK)))
        await watcher.version(2)
        assert len(api.asked("list")) == lists


async def test_a_stream_of_bookmarks_keeps_us_fresh_and_moves_us_on(
    api: ApiDouble, another: Opened
) -> None:
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        later = api.put("secrets", {"metadata": {"name": "other", "namespace": HOME}})
        for _ in range(3):
            await watcher.all_well()
        await until(lambda: api.asked("watch"))
        watches = len(api.asked("watch"))
        api.compact()  # all that came before the last bookmark
        await watcher.all_well()
        await watcher.all_well()
        lists = len(api.asked("list"))
        api.end_watches()
        await until(lambda: len(api.asked("watch")) > watches)
        version = int(api.asked("watch")[-1].params["resourceVersion"])
        assert version > int(later["metadata"]["resourceVersion"])
        assert len(api.asked("list")) == lists


@pytest.mark.parametrize(
    "fault",
    [
        Fault(429, headers={"Retry-After": "7"}),
        Fault(503, headers={"Retry-After": "7"}),
    ],
)
@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_a_busy_server_is_left_alone_for_as_long_as_it_says(
    api: ApiDouble, another: Opened, sleeps: Sleeps, verb: str, fault: Fault
) -> None:
    await another().compare_and_swap(None, RING)
    api.fault(verb, fault)
    async with watching(another()) as watcher:
        assert f"{fault.status}" in await watcher.problem()
        await watcher.all_well()
        await until(lambda: api.watching)
        assert sleeps.seconds[0] == 7
        assert len(api.asked("list")) == (3 if verb == "list" else 2)  # the first is create's


@pytest.mark.parametrize("wait", ["-1", "soon", "1e9", "99999999", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_no_server_sends_us_to_sleep_for_ever(
    api: ApiDouble, another: Opened, sleeps: Sleeps, wait: str
) -> None:
    await another().compare_and_swap(None, RING)
    api.fault("list", Fault(503, headers={"Retry-After": wait}))
    async with watching(another()) as watcher:
        await watcher.version(1)
    assert 0 < sleeps.seconds[0] <= 60


@pytest.mark.parametrize("status", [400, 404, 500, 502])
async def test_an_error_is_reported_and_tried_again(
    api: ApiDouble, another: Opened, status: int
) -> None:
    await another().compare_and_swap(None, RING)
    api.fault("list", Fault(status))
    api.fault("watch", Fault(status))
    async with watching(another()) as watcher:
        assert str(status) in await watcher.problem()
        await watcher.version(1)
        assert str(status) in await watcher.problem()
        await watcher.all_well()
        await update(another(), counted_up)
        await watcher.version(2)


async def test_a_deleted_secret_is_reported_and_may_come_back(
    api: ApiDouble, another: Opened
) -> None:
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        backup = api.get("secrets", HOME, "keyring")
        api.delete("secrets", HOME, "keyring")
        assert "no longer holds the keyring that is in use here" in await watcher.problem()
        restored = secret(base64.b64decode(backup["data"][KEY]))
        assert api.put("secrets", restored)["metadata"]["uid"] != backup["metadata"]["uid"]
        await watcher.all_well()
        await update(another(), counted_up)
        await watcher.version(2)


async def test_a_keyring_that_somebody_else_put_there_is_told_and_not_changed(
    api: ApiDouble, another: Opened
) -> None:
    store = another()
    await store.compare_and_swap(None, RING)
    old = base64.b64decode(api.get("secrets", HOME, "keyring")["data"][KEY])
    await update(store, counted_up)
    assert (await another().load()).put_by is None
    api.put("secrets", secret(old), manager="kubectl-replace")
    put_by = "was put there by kubectl-replace, not by `authz keys`"
    assert (await another().load()).put_by == put_by
    updates = len(api.asked("update"))
    with pytest.raises(KeyringReplaced, match="holds a copy of the keyring that was put there by"):
        await update(another(), counted_up)
    assert len(api.asked("update")) == updates
    await update(another(), counted_up, adopt=True)
    assert (await another().load()).put_by is None
    api.put("secrets", secret(old))  # something took the note off
    assert (await another().load()).put_by is None
    assert count(await update(another(), counted_up)) == 1


@pytest.mark.parametrize(
    "noted",
    [
        7,
        [7],
        [{}],
        [{"fieldsV1": {"f:data": {f"f:{KEY}": {}}}}],
        [{"manager": "kubectl", "fieldsV1": {"f:data": 7}}],
        [{"manager": "kubectl", "fieldsV1": {"f:data": {"f:other": {}}}}],
    ],
)
async def test_a_note_that_says_nothing_is_no_reason_to_refuse(
    api: ApiDouble, another: Opened, noted: object
) -> None:
    thing = secret(seal(RING, 1, KEK))
    thing["metadata"]["managedFields"] = noted
    api.put("secrets", thing)
    assert (await another().load()).put_by is None


async def test_a_change_of_another_key_of_the_secret_is_nobodys_business(
    api: ApiDouble, another: Opened
) -> None:
    await another().compare_and_swap(None, RING)
    thing = json.loads(json.dumps(api.get("secrets", HOME, "keyring")))
    thing["data"]["other"] = "b3RoZXI="
    api.put("secrets", thing, manager="kubectl-edit")
    assert (await another().load()).put_by is None


async def test_a_real_api_server_notes_who_put_a_keyring_there_and_tells_the_time(
    cluster: str,
) -> None:
    store = SealedStore(KubernetesBackend(cluster), KEKS)
    await store.compare_and_swap(None, RING)
    client = lightkube.AsyncClient(field_manager="somebody-else")
    old = (await client.get(Secret, cluster)).data
    await update(store, counted_up)
    snapshot = await store.load()
    assert snapshot.put_by is None
    assert snapshot.clock == pytest.approx(time.time(), abs=60)  # noqa: TID251
    await client.patch(Secret, cluster, {"data": old})
    assert "not by `authz keys`" in str((await store.load()).put_by)
    with pytest.raises(KeyringReplaced):
        await update(store, counted_up)
    await update(store, counted_up, adopt=True)
    assert (await store.load()).put_by is None
    await store.close()
    await client.close()


@pytest.mark.parametrize(
    ("date", "clock"),
    [("Fri, 15 Jan 2027 08:00:00 GMT", 1_800_000_000.0), ("soon", None), (None, None)],
)
async def test_the_api_servers_clock_is_told(
    api: ApiDouble, another: Opened, date: str | None, clock: float | None
) -> None:
    await another().compare_and_swap(None, RING)
    api.date = date
    assert (await another().load()).clock == clock


async def test_an_older_keyring_put_back_is_not_taken(api: ApiDouble, another: Opened) -> None:
    async with watched(another) as watcher:
        old = base64.b64decode(api.get("secrets", HOME, "keyring")["data"][KEY])
        await update(another(), counted_up)
        await watcher.version(2)
        api.put("secrets", secret(old))
        assert "version 1 of the keyring, which takes back" in await watcher.problem()
        api.delete("secrets", HOME, "keyring")
        api.put("secrets", secret(seal(RING, 3, KEK)))  # a greater version changes nothing
        while "version 3 of the keyring, which takes back" not in await watcher.problem():
            pass
        assert watcher.snapshots.empty()
        api.put("secrets", secret(seal(counted_up(RING), 3, KEK)))
        await watcher.version(3)


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"type":"MODIFIED","object":[]}',
        b'{"type":"MODIFIED","object":{"metadata":{}}}',
        b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":7}}}',
        b'{"type":"NEWS","object":{"metadata":{"resourceVersion":"7"}}}',
        b'{"type":"ERROR","object":{"code":500,"message":"etcd is away"}}',
        b'{"type":"ERROR"}',
        b"[" * 100_000,
    ],
)
async def test_an_event_that_is_none_changes_nothing(
    api: ApiDouble, another: Opened, line: bytes
) -> None:
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        api.tell(line + b"\n")
        await watcher.problem()
        await watcher.all_well()
        assert watcher.snapshots.empty()
        await update(another(), counted_up)
        await watcher.version(2)


async def test_a_line_without_an_end_is_given_up_before_it_fills_the_memory(
    api: ApiDouble, another: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "LONGEST", 100_000)
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        for _ in range(5):
            api.tell(b"x" * 50_000)
        assert "longer than 100000 bytes" in await watcher.problem()
        await watcher.all_well()
        await update(another(), counted_up)
        await watcher.version(2)


async def test_a_secret_that_no_api_server_would_take_is_not_taken(
    api: ApiDouble, another: Opened
) -> None:
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        api.put("secrets", secret(b"x" * ((1 << 20) + 1)))
        assert "larger than a Secret can be" in await watcher.problem()


async def test_a_minute_without_an_api_server_loses_nothing(
    api: ApiDouble, another: Opened
) -> None:
    """The minute is made up: every pause ends at once and counts in full."""
    away_for = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal away_for
        away_for += seconds
        await asyncio.sleep(0.001)

    backend = KubernetesBackend(
        "keyring", pace=Pace(sleep=sleep, monotonic=lambda: away_for, uniform=lambda _, b: b)
    )
    store = SealedStore(backend, KEKS)
    await another().compare_and_swap(None, RING)
    async with watching(store) as watcher:
        await watcher.version(1)
        await until(lambda: api.watching)
        with api.away():
            connections = api.connections
            away_for = 0.0
            await until(lambda: away_for >= 60)
            tries = api.connections - connections
            assert watcher.snapshots.empty()
            assert "API server" in await watcher.problem()
            api.put("secrets", secret(seal(counted_up(RING), 2, KEK)))
        assert count(await watcher.version(2)) == 1
    await store.close()
    assert 5 <= tries <= 15  # 0.1 s, 0.2 s … 15 s: it is not stormed


async def test_a_cluster_that_was_restored_from_a_backup_is_listed_anew(
    api: ApiDouble, another: Opened
) -> None:
    async with watched(another, lease=1, relist=0) as watcher:
        await until(lambda: api.watching)
        api._version = 10  # older than all that we have seen: no watch would tell of it
        api.put("secrets", secret(seal(counted_up(RING), 2, KEK)))
        api.end_watches()
        assert count(await watcher.version(2)) == 1


async def test_a_watch_ends_at_once_when_its_store_is_closed_whatever_it_waits_for(
    api: ApiDouble, another: Opened
) -> None:
    api.bookmark_every = 1000
    store = another()
    await store.compare_and_swap(None, RING)
    seen = store.watch()
    async with aclosing(seen):
        assert (await soon(anext(seen))).version == 1
        waiting = asyncio.ensure_future(anext(seen, None))
        await until(lambda: api.watching)
        await store.close()
        assert await soon(waiting) is None
