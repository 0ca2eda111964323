"""The whole server: readiness, reloads, keys that change under it, drain, and its processes."""

import asyncio
import io
import json
import re
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.cli.settings import load_settings
from authz.config import IdentitySource, Settings, Transport
from authz.domain import rotation
from authz.domain.keys import Keyring
from authz.domain.names import Namespace
from authz.domain.policy import Policy
from authz.errors import BadPolicy, BadSettings, KeyStoreError
from authz.keystore import Note, update
from authz.lab.harness import certs
from authz.observe import json_log
from authz.policysource.file import read_policy_text
from authz.policysource.reader import parse_policy_apart
from authz.server import Server, files, sources
from authz.server.files import Files
from authz.testing import ManualClock, check_request, workload
from tests.support.certificates import (
    SERVER_NAME,
    SERVICE,
    Issuer,
    expiry,
    presented,
    replace_file,
    serial,
)
from tests.support.clients import Client, connected, http_get, outcome, refused, token_in
from tests.support.processes import Folder, authz, serving
from tests.support.waiting import eventually, soon
from tests.transport.support import XFCC, element

ACTIVATOR = workload("knative-serving", "activator")
TO_BANK = "outbound|80||vault.bank.svc.cluster.local"
HEADER = "x-tenant-token"
ROLES = f"roles: {{transit: ['{ACTIVATOR}']}}\n"
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
GRANT = "grants: [{to: bank, from: shop}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.policy_file.write_text(ROLES + GRANT)
    return made


