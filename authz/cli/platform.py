"""`authz platform`: what the cluster can hold."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from authz.cli.output import AsJson, print_json, show
from authz.errors import BadSettings
from authz.estimate import costs
from authz.estimate.chart import svg

app = typer.Typer(
    help="Plan a shared cluster.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _platform() -> None:
    """Keep `estimate` a command of its own, with more to come."""


@app.command(
    epilog="Example: authz platform estimate --tenants 500 --services 10 --requests 5000 "
    "--plot pushes.svg"
)
def estimate(
    *,
    tenants: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Tenants, one namespace each.")
    ] = 100,
    services: Annotated[
        int, typer.Option(min=1, max=100_000, help="Knative services of a tenant.")
    ] = 10,
    revisions: Annotated[
        int, typer.Option(min=1, max=10_000, help="Revisions that a service keeps.")
    ] = 2,
    replicas: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="Running pods of a service.")
    ] = 1.0,
    changes: Annotated[
        float, typer.Option(min=0.0, max=1e6, help="Changes of services a second, in all.")
    ] = 0.5,
    requests: Annotated[
        float, typer.Option(min=0.0, max=1e9, help="Calls between services a second, in all.")
    ] = 1000.0,
    gateways: Annotated[int, typer.Option(min=0, max=100_000, help="Gateway pods.")] = 3,
    activators: Annotated[int, typer.Option(min=0, max=100_000, help="Activator pods.")] = 6,
    debounce_after: Annotated[
        float, typer.Option(min=0.0, max=60.0, help="PILOT_DEBOUNCE_AFTER, seconds.")
    ] = 0.1,
    debounce_max: Annotated[
        float, typer.Option(min=0.0, max=600.0, help="PILOT_DEBOUNCE_MAX, seconds.")
    ] = 10.0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Write a chart there, SVG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate what tenants cost the control plane, and when to open another cluster.

    A change of a service is sent to every proxy that knows the service: all of them, or with a
    Sidecar for each tenant that tenant's, the gateways and the activators. Each gets the route
    table of port 80 whole (1.0 KB for each service that it knows; delta xDS sends whole resources)
    and eight clusters of 1.1 KB. istiod pushes 1 / min(e^(c*a) / c, 1/c + m) times a second, for c
    changes a second, PILOT_DEBOUNCE_AFTER a and PILOT_DEBOUNCE_MAX m.

    A Gateway is measured: rendered as JSON with one server for each tenant, against etcd's 1.5 MiB.
    Replicas of this service: three Checks a call, 45 microseconds each, cores used to 60 %, two
    connections of 49 KB for each proxy, 20,000 a replica, and one replica more (loadtest/README.md,
    Performance). A cluster's limits are Kubernetes' scalability thresholds (10,000 namespaces,
    10,000 Services, 150,000 pods), and one gigabit a second for istiod, each used to 80 %.

    Exit code 1: the load does not fit into one cluster.
    """
    load = costs.Load(
        tenants=tenants,
        services=services,
        revisions=revisions,
        replicas=replicas,
        changes=changes,
        requests=requests,
        gateways=gateways,
        activators=activators,
        debounce_after=debounce_after,
        debounce_max=debounce_max,
    )
    if plot is not None:
        picture = svg(load)
        try:
            plot.write_text(picture, "utf-8")
        except OSError as error:
            raise BadSettings([f"--plot: {plot}: {error.strerror}"]) from None
    found = _figures(load)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["clusters"] > 1:
        raise typer.Exit(1)


def _figures(load: costs.Load) -> dict[str, Any]:
    return {
        "load": asdict(load),
        "pushes_per_second": costs.pushes_per_second(
            load.changes, load.debounce_after, load.debounce_max
        ),
        "without_sidecar": asdict(costs.pushes(load, scoped=False)),
        "with_sidecar": asdict(costs.pushes(load, scoped=True)),
        "gateway": {
            what: {
                "bytes": costs.gateway_bytes(load.tenants, ciphers=ciphers),
                "limit": costs.OBJECT_LIMIT,
                "most_servers": costs.most_servers(ciphers=ciphers),
            }
            for what, ciphers in (("ciphers_mesh_wide", False), ("ciphers_on_each", True))
        },
        "authz": asdict(costs.replicas(load)),
        "limits": [asdict(use) | {"share": use.share} for use in costs.uses(load)],
        "clusters": costs.clusters(load),
    }


def _show(found: dict[str, Any]) -> None:
    pushes = [
        {
            "": what.replace("_", " "),
            "proxies that a change reaches": f"{cost['reached']:,}",
            "sent for a change": _size(cost["bytes_per_change"]),
            "sent a second": _size(cost["bytes_per_second"]),
        }
        for what in ("without_sidecar", "with_sidecar")
        for cost in [found[what]]
    ]
    show(pushes, title=f"istiod, {found['pushes_per_second']:.2g} pushes a second", as_json=False)
    gateways = [
        {
            "": what.replace("_", " "),
            "size": _size(cost["bytes"]),
            "of etcd's limit": f"{cost['bytes'] / cost['limit']:.0%}",
            "most servers": f"{cost['most_servers']:,}",
        }
        for what, cost in found["gateway"].items()
    ]
    show(gateways, title="One Gateway with a server for each tenant", as_json=False)
    own = found["authz"]
    row = {
        "Checks a second": f"{own['checks_per_second']:,.0f}",
        "cores": f"{own['cores']:.2g}",
        "connections": f"{own['connections']:,}",
        "replicas": own["replicas"],
        "memory of each": _size(own["memory"]),
        "all reconnect in": f"{own['recovery']:.0f} s",
    }
    show([row], title="tenant-authz, one worker a replica", as_json=False)
    limits = [
        {
            "limit of a cluster": use["what"],
            "used": f"{use['value']:,.0f}",
            "of": f"{use['limit']:,.0f}",
            "share": f"{use['share']:.0%}",
        }
        for use in found["limits"]
    ]
    show(limits, title=f"Clusters needed: {found['clusters']}", as_json=False)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
