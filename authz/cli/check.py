"""`authz check`: is the cluster ready, is the installation whole?"""

import asyncio
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from authz import __version__, manifests
from authz.cli.output import AsJson, print_json
from authz.cli.settings import namespaces
from authz.doctor import read_documents
from authz.envoyfilters import directory, shipped
from authz.errors import BadSettings, to_install
from authz.policysource.file import read_policy

if TYPE_CHECKING:
    from authz.check import Line

app = typer.Typer(add_completion=False)

_COLORS: Final = {
    "ok": typer.colors.GREEN,
    "warning": typer.colors.YELLOW,
    "problem": typer.colors.RED,
    "not read": typer.colors.MAGENTA,
}
_OVERLAYS: Final = ("enforce", "reuse", "shadow", "break-glass")


@app.command(epilog="Examples: authz check --pre; authz check --wait 300; authz check --json")
def check(
    *,
    pre: Annotated[
        bool, typer.Option("--pre", help="Before the installation: is the cluster ready for it?")
    ] = False,
    wait: Annotated[
        float,
        typer.Option(
            "--wait", min=0, max=86_400, help="Repeat so many seconds, until all is well."
        ),
    ] = 0,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="Go by this policy file, not by the cluster's."),
    ] = None,
    filters: Annotated[
        Path | None,
        typer.Option("--filters", help="What `kubectl kustomize` printed, if you changed values."),
    ] = None,
    namespace: Annotated[
        str,
        typer.Option("--namespace", callback=namespaces, help="The service's own namespace."),
    ] = "authz-system",
    root_namespace: Annotated[
        str,
        typer.Option("--root-namespace", callback=namespaces, help="Istio's root namespace."),
    ] = "istio-system",
    platform: Annotated[
        list[str] | None,
        typer.Option(
            "--platform",
            callback=namespaces,
            help="A namespace of the platform's own, such as monitoring.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at the cluster of KUBECONFIG, and say of each part whether it is as it must be.

    Each line is ok, a warning, a problem, or not read, with what to do and the page that says why.
    It reads objects, servers' metrics and RBAC, never the content of a Secret, and changes nothing.
    `authz doctor --cluster` examines what proxies have in force.

    Exit code 1: there is a problem. 3: something could not be read. Warnings alone are 0.
    """
    try:
        from authz import check as checks  # noqa: PLC0415 - needs its extra
        from authz.kube import ApiServer  # noqa: PLC0415 - needs its extra
    except ModuleNotFoundError as error:
        raise BadSettings(
            [f"there is no module {error.name}: {to_install('kubernetes')}"]
        ) from None
    overlays = {} if filters else {overlay: shipped(overlay) for overlay in _OVERLAYS}
    wanted = checks.Wanted(
        filters=read_documents(filters) if filters else overlays["enforce"],
        usual=read_policy(directory() / "policy.yaml"),
        policy=read_policy(policy) if policy else None,
        overlays=overlays,
        admission=manifests.objects("admission"),
        version=__version__,
        home=namespace,
        root_namespace=root_namespace,
        platform=frozenset({"cert-manager", "monitoring", *(platform or ())}),
    )

    async def look() -> list[checks.Line]:
        server = ApiServer()
        try:
            return await checks.examine(checks.Site(server, wanted, before=pre))
        finally:
            await server.close()

    lines = asyncio.run(checks.until_well(look, wait))
    counted = Counter(line.answer.level.value for line in lines)
    if as_json:
        print_json({"checks": [it.row() for it in lines], "counted": counted})
    else:
        _show(lines)
        typer.echo(", ".join(f"{counted[level]} {level}" for level in _COLORS))
    if counted["problem"]:
        raise typer.Exit(1)
    if counted["not read"]:
        raise typer.Exit(3)


def _show(lines: "list[Line]") -> None:
    for group, several in groupby(lines, key=lambda it: it.group):
        typer.secho(group, bold=True)
        for _, one, (level, what, remedy) in several:
            typer.secho(f"  {level.value:8} ", fg=_COLORS[level.value], nl=False)
            typer.echo(f"{one.name}: {one.title}: {what}")
            if remedy:
                typer.echo(f"{'':11}do:  {remedy}\n{'':11}see: {one.page}")
        typer.echo()