class Live:
    """A server in this process."""

    def __init__(self, folder: Folder, clock: Callable[[], float], **changed: str | None) -> None:
        self.folder = folder
        self._said = io.StringIO()
        settings = load_settings(Settings, folder.settings(**changed), None)
        log = json_log(self._said)
        self.server = Server(settings, log=log, clock=clock, monotonic=time.monotonic)

    def lines(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self._said.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    async def line(self, event: str, number: int = 1) -> dict[str, Any]:
        async def said() -> list[dict[str, Any]]:
            return self.lines(event)[number - 1 : number]

        (line,) = await eventually(said, f"{event!r} is logged")
        return line

    async def get(self, path: str) -> tuple[int, str]:
        port = self.lines("listening")[0]["http_port"]
        return await asyncio.to_thread(http_get, f"http://127.0.0.1:{port}{path}")

    async def metric(self, name: str) -> float:
        _, text = await self.get("/metrics")
        (value,) = [line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(value)

    async def ready(self) -> None:
        async def is_ready() -> bool:
            return (await self.get("/readyz"))[0] == 200

        await eventually(is_ready, "the server is ready")

    @asynccontextmanager
    async def asked_by(self, namespace: str) -> AsyncIterator[Client]:
        certificate = self.folder.workload(namespace)
        async with connected(self.server.port, certificate) as client:
            yield client


@asynccontextmanager
async def live(
    folder: Folder,
    clock: Callable[[], float] = time.time,  # noqa: TID251
    **changed: str | None,
) -> AsyncIterator[Live]:
    running = Live(folder, clock, **changed)
    await running.server.startup()
    task = asyncio.create_task(running.server.serve())
    try:
        yield running
    finally:
        running.server.stop()
        running.server.stop()
        await soon(task)
        await soon(running.server.drain())


async def sign(client: Client) -> str:
    return token_in(await client.check("sign", check_request(), upstream=TO_BANK))


async def verify(client: Client, *tokens: str) -> str:
    headers = tuple((HEADER, token) for token in tokens)
    request = check_request(principal=str(ACTIVATOR), headers=headers)
    return outcome(await client.check("verify", request))


def until(wanted: str, ask: Callable[[], Awaitable[str]]) -> Awaitable[bool]:
    async def is_so() -> bool:
        return await ask() == wanted

    return eventually(is_so, f"the answer is {wanted!r}")


# Readiness -------------------------------------------------------------------------------------


async def test_it_becomes_ready_when_the_key_store_is_made_later(folder: Folder) -> None:
    async with live(folder) as here, here.asked_by("shop") as client:
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
        await folder.make_keys()
        await here.ready()
        await here.line("key store usable again")
        assert await client.health() == "SERVING"
        assert (await sign(client)).startswith("v1.")
        (problem,) = here.lines("key store not usable")
        assert "run `authz keys init`" in problem["problem"]
        assert problem["ready"] is False
        await here.line("key store usable again")


async def test_a_wrong_kek_leaves_it_unready_with_a_log_line_that_says_so(folder: Folder) -> None:
    await folder.make_keys()
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
    await folder.make_keys()
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
        await folder.change_keys(
            lambda old: rotation.revoke_namespace(old, Namespace("shop"), time.time())  # noqa: TID251
        )
        await here.line("keyring loaded", 2)


async def test_a_copy_that_takes_something_back_is_told_once_and_not_used(folder: Folder) -> None:
    await folder.make_keys()
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
    await folder.make_keys()
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
    await folder.make_keys()
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


def revoke_shop(old: Keyring) -> Keyring:
    return rotation.revoke_namespace(old, Namespace("shop"), time.time())  # noqa: TID251


async def test_a_transport_that_is_not_installed_is_a_setting_to_change(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await folder.make_keys()
    monkeypatch.setitem(sys.modules, "authz.transport.reference", None)
    with pytest.raises(BadSettings, match="transport: grpcio is not installed"):
        async with live(folder, transport="grpcio"):
            pass


async def test_without_a_policy_file_every_namespace_is_on_its_own(folder: Folder) -> None:
    await folder.make_keys()
    async with live(folder, policy_file=None) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            assert await verify(bank, await sign(shop)) == "token-invalid"


# Tokens between tenants, through the whole server ----------------------------------------------


async def test_a_token_made_for_one_caller_opens_the_destination_that_it_names(
    folder: Folder,
) -> None:
    await folder.make_keys()
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
    await folder.make_keys()
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
    await folder.make_keys()
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
    await folder.make_keys()
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
    await folder.make_keys()
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


# A Unix socket ---------------------------------------------------------------------------------


async def test_a_sidecar_asks_over_a_unix_socket(folder: Folder, tmp_path: Path) -> None:
    await folder.make_keys()
    path = tmp_path / "authz.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    flags = folder.flags(listen=f"unix:{path}", identity="xfcc", own_id=str(SERVICE))
    with serving(folder.path, flags) as process:
        assert process.line("listening")["path"] == str(path)
        process.ready()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            client = Client(channel)
            metadata = {
                "x-authz-question": "sign",
                "x-authz-upstream": TO_BANK,
                XFCC: element(workload("shop")),
            }
            answer = CheckResponse.FromString(await client.ask(check_request(), metadata))
            assert token_in(answer).startswith("v1.")
        second = authz("serve", *flags)
        assert second.returncode == 3
        assert f"listen: cannot listen on unix:{path}: Address already in use" in second.stderr
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0
        assert not path.exists()
        assert process.stderr == ""


async def test_a_unix_socket_may_ask_for_certificates(folder: Folder, tmp_path: Path) -> None:
    await folder.make_keys()
    path = tmp_path / "authz.sock"
    certificate = folder.workload("shop")
    credentials = grpc.ssl_channel_credentials(
        certificate.ca_file.read_bytes(),
        certificate.key_file.read_bytes(),
        certificate.cert_file.read_bytes(),
    )
    options = [("grpc.ssl_target_name_override", SERVER_NAME)]
    async with (
        live(folder, listen=f"unix:{path}") as here,
        grpc.aio.secure_channel(f"unix:{path}", credentials, options) as channel,
    ):
        await here.ready()
        assert (await sign(Client(channel))).startswith("v1.")


# File descriptors ------------------------------------------------------------------------------


def limited_to(soft: int, hard: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_soft_limit_of_descriptors_is_raised_to_what_is_needed(folder: Folder) -> None:
    flags = folder.flags(max_connections="500", max_handshakes="100")
    with serving(folder.path, flags, limited_to(64, 2000)) as process:
        process.line("listening")
        limits = Path(f"/proc/{process.popen.pid}/limits").read_text()
        assert re.search(r"Max open files +728 +2000 ", limits)
        assert all(line["level"] == "info" for line in process.lines("listening"))
        assert "RLIMIT_NOFILE" not in process.stdout


async def test_connections_stay_below_the_hard_limit_of_descriptors(folder: Folder) -> None:
    await folder.make_keys()
    flags = folder.flags(max_connections="5000")
    with serving(folder.path, flags, limited_to(64, 192)) as process:
        process.ready()
        (line,) = [json.loads(text) for text in process.stdout.splitlines() if "NOFILE" in text]
        assert line["level"] == "warning"
        assert (line["allowed"], line["needed"]) == (192, 5000 + 1024 + 128)
        assert (line["max_connections"], line["max_handshakes"]) == (48, 16)
        certificate = folder.workload("shop")
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(connected(process.port, certificate))
                for _ in range(48)
            ]
            assert all([await sign(client) for client in clients])
            late = await stack.enter_async_context(connected(process.port, certificate))
            assert await refused(late.check("sign")) is grpc.StatusCode.UNAVAILABLE
            text = http_get(f"{process.http}/metrics")[1]
            assert 'authz_connections_closed_total{reason="limit"} 1.0' in text
            assert 'authz_connections_closed_total{reason="accept"} 0.0' in text
            assert await sign(clients[0])


async def test_limits_that_are_met_are_counted_by_name(folder: Folder) -> None:
    await folder.make_keys()
    async with live(folder, max_message_bytes="1024") as here, here.asked_by("shop") as client:
        await here.ready()
        assert await refused(client.check("sign", bytes(2000))) is RESOURCE_EXHAUSTED
        assert await here.metric('authz_limits_met_total{limit="message"}') == 1
        assert await sign(client)


# The side port ---------------------------------------------------------------------------------


async def test_the_side_port_serves_three_paths_and_no_other(folder: Folder) -> None:
    await folder.make_keys()
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


# The policy ------------------------------------------------------------------------------------


async def test_a_new_policy_counts_without_a_restart(folder: Folder) -> None:
    await folder.make_keys()
    async with live(folder) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            token = await sign(shop)
            assert await verify(bank, token) == "allowed"
            replace_file(folder.policy_file, ROLES.encode())
            await until("not-allowed", lambda: verify(bank, token))
            folder.policy_file.write_text(ROLES + GRANT)  # in place
            await until("allowed", lambda: verify(bank, token))


async def test_a_configmap_that_is_swapped_is_seen(folder: Folder) -> None:
    """The kubelet writes another directory and moves the link `..data` over."""
    mount = folder.path / "mount"

    def swap(number: int, policy: str) -> None:
        data = mount / f"..{number}"
        data.mkdir(parents=True)
        (data / "policy.yaml").write_text(policy)
        (mount / "..data_tmp").symlink_to(data.name)
        (mount / "..data_tmp").rename(mount / "..data")

    swap(1, ROLES + GRANT)
    (mount / "policy.yaml").symlink_to("..data/policy.yaml")
    await folder.make_keys()
    async with live(folder, policy_file=str(mount / "policy.yaml")) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            token = await sign(shop)
            assert await verify(bank, token) == "allowed"
            swap(2, ROLES)
            await until("not-allowed", lambda: verify(bank, token))
            swap(3, ROLES + GRANT)
            await until("allowed", lambda: verify(bank, token))


async def test_a_policy_that_loses_what_keeps_the_mesh_going_is_warned_of(folder: Folder) -> None:
    await folder.make_keys()
    async with live(folder) as here:
        await here.ready()
        replace_file(folder.policy_file, b"default_mode: shadow\n")
        lost = await here.line(
            "policy lost all roles: gateways and activator are denied everything"
        )
        assert lost["before"]["roles"] > 0
        assert lost["now"]["roles"] == 0
        changed = await here.line(
            "policy changed default_mode, for every namespace without a mode of its own"
        )
        assert (changed["before"], changed["now"]) == ("enforce", "shadow")


@pytest.mark.parametrize(
    "bad",
    [
        *(b"grants: 7\ntenant: {}\n", b"[[[[", b"\xff", b"a: &a [*a]\n"),
        *(b"", b"# written by a template\n", b"{}\n", b"<<<<<<< ours\ngrants: []\n"),
    ],
)
async def test_a_bad_policy_is_told_and_counted_and_the_last_good_one_stays(
    folder: Folder, bad: bytes
) -> None:
    await folder.make_keys()
    async with live(folder) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            token = await sign(shop)
            replace_file(folder.policy_file, bad)
            line = await here.line("new version is bad, the last good one stays")
            assert line["what"] == "policy"
            assert line["problems"]
            failures = 'authz_reload_failures_total{what="policy"}'
            assert await here.metric(failures) == 1.0
            newest = 'authz_last_reload_successful{what="policy"}'
            assert await here.metric(newest) == 0
            assert await verify(bank, token) == "allowed"
            assert (await here.get("/readyz"))[0] == 200
            replace_file(folder.policy_file, ROLES.encode())
            await until("not-allowed", lambda: verify(bank, token))
            assert await here.metric(failures) == 1.0
            assert await here.metric(newest) == 1


async def test_what_nobody_expected_of_a_policy_file_ends_no_server(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await folder.make_keys()
    async with live(folder) as here, here.asked_by("shop") as shop, here.asked_by("bank") as bank:
        await here.ready()
        token = await sign(shop)

        def broken(text: str) -> Policy:
            raise RecursionError(text)

        monkeypatch.setattr(sources, "parse_policy_apart", broken)
        replace_file(folder.policy_file, b"# precious\n")
        line = await here.line("new version is bad, the last good one stays")
        assert line["problems"] == ["cannot be read: RecursionError, a bug: please report it"]
        assert await here.metric('authz_unexpected_errors_total{kind="RecursionError"}') == 1
        assert await here.metric('authz_reload_failures_total{what="policy"}') == 1
        assert await verify(bank, token) == "allowed"
        monkeypatch.setattr(sources, "parse_policy_apart", parse_policy_apart)
        replace_file(folder.policy_file, ROLES.encode())
        await until("not-allowed", lambda: verify(bank, token))


async def test_the_age_of_the_policy_is_that_of_the_last_look_at_a_good_file(
    folder: Folder,
) -> None:
    clock = ManualClock(time.time())  # noqa: TID251
    await folder.make_keys(clock.now - 60)
    policy_age = 'authz_age_seconds{what="policy"}'
    async with live(folder, clock) as here:
        await here.ready()

        async def is_young() -> bool:
            return await here.metric(policy_age) == 0

        clock.now += 1000  # days without a change: it is looked at all the time
        await eventually(is_young, "it was seen unchanged")
        good = folder.policy_file.read_bytes()
        replace_file(folder.policy_file, b"nonsense: 1\n")
        await here.line("new version is bad, the last good one stays")
        clock.now += 1000
        await asyncio.sleep(3 * files._INTERVAL)
        assert await here.metric(policy_age) == 1000
        replace_file(folder.policy_file, good)
        await eventually(is_young, "it is good again, and what is in use")


async def test_without_a_policy_file_the_policy_is_of_any_age(folder: Folder) -> None:
    clock = ManualClock(time.time())  # noqa: TID251
    async with live(folder, clock, policy_file=None) as here:

        async def is_young() -> bool:
            return await here.metric('authz_age_seconds{what="policy"}') == 0

        await eventually(is_young, "there is nothing that it could be older than")


async def test_a_policy_that_is_deleted_stays_in_use(folder: Folder) -> None:
    await folder.make_keys()
    async with live(folder) as here:
        await here.ready()
        folder.policy_file.unlink()
        line = await here.line("new version is bad, the last good one stays")
        assert "No such file" in str(line["problems"])
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            assert await verify(bank, await sign(shop)) == "allowed"


async def test_a_policy_that_changes_as_the_server_starts_is_seen(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:

    def read_then_change(file: Path) -> Any:
        monkeypatch.undo()
        text = read_policy_text(file)
        replace_file(folder.policy_file, ROLES.encode())
        return text

    monkeypatch.setattr(sources, "read_policy_text", read_then_change)
    async with live(folder) as here:
        await here.line("policy loaded", 2)


async def test_files_are_told_of_once_they_keep_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is being written changes again and again."""
    looks = iter("AABCDDDEEAAF")
    seen: list[str] = []

    def look(_: Files) -> Any:
        seen.append(next(looks))
        return seen[-1]

    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr(Files, "_look", look)
    monkeypatch.setattr(asyncio, "sleep", at_once)
    changes = Files(tmp_path).changes()
    told = []
    for _ in range(3):
        await anext(changes)
        told.append("".join(seen))
    assert told == ["AABCDD", "AABCDDDEE", "AABCDDDEEAA"]


# Certificates ----------------------------------------------------------------------------------


async def test_a_renewed_certificate_is_presented_and_a_bad_one_is_not_taken(
    folder: Folder,
) -> None:
    await folder.make_keys()
    files = folder.certificate
    async with live(folder) as here:
        await here.ready()
        replace_file(files.cert_file, b"nonsense")
        line = await here.line("new version is bad, the last good one stays")
        assert line["what"] == "tls"
        assert line["problems"] == [f"tls_cert_file: {files.cert_file} holds no certificate in PEM"]
        assert await here.metric('authz_reload_failures_total{what="tls"}') == 1.0
        async with here.asked_by("shop") as client:
            assert await sign(client)
        new = folder.issuer.renewed()
        replace_file(files.cert_file, new.cert_file.read_bytes())
        replace_file(files.key_file, new.key_file.read_bytes())
        await here.line("certificate loaded")
        assert await asyncio.to_thread(presented, here.server.port) == serial(new)


async def test_what_is_left_of_the_certificate_in_use_is_exported(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock(expiry(folder.certificate) - 100)
    await folder.make_keys(clock.now)
    name = "authz_certificate_expires_seconds"
    async with live(folder, clock) as here:
        assert await here.metric(name) == 100
        clock.now += 200
        assert await here.metric(name) == -100
        monkeypatch.setattr(certs, "_LIFE", timedelta(days=2))
        new = folder.issuer.renewed()
        replace_file(folder.certificate.cert_file, new.cert_file.read_bytes())
        replace_file(folder.certificate.key_file, new.key_file.read_bytes())
        await here.line("certificate loaded")
        assert await here.metric(name) == expiry(new) - clock.now


async def test_clients_of_an_authority_that_is_taken_away_are_refused(folder: Folder) -> None:
    await folder.make_keys()
    other = Issuer(folder.path / "other")
    async with live(folder) as here:
        await here.ready()
        ours, theirs = folder.workload("shop"), other.issue(workload("shop"))
        ca = folder.certificate.ca_file
        trusted = ca.read_bytes()
        async with connected(here.server.port, theirs, trusting=ca) as client:
            assert await refused(client.health()) is grpc.StatusCode.UNAVAILABLE
        replace_file(ca, other.ca_file.read_bytes())
        await here.line("certificate loaded")
        (folder.path / "trusted.pem").write_bytes(trusted)
        for certificate, taken in ((theirs, True), (ours, False)):
            async with connected(
                here.server.port, certificate, trusting=folder.path / "trusted.pem"
            ) as client:
                if taken:
                    assert await sign(client)
                else:
                    assert await refused(client.health()) is grpc.StatusCode.UNAVAILABLE


# Keys ------------------------------------------------------------------------------------------


async def test_a_revocation_is_seen_within_a_second(folder: Folder) -> None:
    await folder.make_keys()
    async with live(folder) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            took = []
            for _ in range(3):  # a machine may be busy once
                token = await sign(shop)
                assert await verify(bank, token) == "allowed"
                await asyncio.to_thread(folder.keys, "revoke", "shop")
                start = time.monotonic()
                await until("token-invalid", lambda: verify(bank, token))  # noqa: B023
                took.append(time.monotonic() - start)
                assert here.lines("denied")[-1]["reason"] == "key-revoked"
                await until("allowed", lambda: renewed(shop, bank))
            assert min(took) < 1.0


async def renewed(shop: Client, bank: Client) -> str:
    return await verify(bank, await sign(shop))


@pytest.mark.parametrize("what", ["shop", "--root"])
async def test_a_rotation_denies_nobody(folder: Folder, what: str) -> None:
    await folder.make_keys(time.time() - 60)  # noqa: TID251
    async with live(folder) as here:
        await here.ready()
        async with here.asked_by("shop") as shop, here.asked_by("bank") as bank:
            before = await sign(shop)
            rotation_ = asyncio.create_task(asyncio.to_thread(folder.keys, "rotate", what, "--now"))
            while not here.lines("keyring loaded")[1:]:
                token = await sign(shop)
                assert await verify(bank, token) == "allowed"
                assert await verify(bank, before) == "allowed"
            await rotation_
            after = await sign(shop)
            assert after.split(".")[1] != before.split(".")[1]
            assert await verify(bank, before) == "allowed"
            assert await verify(bank, after) == "allowed"
            assert here.lines("denied") == []


async def test_two_servers_on_one_store_take_each_others_tokens(folder: Folder) -> None:
    await folder.make_keys()
    async with live(folder) as one, live(folder) as other:
        await one.ready()
        await other.ready()
        async with one.asked_by("shop") as shop:
            token = await sign(shop)
        bank = folder.workload("bank")
        async with (
            connected(one.server.port, bank) as here,
            connected(other.server.port, bank) as there,
        ):
            assert await verify(there, token) == "allowed"
            await folder.change_keys(
                lambda old: rotation.revoke_namespace(old, Namespace("shop"), time.time())  # noqa: TID251
            )
            await until("token-invalid", lambda: verify(here, token))
            await until("token-invalid", lambda: verify(there, token))


# The drain -------------------------------------------------------------------------------------


async def test_a_draining_server_says_so_and_goes_on_answering(folder: Folder) -> None:
    await folder.make_keys()
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
        await Live(folder, time.time).server.startup()  # noqa: TID251
    assert len(caught.value.problems) == 2


async def test_a_server_with_a_bad_certificate_does_not_start(folder: Folder) -> None:
    folder.certificate.ca_file.write_text("")
    with pytest.raises(BadSettings, match="tls_ca_file"):
        await Live(folder, time.time, policy_file=None).server.startup()  # noqa: TID251


async def test_a_server_without_kek_does_not_start(folder: Folder) -> None:
    with pytest.raises(KeyStoreError, match="kek_files"):
        await Live(folder, time.time, policy_file=None, kek_files=None).server.startup()  # noqa: TID251


# As a process ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_it_with_0(folder: Folder, number: signal.Signals) -> None:
    await folder.make_keys()
    with serving(folder.path, folder.flags(drain_seconds="1")) as process:
        process.ready()
        async with connected(process.port, folder.workload("shop")) as client:
            assert await sign(client)
            process.popen.send_signal(number)
            process.line("draining")
            assert http_get(f"{process.http}/readyz")[0] == 503
            assert await client.health() == "NOT_SERVING"
            assert await sign(client)
        assert process.ended() == 0
        assert process.lines("stopped")
        assert process.stderr == ""


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_signals_that_ask_for_a_reload_or_for_new_logs_end_nothing(
    folder: Folder, workers: str
) -> None:
    await folder.make_keys()
    with serving(folder.path, folder.flags(workers=workers)) as process:
        process.ready()
        for number, name in enumerate(("SIGHUP", "SIGUSR1", "SIGUSR2"), 1):
            process.popen.send_signal(signal.Signals[name])
            assert process.line("signal without effect", number)["signal"] == name
        async with connected(process.port, folder.workload("shop")) as client:
            assert await sign(client)
        assert http_get(f"{process.http}/readyz")[0] == 200
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_every_address_of_both_families_is_served(folder: Folder, workers: str) -> None:
    await folder.make_keys()
    everywhere = {"listen": "*:0", "http_listen": "*:0"}
    with serving(folder.path, folder.flags(workers=workers, **everywhere)) as process:
        side = process.ready().http.rpartition(":")[2]
        for host in ("127.0.0.1", "[::1]"):
            assert http_get(f"http://{host}:{side}/readyz")[0] == 200
            socket.create_connection((host.strip("[]"), process.port), timeout=5).close()


@pytest.mark.parametrize(("parser", "warned"), [("python", True), ("upb", False)])
def test_a_parser_that_is_not_compiled_is_warned_of(
    folder: Folder, parser: str, warned: bool
) -> None:
    chosen = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": parser}
    with serving(folder.path, folder.flags(), **chosen) as process:
        process.line("listening")
        lines = process.lines("protobuf parses in Python: a Check costs some ten times as much")
    assert bool(lines) == warned


async def test_a_second_signal_hurries_the_drain(folder: Folder) -> None:
    await folder.make_keys()
    with serving(folder.path, folder.flags(drain_seconds="600")) as process:
        process.ready().popen.send_signal(signal.SIGTERM)
        process.line("draining")
        assert process.popen.poll() is None
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


def test_a_signal_ends_a_server_that_was_never_ready(folder: Folder) -> None:
    with serving(folder.path, folder.flags()) as process:
        process.line("key store not usable")
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


def test_every_problem_of_a_bad_policy_is_on_stderr(folder: Folder) -> None:
    folder.policy_file.write_text("x: 1\ngrants:\n- {to: a}\ndefault_mode: maybe\n")
    done = authz("serve", *folder.flags())
    assert done.returncode == 3
    named = f"policy_file: {folder.policy_file}: "
    assert done.stderr.splitlines() == [
        f"{named}line 4: default_mode: Input should be 'enforce', 'shadow' or 'off', not 'maybe'",
        f"{named}line 3: grants.0.from: is required",
        f"{named}line 1: x: there is no such field",
    ]


@pytest.mark.parametrize("setting", ["listen", "http_listen"])
def test_a_port_in_use_is_told_by_its_setting(folder: Folder, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = authz("serve", *folder.flags(**{setting: address}))
    assert done.returncode == 3
    said = done.stderr.splitlines()[-1]  # grpcio's library speaks first
    assert said.startswith(f"{setting}: cannot listen on {address}: ")
    assert "Traceback" not in done.stderr


def test_two_servers_on_one_port_do_not_share_it(folder: Folder) -> None:
    with serving(folder.path, folder.flags()) as process:
        second = authz("serve", *folder.flags(listen=f"127.0.0.1:{process.port}"))
        assert second.returncode == 3
        assert process.popen.poll() is None


def test_bad_settings_are_told_all_at_once(folder: Folder) -> None:
    done = authz("serve", *folder.flags(listen="9000", token_seconds="1", tls_ca_file=None))
    assert done.returncode == 2
    named = [line.partition(":")[0] for line in done.stderr.splitlines()]
    assert named == ["token_seconds", "listen", "tls_ca_file"]


async def test_killing_a_server_harms_nobody_else(folder: Folder, tmp_path: Path) -> None:
    await folder.make_keys()
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    flags = folder.flags()
    with serving(tmp_path / "one", flags) as one, serving(tmp_path / "other", flags) as other:
        one.ready()
        other.ready()
        async with connected(one.port, folder.workload("shop")) as shop:
            token = await sign(shop)
        one.popen.kill()
        async with connected(other.port, folder.workload("bank")) as bank:
            assert await verify(bank, token) == "allowed"
