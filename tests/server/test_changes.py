"""What changes under a running server: its policy, its certificates, its keys."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.domain.policy import Policy
from authz.lab.harness import certs
from authz.policysource.file import read_policy_text
from authz.policysource.reader import parse_policy_apart
from authz.server import files, sources
from authz.server.files import Files
from authz.testing import ManualClock, workload
from tests.server.support import (
    GRANT,
    ROLES,
    live,
    now,
    revoke_shop,
    sign,
    until,
    verify,
)
from tests.support.certificates import (
    Issuer,
    expiry,
    presented,
    replace_file,
    serial,
)
from tests.support.clients import Client, connected, refused
from tests.support.processes import Folder
from tests.support.waiting import eventually

# The policy ------------------------------------------------------------------------------------


async def test_a_new_policy_counts_without_a_restart(folder: Folder) -> None:
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
    clock = ManualClock(now())
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
    clock = ManualClock(now())
    async with live(folder, clock, policy_file=None) as here:

        async def is_young() -> bool:
            return await here.metric('authz_age_seconds{what="policy"}') == 0

        await eventually(is_young, "there is nothing that it could be older than")


async def test_a_policy_that_is_deleted_stays_in_use(folder: Folder) -> None:
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
            await folder.change_keys(revoke_shop)
            await until("token-invalid", lambda: verify(here, token))
            await until("token-invalid", lambda: verify(there, token))
