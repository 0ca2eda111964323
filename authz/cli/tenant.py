"""`authz tenant`: what onboarding puts into the cluster."""

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.output import AsJson, print_json
from authz.tenants.file import Tenants, chosen, read_tenants
from authz.tenants.manifests import as_yaml, write_folder
from authz.tenants.render import knative_gateways, manifests

app = typer.Typer(
    help="Render what a tenant needs in the cluster.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _tenant() -> None:
    """Keep `render` a command of its own, with more to come."""


@app.command(
    epilog="Examples: authz tenant render acme-web | kubectl apply --server-side -f -; "
    "authz tenant render --file tenants.yaml --output out && kubectl apply --server-side -k out"
)
def render(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Tenants; without any, all of the file."),
    ] = None,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="The tenants file; without it, the defaults.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Write a file for each tenant and a kustomization there."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write tenants' namespaces, quotas, roles, network rules, sidecars, gateways, certificates.

    The same input gives the same text, so that it can be compared and applied again. Without NAME
    it also sets, in Knative's config-istio, which Gateway serves which tenant.

    Exit code 2: a name or the file is wrong; every problem is told with its line.
    """
    tenants = Tenants() if file is None else read_tenants(file)
    these = chosen(tenants, names or [])
    files = {f"tenant-{name}": list(manifests(tenants, name)) for name in these}
    if not names and (gateways := knative_gateways(tenants, these)) is not None:
        files["config-istio"] = [gateways]
    if output is not None:
        changed = write_folder(output, files)
        if as_json:
            print_json({"files": len(files) + 1, "changed": changed})
        else:
            typer.echo(f"{output}: {len(files) + 1} files, {len(changed)} of them changed")
    elif as_json:
        print_json([one for objects in files.values() for one in objects])
    else:
        typer.echo(as_yaml(one for objects in files.values() for one in objects), nl=False)
