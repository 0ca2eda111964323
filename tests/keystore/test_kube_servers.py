"""Servers and the command line on a keyring in a Secret, in processes of their own."""

import asyncio
import base64
import functools
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.keystore.kubernetes import KEY
from authz.lab.harness.certs import Certificate
from authz.testing import check_request
from tests.kube_double import ApiDouble
from tests.support.clients import connected, http_get, outcome, token_in
from tests.support.processes import Folder, Process, authz, serving
from tests.support.waiting import at_last

STORE = "kubernetes:authz-system/keyring"
TO_BANK = "outbound|80||vault.bank.svc.cluster.local"


@pytest.fixture
def folder(tmp_path: Path, api: ApiDouble) -> Folder:
    """A folder for servers, whose store is in the cluster that KUBECONFIG names."""
    (tmp_path / "servers").mkdir()
    made = Folder(tmp_path / "servers")
    made.store = STORE
    made.policy_file.write_text(
        "tenants: {bank: {namespaces: [bank, bank-web]}}\n"
        "roles: {transit: [spiffe://cluster.local/ns/knative-serving/sa/activator]}\n"
    )
    made.keys("init")
    return made


@pytest.fixture
def two(folder: Folder) -> Iterator[tuple[Process, Process]]:
    """Two servers that share nothing but the API server."""
    places = [folder.path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    with serving(places[0], folder.flags()) as one, serving(places[1], folder.flags()) as two:
        yield one.ready(), two.ready()


def metric(server: Process, name: str) -> float:
    text = http_get(f"{server.http}/metrics")[1]
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1])


def sees(version: int, *servers: Process) -> None:
    """Wait until all of them use this version."""
    for server in servers:
        at_last(
            lambda: metric(server, "authz_keyring_version") == version,  # noqa: B023 - at once
            f"version {version} is seen",
        )


async def crossing(folder: Folder, signer: Process, verifier: Process) -> str:
    """Have one server sign for bank-web, in bank's tenant, and another verify at bank."""
    return await verified(folder, verifier, await signed(folder, signer))


async def signed(folder: Folder, server: Process) -> str:
    async with connected(server.port, certificate(folder, "bank-web")) as client:
        return token_in(await client.check("sign", upstream=TO_BANK))


async def verified(folder: Folder, server: Process, token: str) -> str:
    request = check_request(
        principal="spiffe://cluster.local/ns/knative-serving/sa/activator",
        headers=(("x-tenant-token", token),),
    )
    async with connected(server.port, certificate(folder, "bank")) as client:
        return outcome(await client.check("verify", request))


@functools.cache
def certificate(folder: Folder, namespace: str) -> Certificate:
    return folder.workload(namespace)


async def test_rotation_and_revocation_reach_all_servers_within_a_second(
    folder: Folder, two: tuple[Process, Process]
) -> None:
    one, other = two
    assert await crossing(folder, one, other) == "allowed"
    old = await signed(folder, one)
    took = []
    for number, change in enumerate((["rotate", "--root"], ["revoke", "bank-web"]), start=2):
        await asyncio.to_thread(folder.keys, *change)
        written = time.monotonic()
        sees(number, *two)
        took.append(time.monotonic() - written)
    assert min(took) < 1  # a machine may be busy once
    for server in two:
        assert await verified(folder, server, old) == "token-invalid"
    assert await crossing(folder, one, other) == await crossing(folder, other, one) == "allowed"


async def test_two_who_rotate_at_once_both_do(folder: Folder, two: tuple[Process, Process]) -> None:
    names = [f"tenant-{number}" for number in range(4)]
    await asyncio.gather(*(asyncio.to_thread(folder.keys, "rotate", name) for name in names))
    listed = folder.keys("list")
    assert [row["namespace"] for row in listed["namespaces"]] == names
    assert listed["version"] == 5
    sees(5, *two)


async def test_while_the_api_server_is_away_everything_goes_on_and_the_age_tells(
    folder: Folder, api: ApiDouble, two: tuple[Process, Process]
) -> None:
    one, other = two
    with api.away():
        for server in two:
            server.line("key store not usable")
            assert "API server" in server.line("key store not usable")["problem"]
        assert await crossing(folder, one, other) == await crossing(folder, other, one) == "allowed"
        assert http_get(f"{one.http}/readyz")[0] == 200
        before = metric(one, 'authz_age_seconds{what="keyring"}')
        at_last(lambda: metric(one, 'authz_age_seconds{what="keyring"}') > before + 0.05, "it ages")
        assert metric(one, 'authz_reload_failures_total{what="keyring"}') >= 1
    folder.keys("revoke", "bank-web")
    sees(2, *two)


async def test_a_server_that_cannot_unseal_is_unready_and_says_why(
    folder: Folder, tmp_path: Path
) -> None:
    folder.kek_file.write_text(base64.b64encode(b"another key".ljust(32, b"!")).decode())
    with serving(tmp_path, folder.flags()) as server:
        assert "is sealed under KEK" in server.line("key store not usable")["problem"]
        assert http_get(f"{server.http}/readyz")[0] == 503


