"""One tenant asks a replica as fast as it can, by the precise driver: Locust would be too slow."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from authz.config import IdentitySource
from authz.lab.harness.certs import Authority
from authz.lab.harness.ports import Endpoint
from loadtest import tenants
from loadtest.client_run import ClientRun
from loadtest.plan import Ask, Plan, Share
from loadtest.swarm.control import StackFailed

_CONNECTIONS: Final = 4  # to two workers


class Flood:
    """What floods need."""

    def __init__(self, authority: Authority, directory: Path) -> None:
        who = tenants.workload(tenants.namespace(0))  # no tenant of the demo
        self._certificates = authority.issue(who).ca_file.parent
        self._directory = directory

    async def run(self, target: Endpoint, seconds: float) -> Mapping[str, Any]:
        """Flood `target`; how many answers were right, and what was wrong with others.

        Raises:
            StackFailed: the driver failed.
        """
        plan = Plan(
            ask=Ask.SIGN,
            identity=IdentitySource.MTLS,
            connections=_CONNECTIONS,
            in_flight=64,
            seconds=seconds,
            warmup=0,
        )
        share = Share(
            plan=plan,
            number=0,
            host=target.host,
            port=target.port,
            keys=str(self._directory),
            certificates=str(self._certificates),
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadtest.grpc_client"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            said, _ = await process.communicate(f"{share.to_json()}\ngo\n".encode())
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise StackFailed(f"the driver of the flood ended with {process.returncode}")
        outcome = ClientRun.from_json(said.splitlines()[-1])
        return {"right": outcome.right, "problems": outcome.problems}
