"""The words that people type. Exit codes: 0 ok, 1 the answer is no, 2 usage, 3 could not start."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from authz.cli import keys, platform, policy, tenant, token
from authz.cli.conformance import conformance
from authz.cli.doctor import doctor
from authz.cli.output import exits
from authz.cli.report import report
from authz.cli.settings import takes
from authz.config import Settings
from authz.server import run
from authz.server.workers import supervise

app = typer.Typer(
    name="authz",
    help="Keeps tenants apart on a shared Knative + Istio cluster.",
    epilog="Try `authz demo`: tenants kept apart by real Envoys, in a minute.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they show local variables, and those hold keys
)
app.add_typer(keys.app, name="keys")
app.add_typer(token.app, name="token")
app.add_typer(policy.app, name="policy")
app.add_typer(tenant.app, name="tenant")
app.add_typer(platform.app, name="platform")
app.command(
    epilog="Example: kubectl -n authz-system logs -l app=authz --tail=-1 | authz report - "
    "--policy policy.yaml"
)(report)
app.command(epilog="Example: authz doctor dumps/ --pods pods.json")(doctor)
app.command(epilog="Example: authz conformance --image registry.example/tenant-authz:0.1.0")(
    conformance
)


def main() -> None:
    """Run the command line; every error on purpose becomes a text and an exit code."""
    with exits():
        app()


@app.callback(invoke_without_command=True)
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(version("tenant-authz"))
        raise typer.Exit


@app.command(epilog="Example: authz serve --config /etc/tenant-authz/settings.yaml")
@takes(Settings)
def serve(settings: Settings) -> None:
    """Answer Envoys' questions until SIGTERM or Ctrl-C, then drain.

    Every setting has one name: NAME in the settings file, AUTHZ_NAME in the environment, --name
    here. The log goes to standard output as JSON lines.
    """
    if settings.workers == 1:
        run(settings)
    else:
        # In isolation from the current folder: the modules are where ours are.
        raise typer.Exit(supervise(settings, [sys.executable, "-P", "-m", "authz.cli.worker"]))


@app.command(epilog="Example: authz demo --once --json")
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Play the matrix once; exit 1 on any difference.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    knative: Annotated[
        bool,
        typer.Option("--knative", help="In a model of Knative and Istio, every path; needs root."),
    ] = False,
) -> None:
    """See tenants kept apart by real Envoys on this machine, without a cluster, Docker or root."""
    from authz.lab import demo as playing  # noqa: PLC0415 - only this command needs its extra

    raise typer.Exit(playing.run(once=once, json=as_json, knative=knative))
