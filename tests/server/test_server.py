"""The whole server: readiness, what it answers, its side port, its drain."""

import asyncio
import json
import socket
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import grpc
import pytest

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.config import IdentitySource, Transport
from authz.errors import BadPolicy, BadSettings, KeyStoreError
from authz.keystore import Note, update
from authz.testing import check_request, workload
from tests.server.support import (
    TO_BANK,
    Live,
    live,
    now,
    revoke_shop,
    sign,
    verify,
)
from tests.support.certificates import (
    SERVICE,
    replace_file,
)
from tests.support.clients import connected, http_get, outcome, token_in
from tests.support.processes import Folder
from tests.support.waiting import eventually, soon
from tests.transport.support import XFCC, element

# Readiness -------------------------------------------------------------------------------------


async def test_it_becomes_ready_when_the_key_store_is_made_later(keyless: Folder) -> None:
    async with live(keyless) as here, here.asked_by("shop") as client:
        await here.line("key store not usable")
        assert await client.health() == "NOT_SERVING"
        status, truths = await here.get("/readyz")
        assert status == 503
        said = json.loads(truths)
        assert "run `authz keys init`" in said.pop("because").pop("keyring")
        assert said == {"keyring": False, "policy": True, "not stopping": True}
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await client.check("sign", check_request())
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not here.lines("key store usable again")
        await keyless.make_keys()
        await here.ready()
        await here.line("key store usable again")
        assert await client.health() == "SERVING"
        assert (await sign(client)).startswith("v1.")
        (problem,) = here.lines("key store not usable")
        assert "run `authz keys init`" in problem["problem"]
        assert problem["ready"] is False
        await here.line("key store usable again")


async def test_a_wrong_kek_leaves_it_unready_with_a_log_line_that_says_so(folder: Folder) -> None:
    right = folder.kek_file.read_text()
    folder.kek_file.write_text("A" * 43 + "=")
    async with live(folder) as here:
        line = await here.line("key store not usable")
        assert "KEK" in line["problem"]
        assert right.strip() not in json.dumps(line)
        assert (await here.get("/readyz"))[0] == 503
        assert (await here.get("/healthz"))[0] == 200


async def test_a_store_that_fails_later_leaves_the_last_good_keyring_in_use(
    folder: Folder,
) -> None:
    async with live(folder) as here, here.asked_by("shop") as client:
        await here.ready()
        path = Path(folder.store.removeprefix("sqlite:"))
        good = path.read_bytes()
        replace_file(path, b"not a database at all" * 100)
        line = await here.line("key store not usable")
        assert line["ready"] is True
        assert await sign(client)
        assert await client.health() == "SERVING"
        assert await here.metric('authz_reload_failures_total{what="keyring"}') >= 1
        replace_file(path, good)
        await folder.change_keys(revoke_shop)
        await here.line("keyring loaded", 2)


async def test_a_copy_that_takes_something_back_is_told_once_and_not_used(folder: Folder) -> None:
    path = Path(folder.store.removeprefix("sqlite:"))
    old = path.read_bytes()
    async with live(folder) as here, here.asked_by("shop") as shop:
        await here.ready()
        async with here.asked_by("bank") as bank:
            stolen = await sign(shop)
            await folder.change_keys(revoke_shop)
            await here.line("keyring loaded", 2)
            newest = path.read_bytes()
            replace_file(path, old)
            line = await here.line("key store not usable")
            assert "namespace shop is at generation 0, and was at 1" in line["problem"]
            assert line["ready"] is True
            failures = 'authz_reload_failures_total{what="keyring"}'
            failed = await here.metric(failures)

            async def looked_again() -> bool:
                return await here.metric(failures) > failed + 1

            await eventually(looked_again, "the store is looked at again")
            assert len(here.lines("key store not usable")) == 1
            assert await here.metric("authz_keyring_refused") == 1
            assert await here.metric('authz_last_reload_successful{what="keyring"}') == 0
            assert await here.metric("authz_keyring_version") == 2
            assert (await here.get("/readyz"))[0] == 200
            assert await verify(bank, stolen) == "token-invalid"
            assert await verify(bank, await sign(shop)) == "allowed"
            replace_file(path, newest)
            await here.line("key store usable again")
            assert await here.metric("authz_keyring_refused") == 0
            assert len(here.lines("keyring loaded")) == 2


