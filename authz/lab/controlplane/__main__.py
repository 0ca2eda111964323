"""`python -m authz.lab.controlplane build`: have the programs ready."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from authz.lab.controlplane import build
from authz.lab.harness.processes import CouldNotStart

app = typer.Typer(
    help="etcd, kube-apiserver and istiod, built with Go and kept in the user's cache.",
    no_args_is_help=True,
    add_completion=False,
)


@app.callback()
def _main() -> None:
    """A group, though it has one command."""


@app.command("build")
def build_all(
    only: Annotated[
        list[str] | None, typer.Argument(help="programs, such as `etcd`; all if none is named")
    ] = None,
) -> None:
    """Build what is not there yet, and print where it is."""
    names = {it.name for it in build.everything()}
    if unknown := set(only or ()) - names:
        raise typer.BadParameter(f"no such program: {', '.join(unknown)}; {', '.join(names)}")
    began = time.monotonic()
    try:
        for program in build.everything():
            if not only or program.name in only:
                typer.echo(build.built(program, lambda line: typer.echo(line, err=True)))
    except CouldNotStart as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    typer.echo(f"all there after {time.monotonic() - began:.0f} s", err=True)


if __name__ == "__main__":
    app()
