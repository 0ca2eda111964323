"""`python -m authz.lab.controlplane`: build the programs, or run a command beside them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Annotated

import typer

from authz.lab.controlplane import build, running
from authz.lab.harness.processes import CouldNotStart

app = typer.Typer(
    help="etcd, kube-apiserver and istiod, built with Go and kept in the user's cache.",
    no_args_is_help=True,
    add_completion=False,
)


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


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(help="what to run, and its arguments")],
) -> None:
    """Run a command beside an API server of its own: KUBECONFIG leads to its admin.

    Example: python -m authz.lab.controlplane run pytest --kube tests/keystore tests/kube
    """
    try:
        code = asyncio.run(_run(command))
    except CouldNotStart as error:
        typer.echo(f"error: {error}", err=True)
        code = 3
    raise typer.Exit(code)


async def _run(command: list[str]) -> int:
    async with running(istio=None, tell=lambda line: typer.echo(line, err=True)) as plane:
        environment = os.environ | {"KUBECONFIG": str(plane.kubeconfig)}
        try:
            process = await asyncio.create_subprocess_exec(*command, env=environment)
        except OSError as error:
            raise CouldNotStart(f"{command[0]}: {error.strerror}") from None
        return await process.wait()


if __name__ == "__main__":
    app()
