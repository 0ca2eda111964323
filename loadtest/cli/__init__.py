"""The words that people type. Exit codes: 0 ok, 1 a wrong answer, 2 usage, 3 could not start."""

from __future__ import annotations

import asyncio
import sys

import typer

from authz.errors import AuthzError
from loadtest.cli import compare, diff, hotpath, incumbent, kept, targets
from loadtest.compare.rounds import WrongOutcome
from loadtest.plan import BadPlan

app = typer.Typer(
    name="loadtest",
    help="Measures the service, with a stack of its own on this machine's loopback interface.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for each in (compare, hotpath, kept, targets, diff, incumbent):
    app.add_typer(each.app)


def main() -> None:
    """Run the command line; every error on purpose becomes a text and an exit code."""
    try:
        app(prog_name="python -m loadtest")
    except AuthzError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        sys.exit(_code(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("interrupted before the end", err=True)
        sys.exit(3)


def _code(error: AuthzError) -> int:
    match error:
        case WrongOutcome():
            return 1
        case BadPlan():
            return 2
        case _:
            return 3
