"""`python -m authz.lab.record`: ask each istiod what it sends the proxies of each variant."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer

from authz.lab import ads, agent, controlplane, nodes
from authz.lab.controlplane.api import Api, Refused
from authz.lab.controlplane.versions import ETCD, ISTIODS, KUBERNETES
from authz.lab.harness.processes import CouldNotStart
from authz.lab.recordings.reading import COMMAND, KINDS, Sent
from authz.lab.recordings.writing import Writer, file_of
from authz.lab.settled import NotSettled, settled
from authz.lab.world import objects
from authz.lab.world.variants import Variant, variants

Json = dict[str, Any]

_STOCK_MESH: Final = {"defaultProviders": {"metrics": ["prometheus"]}}
"""Istio's default installation: metrics for Prometheus."""


@dataclass
class Recorder:
    """Two istiods of one version beside one API server: as it comes, and for upstream's Envoy."""

    api: Api
    istiods: dict[bool, tuple[controlplane.Istiod, ads.Discovery]]
    """By whether Istio's own filters are in what it sends."""
    there: list[Json] = field(default_factory=list)
    _number: int = 0

    async def put(self, wanted: list[Json]) -> None:
        """Let exactly these objects be there, and wait until the istiods know."""
        await self.api.replace(self.there, wanted)
        self.there = wanted
        for istiod, discovery in self.istiods.values():
            self._number += 1
            await settled(self.api, istiod, discovery, wanted, self._number)

    async def sent(self, variant: Variant) -> dict[str, Sent]:
        """What every proxy of a variant is sent; its objects must be there."""
        _, discovery = self.istiods[variant.stock]
        known = {it.id: nodes.node(it) for it in variant.world.pods.values() if it.proxy != "none"}
        told = await asyncio.gather(*map(discovery.sent, known.values()))
        found = zip(known.items(), told, strict=True)
        return {
            pod: Sent(node, *(tuple(resources[kind]) for kind in KINDS))
            for (pod, node), resources in found
        }


@asynccontextmanager
async def recorder(istio: str) -> AsyncIterator[Recorder]:
    """A recorder of one of `versions.ISTIODS`, as long as the block lasts.

    Raises:
        CouldNotStart: something is missing or did not come up.
    """
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(
            controlplane.running(istio=istio, environment=controlplane.UPSTREAM_ENVOY, tell=_tell)
        )
        stock = await stack.enter_async_context(plane.another(istio, mesh_config=_STOCK_MESH))
        assert plane.istiod is not None  # noqa: S101 - for the type checker
        istiods = {}
        for own, it in ((False, plane.istiod), (True, stock)):
            istiods[own] = it, await stack.enter_async_context(ads.connected(it.ads))
        yield Recorder(await stack.enter_async_context(plane.api()), istiods)


async def record(
    istio: str, chosen: Iterable[Variant], date: dt.date, writer: Writer | None = None
) -> Writer:
    """Record variants of one istiod; into what is written already, if it is given."""
    about = {
        "istio": istio,
        "module": ISTIODS[istio],
        "kubernetes": KUBERNETES,
        "etcd": ETCD,
        "proxies": nodes.PROXY_VERSION,
        "command": COMMAND,
        "date": date.isoformat(),
    }
    if writer is None:
        writer = Writer(about, await asyncio.to_thread(agent.bootstraps, istio, _tell))
    async with recorder(istio) as running:
        for it in chosen:
            began = time.monotonic()
            world = objects.rendered(it.world, it.documents)
            filters = [d for d in it.documents if d["kind"] == "EnvoyFilter"]
            await running.put([*world, *filters] if it.filters else world)
            sent = await running.sent(it)
            writer.add(it.name, world, sent, filters=it.filters, stock=it.stock)
            _tell(f"{istio}: {it.name}: {len(sent)} proxies, {time.monotonic() - began:.1f} s")
    return writer


def main(
    istio: Annotated[
        list[str] | None, typer.Option(help=f"of which istiod: {', '.join(ISTIODS)}; of all")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="variants whose names begin so; what is recorded of others stays"),
    ] = None,
) -> None:
    """Record what istiod sends to each proxy of each world that the demo and the tests play.

    It starts etcd, kube-apiserver and istiod on loopback (and builds them with Go, if they have not
    been yet: some minutes), puts each world into them, asks as each proxy, and writes
    authz/lab/recordings. Nothing outside of this machine is touched.
    """
    today = dt.datetime.now(dt.UTC).date()  # noqa: TID251 - when it was recorded
    try:
        for name in istio or ISTIODS:
            if name not in ISTIODS:
                raise typer.BadParameter(f"no istiod {name!r}; there are: {', '.join(ISTIODS)}")
            file, wanted = file_of(name), list(variants())
            writer = None
            if only:
                writer = Writer.of(file, {it.name for it in wanted})
                wanted = [it for it in wanted if it.name.startswith(tuple(only))]
            writer = asyncio.run(record(name, wanted, today, writer))
            writer.write(file)
            _tell(f"{file}: {file.stat().st_size / 1000:.0f} kB")
    except (CouldNotStart, Refused, NotSettled) as error:
        _tell(f"error: {error}")
        sys.exit(1)


def _tell(line: str) -> None:
    typer.echo(line, err=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
