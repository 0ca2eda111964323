"""The Envoys of a box: each in its pod, as the user 1337."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authz.lab.box.knative.messages import Request
from authz.lab.box.knative.net import call
from authz.lab.harness import envoy
from authz.lab.harness.processes import Child, child
from authz.lab.world.model import Json

_CHECKS: Final = re.compile(
    r"^(?!cluster\.)(?:.*\.)?ext_authz\.(?:tenant_authz_)?(?P<question>\w+)\."
    r"(?P<outcome>ok|denied|error|disabled): (?P<count>\d+)"
)


@dataclass(frozen=True)
class Proxy:
    """A running Envoy and its admin endpoint, a Unix socket."""

    child: Child
    admin_socket: Path

    async def admin(self, path: str) -> str:
        """What the admin endpoint says at `path`.

        Raises:
            OSError: there is none.
        """
        _, content = await call(self.admin_socket, Request("GET", path, "admin"))
        return content.decode()

    async def version(self) -> str:
        """Its version, such as 1.40.0."""
        version: str = json.loads(await self.admin("/server_info"))["version"]
        return version.split("/")[1]

    async def ready(self) -> bool:
        """Whether all listeners take connections."""
        try:
            return (await self.admin("/ready")).strip() == "LIVE"
        except OSError:
            return False

    async def checks(self, *, kept: bool = False) -> Counter[tuple[str, str]]:
        """Checks so far, by filter and outcome: `("verify", "denied")`, say.

        Filters are named by their `stat_prefix` without `tenant_authz_`; outcomes are Envoy's: ok,
        denied, error. With `kept`, those that needed no question, too: disabled.
        """
        counts: Counter[tuple[str, str]] = Counter()
        for line in (await self.admin("/stats?filter=ext_authz")).splitlines():
            found = _CHECKS.search(line)
            if found and (kept or found["outcome"] != "disabled"):
                counts[found["question"], found["outcome"]] += int(found["count"])
        return counts


@asynccontextmanager
async def running(
    name: str, config: Json, directory: Path, executable: Path, prefix: Sequence[str]
) -> AsyncIterator[Proxy]:
    """Run an Envoy as long as the block lasts; `prefix` puts it into its pod."""
    stem = name.replace("/", ".")
    admin_socket = directory / f"{stem}.admin"
    admin_socket.unlink(missing_ok=True)  # of one that crashed
    config_file = directory / f"{stem}.json"
    admin = {"address": {"pipe": {"path": str(admin_socket)}}}
    config_file.write_text(json.dumps({**config, "admin": admin}, separators=(",", ":")))
    argv = [*prefix, *envoy.command(config["node"]["id"], executable, config_file)]
    log = directory / f"{stem}.envoy.log"
    environment = envoy.environment(config)
    del config  # large, and this frame stays when the Envoy is ended and started again
    async with child(f"Envoy {name}", argv, log, environment) as process:
        proxy = Proxy(process, admin_socket)
        await process.until(proxy.ready)
        yield proxy
