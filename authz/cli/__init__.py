"""The words that people type. Exit codes: 0 ok, 1 the answer is no, 2 usage, 3 could not start."""

import os
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.core import TyperGroup

from authz import __version__
from authz.cli.output import exits
from authz.cli.streams import guard

_COMMANDS = (
    *("demo", "manifests", "check", "keys", "serve"),  # to begin with
    *("policy", "report", "doctor", "tenant"),  # every day
    *("token", "conformance", "platform", "completion"),  # now and then
)
"""As the help lists them. Each is a module here, with an `app`."""


COMPLETE = "_AUTHZ_COMPLETE"
"""The variable by which the scripts of `authz completion` ask."""


class _OnDemand(TyperGroup):
    """Imports the module of a command when it is asked for, so that `serve` loads no other's."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**{**attrs, "commands": dict.fromkeys(_COMMANDS)})

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        command = typer.main.get_command(import_module(f"authz.cli.{cmd_name}").app)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="authz",
    cls=_OnDemand,
    help="Keeps tenants apart on a shared Knative + Istio cluster.",
    epilog="Try `authz demo`: tenants kept apart by real Envoys, in a minute.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # they show local variables, and those hold keys
)


def main() -> None:
    """Run the command line; every error on purpose becomes a text and an exit code."""
    guard()
    if COMPLETE in os.environ:  # a shell asks what may follow
        completion_init()
    with exits():
        app(prog_name="authz")


@app.callback(invoke_without_command=True)
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(__version__)
        raise typer.Exit
