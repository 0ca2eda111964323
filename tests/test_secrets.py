"""Secrets stay inside: everything that the service says is searched for them."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.config import Transport
from authz.domain.keys import Keyring
from authz.domain.names import PUBLIC, Namespace
from authz.testing import check_request, workload
from tests.support.clients import Client, connected, http_get, token_in
from tests.support.processes import KEK, Folder, authz, serving

ACTIVATOR = workload("knative-serving", "activator")
NAMESPACES = ["shop", "bank", "istio-system", PUBLIC]
TO_BANK = "outbound|80||vault.bank.svc.cluster.local"
HEADER = "x-tenant-token"


def spelled(secret: bytes) -> Iterator[str]:
    """A secret in each form in which it could be written."""
    yield secret.hex()
    yield secret.hex().upper()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(secret).decode().rstrip("=")
    yield repr(secret)[2:-1]
    yield secret.decode("latin-1")


def secrets_of(keyring: Keyring, now: float) -> dict[str, bytes]:
    """Every secret that a server with this keyring holds."""
    found = {f"root {root.id}": root.secret for root in keyring.roots if root.secret}
    for name in NAMESPACES:
        namespace = Namespace(name)
        found[f"key of {name}"] = keyring.signing_key(namespace, now).secret
    return {**found, "KEK": base64.b64decode(KEK)}


def leaks(said: str, secrets: dict[str, bytes], tokens: list[str]) -> list[str]:
    found = [name for name, secret in secrets.items() if any(s in said for s in spelled(secret))]
    for token in tokens:
        mac = token.rpartition(".")[2]
        found += [f"token {token[:20]}"] * (token in said) + [f"mac {mac[:6]}"] * (mac in said)
    return found + re.findall(r"v1\.[0-9a-f]{8}-\d+\.[\w-]+\.[\w-]{43}", said)


def test_the_search_finds_a_secret_in_every_form() -> None:
    secret = bytes(range(200, 232))
    token = f"v1.00000001-0.abc.{'m' * 43}"
    for form in spelled(secret):
        assert leaks(f"a {form} b", {"root": secret}, []) == ["root"]
    assert leaks(token, {}, [token])
    assert leaks(f"v1.00000001-0.other.{'m' * 43}", {}, [])
    assert leaks("m" * 43, {}, [token])


@pytest.mark.parametrize("transport", Transport)
async def test_nothing_that_the_service_says_holds_a_secret(
    tmp_path: Path, transport: Transport
) -> None:
    folder = Folder(tmp_path)
    gateway = workload("istio-system", "gateway")
    folder.policy_file.write_text(
        f"roles: {{transit: ['{ACTIVATOR}'], gateway: ['{gateway}']}}\n"
        "namespaces: {shadowed: {mode: shadow}}\n"
        "grants: [{to: bank, from: shop}]\n"
    )
    keyring = await folder.make_keys()
    talkative = {
        "GRPC_VERBOSITY": "debug",
        "GRPC_TRACE": "http,call_error,api,tsi",
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONDEVMODE": "1",
        "AUTHZ_KEK": KEK,
        "AUTHZ_TRANSPORT": transport.value,
    }
    tokens: list[str] = []
    said: list[str] = []
    with serving(folder.path, folder.flags(), **talkative) as process:
        process.ready()
        now = keyring.roots[0].sign_from + 1
        secrets = secrets_of(keyring, now)
        async with (
            connected(process.port, folder.workload("shop")) as shop,
            connected(process.port, folder.workload("bank")) as bank,
            connected(process.port, folder.workload("shadowed")) as shadowed,
            connected(process.port, folder.workload("istio-system", "gateway")) as public,
        ):
            tokens.append(token_in(await shop.check("sign", check_request(), upstream=TO_BANK)))
            own = check_request(route_of="bank")
            tokens.append(token_in(await public.check("public", own, upstream=TO_BANK)))
            for presented in [*tokens, tokens[0][:-1] + "A", tokens[0] + "x", "v1.x"]:
                said += [await verify(asker, presented) for asker in (bank, shop, shadowed)]
            said.append(await verify(bank, tokens[0], tokens[0]))
            said.append(repr(await bank.ask(b"\xff" + tokens[0].encode(), [])))
        said += [http_get(f"{process.http}/{path}")[1] for path in ("metrics", "readyz", "x")]
        process.popen.terminate()
        assert process.ended() == 0
        reasons = {line["reason"] for line in process.lines("denied")}
        said += [process.stdout, process.stderr]
    assert {"token-malformed", "token-repeated", "meant-for-another-namespace"} <= reasons
    assert process.lines("would deny")
    if transport is Transport.GRPCIO:
        assert "chttp2" in process.stderr  # it was talkative
    assert "Traceback" not in process.stderr
    assert "Warning" not in process.stderr
    assert leaks("\n".join(said), secrets, tokens) == []


async def verify(client: Client, *tokens: str) -> str:
    """Verify, in the request's header and wherever else a token could be quoted from."""
    request = check_request(
        principal=str(ACTIVATOR), headers=tuple((HEADER, token) for token in tokens)
    )
    answer = await client.check("verify", request)
    assert answer.status.code in {0, 7}
    return str(answer)


