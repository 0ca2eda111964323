"""deploy/standalone without Docker: its script, its compose file, its Envoys, its policy, for real.

Only addresses and folders are put in place of those in the containers.
"""

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from authz.config import Settings
from authz.lab.harness import envoy
from authz.lab.harness.certs import Certificate
from authz.lab.harness.ports import Endpoint
from authz.testing import NO_ANSWER, Outcome
from authz.wire import REASON_HEADER
from tests.deploy.manifests import DEPLOY, load
from tests.envoy.bench import free_port
from tests.support.clients import http_get
from tests.support.processes import authz, serving
from tests.support.waiting import PATIENCE, at_last

STANDALONE = DEPLOY / "standalone"
TENANTS = ("shop", "bank")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it is after setup.sh."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("standalone") / "standalone"
    shutil.copytree(STANDALONE, folder, ignore=shutil.ignore_patterns("certs", "state", ".env"))
    subprocess.run([folder / "setup.sh"], check=True, capture_output=True)
    return folder


def compose() -> dict[str, Any]:
    (document,) = load(STANDALONE / "compose.yaml")
    return document


# -- the compose file --------------------------------------------------------------------------


def test_the_containers_may_do_nothing_that_they_need_not() -> None:
    for name, service in compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_every_file_that_is_mounted_ships_or_is_made(folder: Path) -> None:
    for service in compose()["services"].values():
        for volume in service["volumes"]:
            assert (folder / volume.split(":")[0]).exists(), volume
    owner = (folder / ".env").read_text()
    assert owner.startswith("OWNER=")
    assert "${OWNER:?" in compose()["services"]["authz"]["user"]


def test_what_is_secret_is_its_owners_alone_and_not_for_git(folder: Path) -> None:
    keys = [*(folder / "certs").glob("*.key"), folder / "state"]
    assert len(keys) == 4
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys)
    assert not (folder / "certs/ca.key").exists()
    assert {"certs/", "state/", ".env"} <= set((STANDALONE / ".gitignore").read_text().split())


def test_docker_compose_takes_it(folder: Path) -> None:
    command = ["docker", "compose", "config", "--quiet"]
    if (
        shutil.which("docker") is None
        or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("there is no Docker Compose")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_variable_is_a_setting() -> None:
    known = {f"AUTHZ_{name}".upper() for name in Settings.model_fields}
    assert set(compose()["services"]["authz"]["environment"]) <= known


# -- it works ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standalone:
    """What answers where."""

    folder: Path
    outbound: Mapping[str, Endpoint]
    inbound: Mapping[str, Endpoint]
    server: "subprocess.Popen[bytes]"

    async def calls(self, tenant: str, host: str, *headers: tuple[str, str]) -> str:
        """What a tenant's app gets for an answer."""
        return await _answer(f"http://{self.outbound[tenant]}", host, *headers)

    async def calls_past_its_envoy(
        self, target: str, certificate: Certificate | None, *headers: tuple[str, str]
    ) -> str:
        """What somebody gets who calls another tenant's Envoy himself."""
        context = ssl.create_default_context(cafile=self.folder / "certs/ca.pem")
        context.check_hostname = False
        if certificate is not None:
            context = certificate.client_context()
        host = f"{target}.internal"
        return await _answer(f"https://{self.inbound[target]}", host, *headers, tls=context)


async def _answer(
    url: str, host: str, *headers: tuple[str, str], tls: ssl.SSLContext | bool = False
) -> Outcome:
    async with httpx.AsyncClient(verify=tls, trust_env=False, timeout=PATIENCE) as client:
        try:
            answer = await client.get(url, headers=[("host", host), *headers])
        except (httpx.TransportError, OSError):
            return Outcome.of(0)
    return Outcome.of(answer.status_code, answer.headers.get(REASON_HEADER) or answer.text.strip())


def _placed(value: Any, places: Mapping[str, Endpoint], certs: Path) -> Any:
    """A configuration with our addresses and folders."""
    match value:
        case {"socket_address": {"address": address, "port_value": port}}:
            place = places[f"{address}:{port}"]
            return {"socket_address": {"address": place.host, "port_value": place.port}}
        case dict():
            return {key: _placed(it, places, certs) for key, it in value.items()}
        case list():
            return [_placed(it, places, certs) for it in value]
        case str():
            return value.replace("/etc/envoy/certs", str(certs))
        case _:
            return value


def _environment(folder: Path, places: Mapping[str, Endpoint]) -> Iterator[tuple[str, str]]:
    """The service's environment, with our addresses and folders."""
    service = compose()["services"]["authz"]
    mounts = dict(volume.split(":")[1::-1] for volume in service["volumes"])
    for name, value in service["environment"].items():
        placed = str(places.get(value, value))
        for inside, outside in mounts.items():
            placed = placed.replace(inside, str(folder / outside))
        yield name, placed


@asynccontextmanager
async def standalone(folder: Path) -> AsyncIterator[Standalone]:
    """Everything that `docker compose up` starts."""
    server, side = free_port(), free_port()
    inbound = {name: free_port() for name in TENANTS}
    outbound = {name: free_port() for name in TENANTS}
    at = {"0.0.0.0:9000": server, "127.0.0.1:9001": side}
    environment = dict(_environment(folder, at))
    if not (folder / "state/keys.db").exists():
        made = authz("keys", "init", "--generate-kek", **environment)
        assert made.returncode == 0, made.stderr
    async with AsyncExitStack() as stack:
        started = stack.enter_context(serving(folder, [], **environment))
        started.line("listening")
        at_last(lambda: http_get(f"http://{side}/readyz")[0] == 200, "the server is ready")
        for name in TENANTS:
            (config,) = load(folder / f"envoy-{name}.yaml")
            places = {
                "authz:9000": server,
                **{f"{tenant}:8443": inbound[tenant] for tenant in TENANTS},
                "0.0.0.0:8080": outbound[name],
                "0.0.0.0:8443": inbound[name],
            }
            placed = _placed(config, places, folder / "certs")
            binary = envoy.binary()
            await stack.enter_async_context(envoy.running(name, placed, folder, binary))
        yield Standalone(folder, outbound, inbound, started.popen)


@pytest.mark.envoy
async def test_two_tenants_are_kept_apart_but_for_a_grant(folder: Path) -> None:
    forged = ("x-tenant-token", "v1.forged")
    async with standalone(folder) as running:
        assert await running.calls("shop", "bank.internal") == "200 hello from bank"
        assert await running.calls("shop", "shop.internal") == "200 hello from shop"
        assert await running.calls("bank", "shop.internal") == "403 not-allowed"
        assert await running.calls("bank", "shop.internal", forged) == "403 not-allowed"

        certs = folder / "certs"
        bank = Certificate(certs / "bank.pem", certs / "bank.key", certs / "ca.pem")
        assert await running.calls_past_its_envoy("shop", bank) == "403 token-missing"
        assert await running.calls_past_its_envoy("shop", bank, forged) == "403 token-invalid"
        assert await running.calls_past_its_envoy("shop", None) == NO_ANSWER


@pytest.mark.envoy
async def test_when_the_service_is_gone_nobody_gets_in(folder: Path) -> None:
    async with standalone(folder) as running:
        running.server.kill()
        running.server.wait(PATIENCE)
        assert await running.calls("shop", "bank.internal") == "503"
