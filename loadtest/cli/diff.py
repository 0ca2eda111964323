"""`diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.output import AsJson, print_json, show
from loadtest.cli.common import note
from loadtest.diff import Significance, differences, warnings
from loadtest.stored import read

app = typer.Typer()


@app.command(epilog="Example: python -m loadtest diff before.json after.json")
def diff(
    before: Annotated[Path, typer.Argument(help="What --json wrote, earlier.")],
    after: Annotated[Path, typer.Argument(help="And later.")],
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also show what is no difference beyond noise.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two stored results, and tell differences from noise.

    Noise is the spread of the repeats: a difference counts where the ranges do
    not overlap and the medians are further apart than the wider range. Of pairs
    of three repeats of the same thing about one in twenty looks different all
    the same, of five one in six hundred. What changed on the machine between
    the two is not in the spread.
    """
    was, now = read(before), read(after)
    found = differences(was, now)
    for text in warnings(was, now):
        note(text)
    rows = [
        {
            "result": each.name,
            "figure": each.figure,
            "before": str(each.before),
            "after": str(each.after),
            "change": f"{each.change:+.0%}",
            "verdict": each.verdict.value,
        }
        for each in found
        if everything or as_json or each.verdict is not Significance.NOISE
    ]
    if as_json:
        print_json(rows)
        return
    if rows:
        show(rows, title="", as_json=False)
    same = sum(each.verdict is Significance.NOISE for each in found)
    typer.echo(f"{same} of {len(found)} figures: {Significance.NOISE}")
