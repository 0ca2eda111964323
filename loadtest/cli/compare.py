"""`compare`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.cli.output import show
from loadtest.cli.common import JsonFile, note, with_stack, wrong
from loadtest.compare.page import page as page_of
from loadtest.compare.results import View, report
from loadtest.compare.rounds import compare as run_compare
from loadtest.compare.schedule import Schedule
from loadtest.compare.table import brief
from loadtest.compare.table import markdown as markdown_of
from loadtest.compare.variants import Variant, built_in, cheaper, external
from loadtest.plan import BadPlan
from loadtest.result import machine
from loadtest.stored import STDOUT, put, read, save, write

_DEFAULT: Final = Schedule()
_WHAT, _LOAD, _OUT = "What is compared", "Load", "Results"

app = typer.Typer()


@app.command(
    epilog="Examples: python -m loadtest compare --page compare.html; "
    "python -m loadtest compare --target opa=127.0.0.1:9191 --only opa --only http2; "
    "python -m loadtest compare --seconds 5 --repeat 7 --json now.json --page now.html --markdown -"
)
def compare(  # noqa: PLR0917 - Typer makes options of them
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="NAME=HOST:PORT",
            help="Another ext_authz server, plaintext gRPC; again for more.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="WORD",
            help="Only variants with this in their names, 'otherwise' too; again for more.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    connections: Annotated[
        list[int] | None,
        typer.Option(
            "--connections",
            help="A closed loop on so many connections; again for more.",
            show_default=", ".join(map(str, _DEFAULT.connections)),
            rich_help_panel=_LOAD,
        ),
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            "--rate",
            help="An open loop at so many requests per second; again for more.",
            show_default=", ".join(f"{each:g}" for each in _DEFAULT.rates),
            rich_help_panel=_LOAD,
        ),
    ] = None,
    repeat: Annotated[
        int, typer.Option("--repeat", help="How often each run is done.", rich_help_panel=_LOAD)
    ] = _DEFAULT.repeat,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long each run is.", rich_help_panel=_LOAD)
    ] = _DEFAULT.seconds,
    warmup: Annotated[
        float, typer.Option("--warmup", help="Seconds before it.", rich_help_panel=_LOAD)
    ] = _DEFAULT.warmup,
    processes: Annotated[
        int, typer.Option("--processes", help="Client processes.", rich_help_panel=_LOAD)
    ] = _DEFAULT.processes,
    json_file: JsonFile = None,
    page: Annotated[
        Path | None,
        typer.Option("--page", metavar="FILE", help="Write an HTML page.", rich_help_panel=_OUT),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown",
            metavar="FILE",
            help="Write a table with all that belongs to it; - for standard output. In a file "
            "with the lines <!-- compare --> and <!-- /compare --> only what is between them.",
            rich_help_panel=_OUT,
        ),
    ] = None,
    stored: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Measure nothing: show what --json has written.",
            rich_help_panel=_OUT,
        ),
    ] = None,
) -> None:
    """Send the same requests through real Envoys, with one way of authorization or another.

    Compares no authorization, this service on both transports, what Envoy can
    do alone (credential_injector and RBAC), a Lua filter for each namespace,
    and other ext_authz servers. Each is signed for and verified, in two
    sidecars. As it is, it takes about a minute.
    """
    if stored is None:
        schedule = Schedule(
            connections=_DEFAULT.connections if connections is None else connections,
            rates=_DEFAULT.rates if rate is None else rate,
            repeat=repeat,
            seconds=seconds,
            warmup=warmup,
            processes=processes,
        )
        made = _measured(_chosen(target or [], only or []), schedule)
    else:
        made = read(stored)
        if made.get("kind") != "compare":
            raise BadPlan(f"{stored}: was not written by compare")
    view = View(made)
    for text in view.warnings():
        note(text)
    if json_file is not None:
        write(made, json_file)
    if page is not None:
        save(page_of(view), page)
        note(f"wrote {page}")
    if markdown is not None:
        put(markdown_of(view), markdown, "compare")
    if STDOUT not in {json_file, markdown}:
        title, rows = brief(view)
        show(rows, title=title, as_json=False)
    _end(view)


def _chosen(targets: list[str], only: list[str]) -> list[Variant]:
    variants = [*built_in(), *map(external, targets), *(cheaper() if only else ())]
    names = [variant.name for variant in variants]
    if doubled := {name for name in names if names.count(name) > 1}:
        raise BadPlan(f"target: {', '.join(doubled)}: is there already, choose another name")
    for word in only:
        if not any(word in name for name in names):
            raise BadPlan(f"only: {word!r} is in no name; there are: {'; '.join(names)}")
    return [each for each in variants if not only or any(word in each.name for word in only)]


def _measured(variants: list[Variant], schedule: Schedule) -> dict[str, object]:
    before = machine()
    done = with_stack(
        lambda stack, directory, tell: run_compare(stack, directory, variants, schedule, tell),
        steps=1 + schedule.repeat * len(schedule.points) * len(variants),
    )
    return report(done, before, shlex.join(["python", "-m", "loadtest", *sys.argv[1:]]))


def _end(view: View) -> None:
    """Say what went wrong, and fail for it."""
    problems = view.problems()
    for problem in problems:
        wrong(problem)
    if problems:
        raise typer.Exit(1)
