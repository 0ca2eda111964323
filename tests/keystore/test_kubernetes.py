"""The key store in a Secret, on an API server that does everything wrong that one can do."""

import asyncio
import base64
import ipaddress
import json
import logging
import ssl
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import lightkube
import pytest
from cryptography import x509
from lightkube.resources.core_v1 import Secret

from authz.domain.keys import Keyring, NamespaceKeys
from authz.domain.names import Namespace
from authz.errors import Conflict, KeyringReplaced, KeyStoreError
from authz.keystore import Keks, SealedStore, Snapshot, open_store, update
from authz.keystore.kubernetes import KEY, KubernetesBackend
from authz.keystore.sealing import seal
from authz.kube import Pace
from authz.kube import api as api_module
from authz.kube import connect as connect_module
from tests.keystore.support import (
    KEK,
    KEKS,
    RING,
    ROOT,
    Watcher,
    count,
    counted_up,
    soon,
    watching,
)
from tests.kube_double import (
    STREAM,
    TOKEN,
    ApiDouble,
    Fault,
    Object,
    chunk,
    hang_up,
    raw,
    say_nothing,
)
from tests.support.certificates import Issuer

HOME = "authz-system"
GONE = json.dumps({"type": "ERROR", "object": {"code": 410, "message": "too old"}}).encode()