async def test_nothing_that_a_command_says_holds_a_secret(tmp_path: Path) -> None:
    """Every command that meets keys or tokens."""
    folder = Folder(tmp_path)
    keyring = await folder.make_keys()
    now = keyring.roots[0].sign_from + 1
    secrets = secrets_of(keyring, now)
    env = {"AUTHZ_STORE": folder.store, "AUTHZ_KEK": KEK, "PYTHONDEVMODE": "1"}
    minted = authz("token", "mint", "shop", "bank", **env)
    token = minted.stdout.strip()
    said = [minted.stderr]
    root = json.loads(authz("keys", "list", "--json", **env).stdout)["roots"][0]["id"]
    commands: list[list[str]] = [
        ["keys", "list"],
        ["keys", "list", "--json"],
        ["keys", "rotate", "shop", "--now"],
        ["keys", "rotate", "--root", "--now"],
        ["keys", "revoke", "shop"],
        ["keys", "revoke", "--root", root],
        ["keys", "revoke", "shop", "--reason", f"the KEK was {KEK}"],
        ["keys", "revoke", "shop", "--reason", f"stolen: {token}"],
        ["keys", "rotate", "--root", "--dry-run"],
        ["keys", "history"],
        ["keys", "history", "--json"],
        ["keys", "reseal", "--to", str(folder.kek_file)],
        ["keys", "init"],
        ["token", "verify"],
        ["token", "verify", "--json"],
        ["token", "inspect"],
        ["token", "inspect", "--json"],
        ["serve", "--listen", "x"],
        ["serve", *folder.flags(tls_ca_file="/nonexistent", kek_files=None)],
    ]
    for command in commands:
        given = token if command[0] == "token" else None
        done = authz(*command, given=given, **env)
        assert "Traceback" not in done.stderr, done.stderr
        said += [done.stdout, done.stderr]
    store = folder.opened()
    secrets.update(secrets_of((await store.load()).keyring, now + 3600))
    await store.close()
    assert len(secrets) > len(NAMESPACES) + 1
    assert leaks("\n".join(said), secrets, [token]) == []


def test_a_whole_folder_is_not_readable_by_others(tmp_path: Path) -> None:
    env = {"AUTHZ_STORE": f"sqlite:{tmp_path / 'keys.db'}"}
    kek = tmp_path / "kek"
    done = authz("keys", "init", "--generate-kek", "--kek-files", str(kek), **env)
    assert done.returncode == 0
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file
    assert kek.read_text().strip().rstrip("=") not in done.stdout + done.stderr
