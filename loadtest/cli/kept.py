"""`kept`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from loadtest.cli.common import JsonFile, with_stack
from loadtest.kept import Size, measure
from loadtest.result import machine
from loadtest.stored import STDOUT, Result, put, write
from loadtest.targets import markdown as markdown_of

_DEFAULT = Size()

app = typer.Typer()


@app.command(
    epilog="Examples: python -m loadtest kept; "
    "python -m loadtest kept --revocations 10 --peers 1000 --json kept.json"
)
def kept(
    revocations: Annotated[
        int, typer.Option("--revocations", help="How often a namespace is revoked.", min=1)
    ] = _DEFAULT.revocations,
    peers: Annotated[
        int, typer.Option("--peers", help="How many call one pod, at least 20.", min=20)
    ] = _DEFAULT.peers,
    destinations: Annotated[
        int, typer.Option("--destinations", help="How many one source calls.", min=1)
    ] = _DEFAULT.destinations,
    json_file: JsonFile = None,
    markdown: Annotated[
        Path,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Where to write the table; - for standard output. In a file with the lines "
            "<!-- kept --> and <!-- /kept --> only what is between them.",
        ),
    ] = STDOUT,
) -> None:
    """See how long a revocation takes where sidecars keep answers, and how much memory these take.

    Two pods side by side, one whose sidecar asks about each request, and one
    whose sidecar keeps answers. As it is, it takes some seven minutes.
    Exit code 1 if somebody is let in for too long, or memory has no bound.
    """
    size = Size(revocations=revocations, peers=peers, destinations=destinations)
    found = with_stack(
        lambda stack, directory, tell: measure(stack, directory, size, tell),
        steps=3 + len(size.others) * revocations,
    )
    rows = [it.row for it in found]
    if json_file is not None:
        report = {
            "kind": "kept",
            "machine": machine(),
            "targets": [*map(asdict, rows)],
            "results": [asdict(Result(it.row.what, {"values": it.values})) for it in found],
        }
        write(report, json_file)
    if not json_file == markdown == STDOUT:
        put(markdown_of(rows), markdown, "kept")
    if any(row.met is False for row in rows):
        raise typer.Exit(1)
