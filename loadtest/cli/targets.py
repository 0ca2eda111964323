"""`targets`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from loadtest import targets as held
from loadtest.cli.common import JsonFile, with_stack
from loadtest.cli.hotpath import end
from loadtest.result import figures, machine
from loadtest.stored import STDOUT, Result, put, write

app = typer.Typer()


@app.command(
    epilog="Examples: python -m loadtest targets; "
    "python -m loadtest targets --repeat 9 --seconds 3 --json targets.json"
)
def targets(
    repeat: Annotated[
        int, typer.Option("--repeat", help="How often each run is done.", min=1, max=100)
    ] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long each run is.", min=0.1, max=60)
    ] = 2,
    json_file: JsonFile = None,
    markdown: Annotated[
        Path,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Where to write the table; - for standard output. In a file with the lines "
            "<!-- targets --> and <!-- /targets --> only what is between them.",
        ),
    ] = STDOUT,
) -> None:
    """Measure everything that the project holds itself to; print it as a Markdown table.

    Takes some ten minutes, and a machine that does nothing else. What counts is
    the median; the spread stands beside it. Draining behind an Envoy is a test,
    and not measured here.
    """
    runs = with_stack(
        lambda stack, _, tell: held.measure(stack, repeat=repeat, seconds=seconds, tell=tell),
        steps=repeat * held.steps(),
    )
    rows = held.rows(runs)
    if json_file is not None:
        results = [
            asdict(Result.of(f"{name}, {transport}", [*map(figures, each)]))
            for (name, transport), each in runs.items()
        ]
        rows_ = [asdict(row) for row in rows]
        report = {"kind": "targets", "machine": machine(), "targets": rows_, "results": results}
        write(report, json_file)
    if not json_file == markdown == STDOUT:
        put(held.markdown(rows), markdown, "targets")
    end([run for each in runs.values() for run in each])