async def test_a_server_that_starts_on_a_copy_says_that_it_cannot_know(folder: Folder) -> None:
    path = Path(folder.store.removeprefix("sqlite:"))
    old = path.read_bytes()
    await folder.change_keys(revoke_shop)
    async with live(folder) as here:
        await here.ready()
        assert here.lines("the keyring may be an older copy") == []
    replace_file(path, old)
    async with live(folder) as here:
        line = await here.line("the keyring may be an older copy")
        assert "took the place of what `authz keys` wrote last" in line["problem"]
        assert "Run `authz keys recover`" in line["problem"]
        await here.ready()


async def test_who_changed_keys_and_why_is_logged_and_also_that_nobody_noted_it(
    folder: Folder,
) -> None:
    note = Note(1_700_000_000, "ada@bastion", "all earlier tokens of shop are revoked", "lost")
    store = folder.opened()
    async with live(folder) as here:
        await here.ready()
        await update(store, revoke_shop, note=lambda _: note)
        line = await here.line("keyring changed")
        told = {name: line[name] for name in ("version", "at", "by", "what", "reason")}
        at = "2023-11-14T22:13:20+00:00"
        assert told == {"version": 2, **note._asdict(), "at": at}
        await update(store, revoke_shop)
        line = await here.line("keyring changed, and nobody noted who did it")
        assert (line["level"], line["version"], line["changes"]) == ("warning", 3, 1)
        assert len(here.lines("keyring changed")) == 1
    await store.close()


async def test_a_transport_that_is_not_installed_is_a_setting_to_change(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "authz.transport.reference", None)
    with pytest.raises(BadSettings, match="transport: grpcio is not installed"):
        async with live(folder, transport="grpcio"):
            pass


async def test_without_a_policy_file_every_namespace_is_on_its_own(folder: Folder) -> None:
    async with live(folder, policy_file=None) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            assert await verify(bank, await sign(shop)) == "token-invalid"


# Tokens between tenants, through the whole server ----------------------------------------------


async def test_a_token_made_for_one_caller_opens_the_destination_that_it_names(
    folder: Folder,
) -> None:
    async with live(folder) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            token = await sign(shop)
            assert await verify(bank, token) == "allowed"
            assert await verify(bank) == "token-missing"
            assert await verify(bank, token, token) == "token-invalid"
            assert await verify(shop, token) == "token-invalid"
            assert outcome(await shop.check("public", check_request())) == "not-allowed"
            assert outcome(await shop.check("nonsense", check_request())) == "not-allowed"
        denied = here.lines("denied")
        assert [line["reason"] for line in denied] == [
            "token-missing",
            "token-repeated",
            "meant-for-another-namespace",
            "role-required",
            "question-unknown",
        ]
        assert token not in json.dumps(denied)


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("put_on", [("x-request-id", "1"), ("x-forwarded-proto", "http")])
async def test_a_check_that_a_proxy_passed_on_is_refused(
    folder: Folder, transport: Transport, put_on: tuple[str, str]
) -> None:
    asked = {"x-authz-question": "sign", "x-authz-upstream": TO_BANK}
    async with live(folder, transport=transport.value) as here:
        await here.ready()
        async with here.asked_by("shop") as shop:
            passed_on = await shop.ask(check_request(), {**asked, **dict([put_on])})
            assert outcome(CheckResponse.FromString(passed_on)) == "not-allowed"
            assert (await sign(shop)).startswith("v1.")
        (line,) = here.lines("denied")
        assert (line["reason"], line["source"]) == ("check-forwarded", "shop")


def behind_a_sidecar(folder: Folder) -> AbstractAsyncContextManager[Live]:
    no_files = None
    return live(
        folder,
        identity="xfcc",
        own_id=str(SERVICE),
        tls_cert_file=no_files,
        tls_key_file=no_files,
        tls_ca_file=no_files,
    )


async def test_our_own_sidecar_may_pass_a_check_on(folder: Folder) -> None:
    asked = {
        "x-authz-question": "sign",
        "x-authz-upstream": TO_BANK,
        "x-request-id": "1",
        XFCC: element(workload("shop")),
    }
    async with behind_a_sidecar(folder) as here, connected(here.server.port) as client:
        await here.ready()
        answer = CheckResponse.FromString(await client.ask(check_request(), asked))
        assert token_in(answer).startswith("v1.")