class Sleeps:
    """Sleeps a moment in place of every pause, and remembers how long it should have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0.005)


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


Opened = Callable[..., SealedStore]


@pytest.fixture
async def another(api: ApiDouble, sleeps: Sleeps) -> AsyncIterator[Opened]:
    """Opens the store in the Secret authz-system/keyring, each time another object."""
    stores: list[SealedStore] = []

    def opening(keks: Keks = KEKS, **pace: Any) -> SealedStore:
        backend = KubernetesBackend("keyring", pace=Pace(sleep=sleeps, **pace))
        stores.append(SealedStore(backend, keks))
        return stores[-1]

    yield opening
    for store in stores:
        await store.close()


def secret(record: bytes | None = None, **more: Any) -> Object:
    data = {} if record is None else {KEY: base64.b64encode(record).decode()}
    return {"metadata": {"name": "keyring", "namespace": HOME}, "data": data, **more}


@asynccontextmanager
async def watched(another: Opened, **pace: Any) -> AsyncIterator[Watcher]:
    """A keyring that was made, and a watch that has seen it."""
    await another().compare_and_swap(None, RING)
    async with watching(another(**pace)) as watcher:
        await watcher.version(1)
        yield watcher


async def until(found: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not found():  # noqa: ASYNC110 - the other side is a thread
            await asyncio.sleep(0.005)


# -- how it asks --------------------------------------------------------------------------------


async def test_only_the_one_secret_is_ever_asked_for(api: ApiDouble, another: Opened) -> None:
    async with watched(another) as watcher:
        await update(another(), counted_up)
        await watcher.version(2)
    assert {(request.plural, request.namespace, request.name) for request in api.requests} == {
        ("secrets", HOME, "keyring"),
        ("secrets", HOME, ""),  # create, which has the name in the object only
    }
    assert {request.verb for request in api.requests} == {"list", "watch", "update", "create"}
    assert {request.verb for request in api.requests if not request.name} == {"create"}


async def test_a_watch_goes_on_from_the_list_with_bookmarks_and_an_end(
    api: ApiDouble, another: Opened
) -> None:
    async with watched(another):
        await until(lambda: api.watching)
        (asked,) = api.asked("watch")
    version = api.get("secrets", HOME, "keyring")["metadata"]["resourceVersion"]
    assert asked.params["resourceVersion"] == version
    assert asked.params["allowWatchBookmarks"] == "true"
    assert 20 <= int(asked.params["timeoutSeconds"]) <= 40


async def test_a_change_is_seen_within_a_second(another: Opened) -> None:
    took = []
    async with watched(another) as watcher:
        for version in (2, 3, 4):  # a machine may be busy once
            await update(another(), counted_up)
            written = time.monotonic()
            await watcher.version(version)
            took.append(time.monotonic() - written)
    assert min(took) < 1


async def test_where_no_namespace_is_named_it_is_that_of_the_configuration(
    api: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = api.kubeconfig(tmp_path / "other", namespace="elsewhere")
    monkeypatch.setenv("KUBECONFIG", str(config))
    here, there = open_store("kubernetes:keyring", KEKS), open_store("kubernetes:far/keyring", KEKS)
    await here.compare_and_swap(None, RING)
    await there.compare_and_swap(None, RING)
    assert sorted(key[1] for key in api.objects) == ["elsewhere", "far"]
    for store in (here, there):
        await store.close()


# -- writing ------------------------------------------------------------------------------------


async def test_an_empty_secret_is_filled_so_that_nobody_needs_create(
    api: ApiDouble, another: Opened
) -> None:
    labels = {"app": "tenant-authz"}
    empty = secret(type="Opaque", immutable=False)
    empty["metadata"]["labels"] = labels
    empty["data"]["other"] = "b3RoZXI="
    uid = api.put("secrets", empty)["metadata"]["uid"]
    api.forbidden = {"create"}
    await another().compare_and_swap(None, RING)
    stored = api.get("secrets", HOME, "keyring")
    assert stored["metadata"]["uid"] == uid
    assert stored["metadata"]["labels"] == labels
    assert (stored["type"], stored["data"]["other"]) == ("Opaque", "b3RoZXI=")
    assert await another().load() == Snapshot(RING, 1)


async def test_a_conflict_at_the_api_server_is_a_conflict_and_update_repeats(
    api: ApiDouble, another: Opened
) -> None:
    store = another()
    await store.compare_and_swap(None, RING)
    api.fault("update", Fault(409))
    with pytest.raises(Conflict, match="changed by somebody else: repeat the change"):
        await store.compare_and_swap(1, counted_up(RING))
    api.fault("update", Fault(409), Fault(409))
    assert count(await update(store, counted_up)) == 1


async def test_who_is_second_to_create_is_told(api: ApiDouble, another: Opened) -> None:
    api.fault("create", Fault(409))
    with pytest.raises(Conflict):
        await another().compare_and_swap(None, RING)


@pytest.mark.parametrize("first", [True, False], ids=["create", "update"])
async def test_a_change_whose_answer_is_lost_counts(
    api: ApiDouble, another: Opened, first: bool
) -> None:
    store = another()
    if not first:
        await store.compare_and_swap(None, RING)
    api.fault("create" if first else "update", Fault(write=hang_up, after=True))
    version = None if first else 1
    assert (await store.compare_and_swap(version, RING)).version == (version or 0) + 1


@pytest.mark.parametrize("fault", [Fault(write=hang_up), Fault(500), Fault(504)])
async def test_a_change_that_was_not_made_fails(
    api: ApiDouble, another: Opened, fault: Fault
) -> None:
    store = another()
    await store.compare_and_swap(None, RING)
    api.fault("update", fault)
    with pytest.raises(KeyStoreError, match=r"broke|could not update") as caught:
        await store.compare_and_swap(1, counted_up(RING))
    assert not isinstance(caught.value, Conflict)
    assert await store.load() == Snapshot(RING, 1)


async def test_where_nobody_can_know_whether_a_change_was_made_it_is_said(
    api: ApiDouble, another: Opened
) -> None:
    store = another()
    await store.compare_and_swap(None, RING)
    record = await store._backend.read()
    real = api._update

    async def vanish(request: Any) -> Any:
        api.down = True
        await api._cut()
        return await real(request)

    api._update = vanish  # type: ignore[method-assign]
    with pytest.raises(KeyStoreError, match="unknown whether it was made: see `authz keys"):
        await store._backend.write(b"another", replaces=record)


async def test_a_record_that_no_secret_can_hold_is_not_even_sent(
    api: ApiDouble, another: Opened
) -> None:
    store = another()
    await store.compare_and_swap(None, RING)
    many = {Namespace(f"namespace-number-{n:05}"): NamespaceKeys(1, 0, 0) for n in range(40_000)}
    with pytest.raises(KeyStoreError, match=r"a Secret holds 1048576\. Rotate or revoke a root"):
        await store.compare_and_swap(1, Keyring((ROOT,), many))
    assert api.asked("update") == []
    assert await store.load() == Snapshot(RING, 1)


async def test_the_limit_is_kubernetes_own(api: ApiDouble, another: Opened) -> None:
    backend = another()._backend
    await backend.write(b"x" * (1 << 20), replaces=None)
    assert await backend.read() == b"x" * (1 << 20)
    with pytest.raises(KeyStoreError, match="would have 1048577 bytes"):
        await backend.write(b"y" * ((1 << 20) + 1), replaces=b"x" * (1 << 20))


# -- refusals -----------------------------------------------------------------------------------


async def refused(store: SealedStore, verb: str) -> str:
    """What is said where a verb is refused."""
    work = {
        "create": lambda: store.compare_and_swap(None, RING),
        "update": lambda: update(store, counted_up),
        "list": store.load,
    }[verb]
    with pytest.raises(KeyStoreError) as caught:
        await work()
    return str(caught.value)


@pytest.mark.parametrize("verb", ["list", "update", "create"])
async def test_forbidden_names_the_verb_and_the_rule(
    api: ApiDouble, another: Opened, verb: str
) -> None:
    if verb != "create":
        await another().compare_and_swap(None, RING)
    api.forbidden = {verb}
    text = await refused(another(), verb)
    names = "" if verb == "create" else ', resourceNames: ["keyring"]'
    assert f"does not let us {verb} secrets keyring in namespace {HOME} (403)" in text
    rule = f'{{apiGroups: [""], resources: ["secrets"]{names}, verbs: ["{verb}"]}}'
    assert f"a Role in {HOME} must have the rule {rule}" in text


@pytest.mark.parametrize("verb", ["update", "create"])
async def test_a_rehearsal_asks_the_api_server_whether_it_would_be_taken(
    api: ApiDouble, another: Opened, verb: str
) -> None:
    """RBAC and admission included; and nothing is stored."""
    if verb == "update":
        await another().compare_and_swap(None, RING)
    before = dict(api.objects)
    tried = open_store(f"kubernetes:{HOME}/keyring", KEKS, rehearse=True)
    expected = 1 if verb == "update" else None
    assert (await tried.compare_and_swap(expected, RING)).version == (expected or 0) + 1
    assert [it.params for it in api.asked(verb)][-1:] == [{"dryRun": "All"}]
    api.fault(verb, Fault(write=hang_up))
    with pytest.raises(KeyStoreError, match="broke"):
        await tried.compare_and_swap(expected, RING)
    api.forbidden = {verb}
    with pytest.raises(KeyStoreError, match=f"does not let us {verb} secrets keyring"):
        await tried.compare_and_swap(expected, RING)
    assert api.objects == before
    await tried.close()


async def test_a_forbidden_watch_names_its_rule_and_heals(api: ApiDouble, another: Opened) -> None:
    await another().compare_and_swap(None, RING)
    api.forbidden = {"watch"}
    async with watching(another()) as watcher:
        await watcher.version(1)  # the list is allowed
        assert 'verbs: ["watch"]' in await watcher.problem()
        api.forbidden = set()
        await update(another(), counted_up)
        await watcher.version(2)
        await watcher.all_well()


async def test_what_is_not_there_says_to_run_init(api: ApiDouble, another: Opened) -> None:
    with pytest.raises(KeyStoreError, match=r"does not exist: .* run `authz keys init`"):
        await another().load()
    api.put("secrets", secret())
    with pytest.raises(KeyStoreError, match=r"holds no keyring: .* run `authz keys init`"):
        await another().load()


async def test_a_server_that_does_not_answer_is_given_up(
    api: ApiDouble, another: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_REQUEST", 0.2)
    await another().compare_and_swap(None, RING)
    api.fault("list", Fault(write=say_nothing))
    with pytest.raises(KeyStoreError, match=r"took more than 0\.2 s to list|broke: "):
        await another().load()
    dripping = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(dripping)
        for _ in range(100):
            writer.write(b" ")
            await asyncio.sleep(0.05)

    api.fault("list", Fault(write=drip))
    with pytest.raises(KeyStoreError, match=r"took more than 0\.2 s to list"):
        await another().load()
    assert await another().load() == Snapshot(RING, 1)


async def test_a_watch_that_does_not_begin_is_given_up(
    api: ApiDouble, another: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "_REQUEST", 0.2)
    api.fault("watch", Fault(write=say_nothing))
    async with watched(another) as watcher:
        assert "took more than 0.2 s to watch secrets keyring" in await watcher.problem()
        await update(another(), counted_up)
        await watcher.version(2)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n<html>Login</h>", "is not an API server's"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is not an API server's"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"items":1}', "is not an API server's"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"items":[]}', "is not an API server's"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "302",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "broke"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "broke"),
    ],
)
async def test_what_is_no_api_server_is_not_believed(
    api: ApiDouble, another: Opened, answer: bytes, text: str
) -> None:
    api.fault("list", Fault(write=raw(answer)))
    with pytest.raises(KeyStoreError, match=text):
        await another().load()


async def test_an_answer_of_any_length_is_not_read(
    api: ApiDouble, another: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_module, "LONGEST", 100_000)
    await another().compare_and_swap(None, RING)
    api.fault("list", Fault(write=raw(STREAM, chunk(b" " * 90_000), chunk(b" " * 90_000))))
    with pytest.raises(KeyStoreError, match="longer than 100000 bytes and was not read"):
        await another().load()


@pytest.mark.parametrize("data", ["%%%", "AAA", 7, None])
async def test_a_damaged_secret_is_told(api: ApiDouble, another: Opened, data: object) -> None:
    broken = secret()
    broken["data"][KEY] = data
    api.put("secrets", broken)
    with pytest.raises(KeyStoreError, match=r"is damaged: restore a backup|holds no keyring"):
        await another().load()


# -- watching -----------------------------------------------------------------------------------


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


# -- credentials --------------------------------------------------------------------------------


class Pod:
    """What a pod has: an API server with TLS, and the mount of its service account."""

    def __init__(self, mount: Path, issuer: Issuer, double: ApiDouble) -> None:
        self.mount, self.issuer, self.double = mount, issuer, double
        mount.mkdir()
        self.trust(issuer)
        (mount / "namespace").write_text(HOME)
        self.rotate("first-token")

    def trust(self, issuer: Issuer) -> None:
        (self.mount / "ca.crt").write_bytes(issuer.ca_file.read_bytes())

    def rotate(self, token: str) -> None:
        """Give the pod another token; the API server takes no other."""
        (self.mount / "token").write_text(f"{token}\n")
        self.double.token = token


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    issuer = Issuer(tmp_path / "ca")
    certificate = issuer.naming(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.cert_file, certificate.key_file)
    with ApiDouble.running(tls) as double:
        monkeypatch.setattr(connect_module, "SERVICE_ACCOUNT", str(tmp_path / "mount"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(double.port))
        yield Pod(tmp_path / "mount", issuer, double)


def shown_tokens(double: ApiDouble) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in double.requests]


async def test_in_a_pod_the_service_account_is_used_and_its_new_token_too(pod: Pod) -> None:
    store = open_store("kubernetes:keyring", KEKS)
    await store.compare_and_swap(None, RING)
    assert list(pod.double.objects) == [("secrets", HOME, "keyring")]
    pod.rotate("second-token")
    assert await store.load() == Snapshot(RING, 1)
    assert set(shown_tokens(pod.double)) == {"first-token", "second-token"}
    await store.close()


async def test_a_watch_survives_a_token_that_expires_before_the_next_is_there(
    pod: Pod, another_in_pod: Opened
) -> None:
    store = another_in_pod()
    await store.compare_and_swap(None, RING)
    async with watching(store) as watcher:
        await watcher.version(1)
        await until(lambda: pod.double.watching)
        pod.double.token = "second-token"
        pod.double.end_watches()
        assert "does not accept our credentials (401)" in await watcher.problem()
        pod.rotate("second-token")
        await watcher.all_well()
        await update(another_in_pod(), counted_up)
        await watcher.version(2)


@pytest.fixture
async def another_in_pod(pod: Pod, sleeps: Sleeps) -> AsyncIterator[Opened]:
    stores: list[SealedStore] = []

    def opening() -> SealedStore:
        stores.append(SealedStore(KubernetesBackend("keyring", pace=Pace(sleep=sleeps)), KEKS))
        return stores[-1]

    yield opening
    for store in stores:
        await store.close()


async def test_an_api_server_that_the_mounted_ca_did_not_certify_gets_no_token(
    pod: Pod, tmp_path: Path
) -> None:
    pod.trust(Issuer(tmp_path / "other"))
    store = open_store("kubernetes:keyring", KEKS)
    with pytest.raises(KeyStoreError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
        await store.load()
    assert pod.double.requests == []
    pod.trust(pod.issuer)  # the mount is renewed
    with pytest.raises(KeyStoreError, match="run `authz keys init`"):
        await store.load()
    await store.close()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "not found. Set KUBECONFIG to the file that kubectl uses"),
        ("{}", "no current-context"),
        ("[", "cannot be read"),
        (json.dumps({"clusters": [], "contexts": []}), "no current-context"),
        (
            json.dumps(
                {
                    "current-context": "x",
                    "clusters": [{"name": "c", "cluster": {"server": "http://203.0.113.1"}}],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                }
            ),
            "http://203.0.113.1 would get our token unencrypted: use https",
        ),
    ],
)
async def test_a_configuration_that_is_none_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, text: str
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    store = open_store("kubernetes:authz-system/keyring", KEKS)
    with pytest.raises(KeyStoreError, match="key store kubernetes:authz-system/") as caught:
        await store.load()
    assert text in str(caught.value)
    assert TOKEN not in str(caught.value)
    await store.close()


async def test_a_watch_waits_for_a_configuration(
    api: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: Opened
) -> None:
    await another().compare_and_swap(None, RING)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "later"))
    async with watching(another()) as watcher:
        assert "not found" in await watcher.problem()
        api.kubeconfig(tmp_path / "later")
        await watcher.version(1)


async def test_neither_token_nor_keys_are_shown(
    api: ApiDouble, another: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    said: list[str] = []
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        api.token = "another"
        for work in (another().load(), another().compare_and_swap(None, RING)):
            with pytest.raises(KeyStoreError) as caught:
                await work
            said += [str(caught.value), *traceback.format_exception(caught.value)]
        api.end_watches()
        said.append(await watcher.problem())
        said.append(repr(another()._backend))
    assert "HTTP" in caplog.text
    record = api.get("secrets", HOME, "keyring")["data"][KEY]
    for hidden in (TOKEN, record[:40], base64.b64encode(ROOT.secret).decode()):
        assert hidden not in caplog.text + "".join(said)


# -- names and packages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("", "'' is not the name of a Secret"),
        ("ns/", "'' is not the name of a Secret"),
        ("ns/Keys", "'Keys' is not the name of a Secret"),
        ("ns/a/b", "'ns/a' is not a namespace"),
        ("/name", "'' is not a namespace"),
        ("../secrets", "'..' is not a namespace"),
        ("ns/a?b", "'a?b' is not the name of a Secret"),
        ("//host/name", "'//host' is not a namespace"),
    ],
)
def test_what_is_no_secret_is_refused(place: str, text: str) -> None:
    with pytest.raises(KeyStoreError, match="write kubernetes:NAMESPACE/NAME") as caught:
        open_store(f"kubernetes:{place}", KEKS)
    assert text in str(caught.value)


def test_only_who_uses_it_imports_it() -> None:
    commands = ", ".join(f"authz.cli.{name}" for name in ("serve", "worker", "keys", "token"))
    script = f"import sys, {commands}; print(sorted({{'authz.kube', 'httpx2'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("authz.kube", "httpx2"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "authz.keystore.kubernetes")
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(KeyStoreError, match=r"pip install '\.\[kubernetes\]' in a clone"):
        open_store("kubernetes:ns/name", KEKS)
