"""The key store in a Secret, on an API server that does everything wrong that one can do."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from authz.domain.keys import Keyring, NamespaceKeys
from authz.domain.names import Namespace
from authz.errors import Conflict, KeyStoreError
from authz.keystore import SealedStore, Snapshot, open_store, update
from authz.keystore.kubernetes import KEY
from authz.kube import api as api_module
from tests.keystore.in_secret import HOME, Opened, secret, watched
from tests.keystore.support import (
    KEKS,
    RING,
    ROOT,
    count,
    counted_up,
    watching,
)
from tests.kube_double import (
    STREAM,
    ApiDouble,
    Fault,
    chunk,
    hang_up,
    raw,
    say_nothing,
)
from tests.support.waiting import until

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
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b" ")
            await asyncio.sleep(0.05)

    await another().compare_and_swap(None, RING)
    with monkeypatch.context() as impatient:
        impatient.setattr(api_module, "_REQUEST", 0.2)
        api.fault("list", Fault(write=say_nothing))
        with pytest.raises(KeyStoreError, match=r"took more than 0\.2 s to list|broke: "):
            await another().load()
        api.fault("list", Fault(write=drip))
        with pytest.raises(KeyStoreError, match=r"took more than 0\.2 s to list"):
            await another().load()
    assert await another().load() == Snapshot(RING, 1)


async def test_a_watch_that_does_not_begin_is_given_up(
    api: ApiDouble, another: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    await another().compare_and_swap(None, RING)
    api.fault("watch", Fault(write=say_nothing))
    async with watching(another()) as watcher:
        with monkeypatch.context() as impatient:
            impatient.setattr(api_module, "_REQUEST", 0.2)
            while "took more than 0.2 s to watch secrets keyring" not in await watcher.problem():
                pass  # to list may take as long on a busy machine
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
