"""`incumbent`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from authz.cli.output import AsJson, print_json, show
from loadtest.incumbent import WAYS, counts, run

app = typer.Typer()


@app.command(epilog="Example: sudo .venv/bin/python -m loadtest incumbent")
def incumbent(*, as_json: AsJson = False) -> None:
    """Play every path and attack with AuthorizationPolicies for each tenant, and with ours.

    A real istiod, which Go builds once, feeds the box's Envoys. It needs root and takes some four
    minutes. Exit code 1 if something gets in with ours that may not.
    """
    from authz.lab.live import live  # noqa: PLC0415 - needs the extra

    played = run(source=live(tell=lambda line: typer.echo(line, err=True)))
    wrong = [it for it in played if it.did["tenant-authz"] and not it.may]
    if as_json:
        print_json([asdict(it) for it in played])
    else:
        show(counts(played), title="Who gets in", as_json=False)
        differ = [it for it in played if len({it.may, *it.did.values()}) > 1]
        rows = [
            {
                "scenario": it.name,
                "what it shows": it.shows,
                "may": _word(it.may),
                **{way: _word(it.did[way]) for way in WAYS},
            }
            for it in differ
        ]
        show(rows, title="Where they differ", as_json=False)
    if wrong:
        raise typer.Exit(1)


def _word(did: bool) -> str:
    return "in" if did else "out"
