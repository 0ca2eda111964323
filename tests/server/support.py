"""Servers in this process, and what they are asked."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from authz.cli.settings import load_settings
from authz.config import Settings
from authz.domain import rotation
from authz.domain.keys import Keyring
from authz.domain.names import Namespace
from authz.observe import json_log
from authz.server import Server
from authz.testing import check_request, workload
from tests.support.clients import Client, connected, http_get, outcome, token_in
from tests.support.processes import Folder
from tests.support.waiting import eventually, soon

ACTIVATOR = workload("knative-serving", "activator")
TO_BANK = "outbound|80||vault.bank.svc.cluster.local"
HEADER = "x-tenant-token"
ROLES = f"roles: {{transit: ['{ACTIVATOR}']}}\n"
GRANT = "grants: [{to: bank, from: shop}]\n"


def now() -> float:
    """The server's clock."""
    return time.time()  # noqa: TID251


def revoke_shop(old: Keyring) -> Keyring:
    return rotation.revoke_namespace(old, Namespace("shop"), now())


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
    clock: Callable[[], float] = now,
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
