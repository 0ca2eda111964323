"""`kept`: what it costs, and whom, that sidecars give answers again.

The same calls go to two pods, side by side: one sidecar asks about each, the other keeps answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from authz.lab.loopback.server import POLICY
from authz.lab.world.model import Json
from loadtest.compare.rounds import started
from loadtest.compare.variants import ANSWERS_KEPT, ASKING, built_in
from loadtest.hotpath import Tell
from loadtest.kept.calls import Measured, namespace
from loadtest.kept.memory import ACCOUNTS, destinations, peers
from loadtest.kept.revocations import revocations
from loadtest.stack import Stack

__all__ = ["Measured", "Size", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is done."""

    revocations: int = 100
    others: Sequence[int] = (0, 19)
    """How many more call the pod, each once a second, while somebody else's tokens are revoked:
    a run for each number."""
    peers: int = 10_000
    destinations: int = 2000


async def measure(stack: Stack, directory: Path, size: Size, tell: Tell) -> list[Measured]:
    """Do all runs.

    Raises:
        CouldNotStart: a process failed.
        WrongOutcome: somebody was let in or kept out who should not be.
    """
    names = [namespace(n) for n in range(max(*size.others, size.peers // ACCOUNTS, 1))]
    policy = POLICY.replace("[acme-web,", f"[{', '.join(names)}, acme-web,")
    named = [it for it in built_in() if it.name in {ASKING, ANSWERS_KEPT}]
    variants = [replace(it, changed=_patiently) for it in named]
    async with AsyncExitStack() as running:
        tell("starting servers and Envoys")
        ways = await started(stack, directory, variants, running, policy)
        rows = [await destinations(ways, size.destinations, tell)]
        rows += await peers(stack, ways, size.peers, tell)
        for others in size.others:
            rows += await revocations(stack, ways, others, size.revocations, tell)
        return rows


def _patiently(asks: Json) -> None:
    """A question may take its time: what is measured is what becomes of it."""
    asks["grpc_service"]["timeout"] = "10s"
