"""What is kept takes memory, and no more than its bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from authz.domain.identity import SpiffeId
from authz.lab.harness.envoy import Envoy
from loadtest import processes
from loadtest.compare import sidecars
from loadtest.compare.sidecars import Way
from loadtest.hotpath import Tell
from loadtest.kept.calls import Measured, calling, namespace
from loadtest.stack import Stack
from loadtest.targets import Row

ACCOUNTS: Final = 20
"""Of each namespace that calls."""
_BETWEEN: Final = 10
"""Of so many calls one is that of the peer which calls all the time."""
_SIGN_RENEWED: Final = 22
"""Seconds after which a kept token is asked for again. Whoever takes as long can tell nothing."""
_ASKED: Final = "^http.*ext_authz.tenant_authz_{}.ok$"
_MB: Final = 1e6


async def destinations(ways: Sequence[Way], count: int, tell: Tell) -> Measured:
    """One source, to so many Hosts, twice: with a port each is another, on the same route."""
    tell(f"one source to {count:,} destinations")

    async def growth(way: Way) -> tuple[float, int, float]:
        async with calling(way.signed) as get:
            await get(sidecars.HOST)
            before, begun = processes.resident(way.client.pids), time.monotonic()
            for _ in range(2):
                asked = await _asked(way.client, "sign")
                for number in range(count):
                    await get(f"{sidecars.HOST}:{number + 1}")
            again = await _asked(way.client, "sign") - asked
            seconds = time.monotonic() - begun
            return processes.resident(way.client.pids) - before, again, seconds

    (asking, *_), (kept, again, seconds) = await asyncio.gather(*map(growth, ways))
    more = (kept - asking) / _MB
    row = Row(
        f"memory of a sidecar, one source to {count:,} destinations",
        "≤ 8 MB more than asking; none asked about twice",
        f"{more:.1f} MB more; {again} asked about twice in {seconds:.0f} s",
        more <= 8 and again == 0 and seconds < _SIGN_RENEWED,
    )
    return Measured(row, [more, again])


async def peers(stack: Stack, ways: Sequence[Way], count: int, tell: Tell) -> list[Measured]:
    """So many peers in turn, with long tokens, and one that calls all the time."""
    tell(f"{count:,} peers at one pod")
    who = [
        SpiffeId.parse(f"spiffe://cluster.local/ns/{namespace(n)}/sa/web")
        for n in range(count // ACCOUNTS)
    ]
    certificates = [*map(stack.certificate, who)]
    steady = stack.certificate(SpiffeId.parse("spiffe://cluster.local/ns/acme-web/sa/steady"))

    async def growth(way: Way) -> tuple[float, int, int, float]:
        async with calling(way.inbound, steady) as regular:
            await regular()
            before, asked = processes.resident(way.server.pids), await _asked(way.server, "verify")
            begun, calls = time.monotonic(), 0
            for certificate in certificates:
                async with calling(way.inbound, certificate) as get:
                    for account in range(ACCOUNTS):
                        await get(token=f"{account:0200}")
                        if account % _BETWEEN == 0:
                            await regular()
                            calls += 1
            seconds = time.monotonic() - begun
            again = await _asked(way.server, "verify") - asked - len(certificates) * ACCOUNTS
            return processes.resident(way.server.pids) - before, again, calls, seconds

    (asking, *_), (kept, again, calls, seconds) = await asyncio.gather(*map(growth, ways))
    more, most = (kept - asking) / _MB, int(seconds) + 2
    rows = [
        Row(
            f"memory of a pod's sidecar, {count:,} peers of {len(who)} namespaces in turn",
            "≤ 16 MB more than asking",
            f"{more:.1f} MB more",
            more <= 16,
        ),
        Row(
            "meanwhile, one that calls all the time: questions about it",
            "≤ one a second",
            f"{again} for {calls:,} calls in {seconds:.0f} s",
            again <= most,
        ),
    ]
    return [Measured(rows[0], [more]), Measured(rows[1], [again])]


async def _asked(envoy: Envoy, question: str) -> int:
    """How many questions were answered with an allow."""
    told = await envoy.admin(f"/stats?filter={_ASKED.format(question)}")
    return sum(int(line.rpartition(":")[2]) for line in told.splitlines())