async def test_a_server_without_a_cluster_is_unready_until_there_is_one(
    folder: Folder, api: ApiDouble, tmp_path: Path
) -> None:
    with serving(tmp_path, folder.flags(), KUBECONFIG=str(tmp_path / "later")) as server:
        assert "no Kubernetes cluster" in server.line("key store not usable")["problem"]
        assert http_get(f"{server.http}/readyz")[0] == 503
        api.kubeconfig(tmp_path / "later")
        server.ready()


async def test_an_older_keyring_put_back_is_not_taken_by_servers(
    folder: Folder, api: ApiDouble, two: tuple[Process, Process]
) -> None:
    old = api.get("secrets", "authz-system", "keyring")["data"]
    folder.keys("revoke", "bank-web")
    sees(2, *two)
    api.put("secrets", {"metadata": {"name": "keyring", "namespace": "authz-system"}, "data": old})
    for server in two:
        assert "an older copy" in server.line("key store not usable")["problem"]
        at_last(lambda: metric(server, "authz_keyring_refused") == 1, "it is told")  # noqa: B023
        sees(2, server)


def put_back(api: ApiDouble, data: dict[str, str]) -> None:
    """As `kubectl replace` does."""
    thing = {"metadata": {"name": "keyring", "namespace": "authz-system"}, "data": data}
    api.put("secrets", thing, manager="kubectl-replace")


async def test_what_the_readme_says_to_do_after_a_copy_was_put_back(
    folder: Folder, api: ApiDouble, tmp_path: Path, two: tuple[Process, Process]
) -> None:
    one, other = two
    stolen = await signed(folder, one)
    old = api.get("secrets", "authz-system", "keyring")["data"]
    folder.keys("revoke", "bank-web")
    lost = folder.keys("rotate", "--root")["done"].split()[3]
    sees(3, *two)
    put_back(api, old)
    for server in two:
        problem = server.line("key store not usable")["problem"]
        assert f"run `authz keys recover --lost {lost}`" in problem
    assert await verified(folder, other, stolen) == "token-invalid"
    assert await crossing(folder, one, other) == "allowed"

    # A server that starts now cannot know, and says so.
    (tmp_path / "fresh").mkdir()
    with serving(tmp_path / "fresh", folder.flags()) as fresh:
        warning = fresh.line("the keyring may be an older copy")["problem"]
        assert "kubectl-replace, not by `authz keys`" in warning
        fresh.ready()
        assert await verified(folder, fresh, stolen) == "allowed"

        for change in (["rotate", "other"], ["revoke", "other"], ["rotate", "--root", "--now"]):
            done = authz(*("keys", *change, "--store", STORE, "--kek-files", str(folder.kek_file)))
            assert (done.returncode, done.stdout) == (3, "")
            assert "Nothing was changed. Run `authz keys recover`" in done.stderr
        folder.keys("recover", "--lost", lost)
        for server in (*two, fresh):
            sees(2, server)
            assert await verified(folder, server, stolen) == "token-invalid"
        assert await crossing(folder, one, fresh) == await crossing(folder, fresh, other)
        for server in two:
            server.line("key store usable again")
            assert metric(server, "authz_keyring_refused") == 0
    folder.keys("rotate", "other")


# -- the command line ---------------------------------------------------------------------------


def test_all_commands_on_keys_work(folder: Folder, api: ApiDouble, tmp_path: Path) -> None:
    new_kek = tmp_path / "new"
    new_kek.write_text(base64.b64encode(b"another key".ljust(32, b"!")).decode())
    new_kek.chmod(0o600)
    assert folder.keys("rotate", "--root")["version"] == 2
    assert folder.keys("rotate", "shop")["version"] == 3
    assert folder.keys("revoke", "shop")["version"] == 4
    root = folder.keys("list")["roots"][0]["id"]
    assert folder.keys("revoke", "--root", root)["version"] == 5
    both = f"{folder.kek_file},{new_kek}"
    done = authz(
        *("keys", "reseal", "--to", str(new_kek), "--store", STORE, "--kek-files", both, "--json")
    )
    assert json.loads(done.stdout)["version"] == 6
    listed = authz("keys", "list", "--store", STORE, "--kek-files", str(new_kek), "--json")
    assert json.loads(listed.stdout)["namespaces"][0]["generation"] == 2
    assert list(api.objects) == [("secrets", "authz-system", "keyring")]
    assert list(api.get("secrets", "authz-system", "keyring")["data"]) == [KEY]


def test_init_does_not_replace_a_keyring(folder: Folder) -> None:
    done = authz("keys", "init", "--store", STORE, "--kek-files", str(folder.kek_file))
    assert (done.returncode, done.stdout) == (3, "")
    assert "holds a keyring already" in done.stderr


def test_what_is_forbidden_is_an_error_with_the_rule(folder: Folder, api: ApiDouble) -> None:
    api.forbidden = {"update"}
    done = authz("keys", "rotate", "--root", "--store", STORE, "--kek-files", str(folder.kek_file))
    assert done.returncode == 3
    assert 'resourceNames: ["keyring"], verbs: ["update"]' in " ".join(done.stderr.split())