@pytest.mark.parametrize("identity", [IdentitySource.MTLS, IdentitySource.XFCC])
async def test_it_knows_its_own_namespace(folder: Folder, identity: IdentitySource) -> None:
    folder.policy_file.write_text("roles: {transit: ['spiffe://cluster.local/ns/shop/sa/default']}")
    asked = {
        "x-authz-question": "sign",
        "x-authz-upstream": TO_BANK.replace("bank", SERVICE.namespace),
    }
    caller = folder.workload("shop") if identity is IdentitySource.MTLS else None
    if caller is None:
        asked[XFCC] = element(workload("shop"))
    async with live(folder) if caller else behind_a_sidecar(folder) as here:
        await here.ready()
        async with connected(here.server.port, caller) as client:
            answer = CheckResponse.FromString(await client.ask(check_request(), asked))
        assert outcome(answer) == "not-allowed"
        assert here.lines("denied")[0]["reason"] == "for-ourselves"


async def test_metrics_tell_what_was_decided(folder: Folder) -> None:
    async with live(folder) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            token = await sign(shop)
            await verify(bank, token)
            await verify(bank)
        checks = "authz_checks_total"
        for labels in (
            'outcome="allow",question="sign",reason="signed"',
            'outcome="allow",question="verify",reason="granted"',
            'outcome="deny",question="verify",reason="token-missing"',
        ):
            assert await here.metric(f"{checks}{{{labels}}}") == 1.0
        assert await here.metric("authz_keyring_version") == 1.0
        assert await here.metric('authz_age_seconds{what="keyring"}') < 20
        assert await here.metric("authz_unverified_namespaces") == 1.0
        assert await here.metric('authz_namespace_unverified{namespace="shop"}') == 1.0


# The side port ---------------------------------------------------------------------------------


async def test_the_side_port_serves_three_paths_and_no_other(folder: Folder) -> None:
    async with live(folder) as here:
        await here.ready()
        assert await here.get("/healthz") == (200, "alive\n")
        status, text = await here.get("/metrics")
        assert status == 200
        assert "# TYPE authz_checks_total counter" in text
        assert (await here.get("/readyz"))[0] == 200
        for path in ("/", "/metrics/", "/readyz/..", "/metrics?x=1/../..", "//"):
            assert (await here.get(path))[0] == (200 if "?" in path else 404)


async def test_the_side_port_listens_on_ipv6_too(folder: Folder) -> None:
    async with live(folder, http_listen="[::1]:0") as here:
        url = f"http://[::1]:{here.lines('listening')[0]['http_port']}/healthz"
        assert await asyncio.to_thread(http_get, url) == (200, "alive\n")


async def test_an_idle_connection_to_the_side_port_holds_up_nobody(folder: Folder) -> None:
    async with live(folder) as here:
        port = here.lines("listening")[0]["http_port"]
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.sendall(b"GET /metr")
            assert (await here.get("/healthz"))[0] == 200


# The drain -------------------------------------------------------------------------------------


async def test_a_draining_server_says_so_and_goes_on_answering(folder: Folder) -> None:
    async with live(folder, drain_seconds="600") as here, here.asked_by("shop") as client:
        await here.ready()
        watch = client.watch()
        states = aiter(watch)
        assert await soon(anext(states)) == b"\x08\x01"
        here.server.stop()
        draining = asyncio.create_task(here.server.drain())
        assert await soon(anext(states)) == b"\x08\x02"
        assert await client.health() == "NOT_SERVING"
        status, truths = await here.get("/readyz")
        assert (status, json.loads(truths)["not stopping"]) == (503, False)
        assert await sign(client)
        async with here.asked_by("late") as another:  # endpoints take time to converge
            assert await sign(another)
        assert not draining.done()
        here.server.stop()
        await soon(draining)
        assert here.lines("stopped")


# Starting that fails ---------------------------------------------------------------------------


async def test_a_server_with_a_bad_policy_does_not_start(folder: Folder) -> None:
    folder.policy_file.write_text("x: 1\ny: 2\n")
    with pytest.raises(BadPolicy) as caught:
        await Live(folder, now).server.startup()
    assert len(caught.value.problems) == 2


async def test_a_server_with_a_bad_certificate_does_not_start(folder: Folder) -> None:
    folder.certificate.ca_file.write_text("")
    with pytest.raises(BadSettings, match="tls_ca_file"):
        await Live(folder, now, policy_file=None).server.startup()


async def test_a_server_without_kek_does_not_start(folder: Folder) -> None:
    with pytest.raises(KeyStoreError, match="kek_files"):
        await Live(folder, now, policy_file=None, kek_files=None).server.startup()
