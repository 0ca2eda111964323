"""`hotpath`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Annotated, Any, Final

import typer

from authz.cli.output import show
from authz.config import IdentitySource, Transport
from loadtest.bench import Measured
from loadtest.cli.common import JsonFile, note, with_stack, wrong
from loadtest.hotpath import hotpath as run_hotpath
from loadtest.plan import MAX_CALLS, Ask, Plan
from loadtest.result import BUSY, figures, machine, spreads, stored
from loadtest.stored import STDOUT, Result, write

_DEFAULT: Final = Plan()
_WHO, _HOW, _LOAD = "Who asks what", "How it is measured", "Load"

app = typer.Typer()


def _options() -> None:
    """Measures the service, with a stack of its own on this machine's loopback interface."""


def _option(name: str, text: str, panel: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", help=text, rich_help_panel=panel, **more)


@app.command(
    epilog="Examples: python -m loadtest hotpath --compare 5; "
    "python -m loadtest hotpath --ask sign --identity mtls --namespaces 100 --connections 100 "
    "--in-flight 1 --rate 5000; "
    "python -m loadtest hotpath --ask both --first-sight --json first.json"
)
def hotpath(  # noqa: PLR0917 - Typer makes options of them
    ask: Annotated[Ask, _option("ask", "What the clients ask.", _WHO)] = _DEFAULT.ask,
    identity: Annotated[
        IdentitySource,
        _option("identity", "How they say who they are; mtls alone is encrypted.", _WHO),
    ] = _DEFAULT.identity,
    namespaces: Annotated[
        int, _option("namespaces", "How many namespaces ask, up to 10,000.", _WHO)
    ] = _DEFAULT.namespaces,
    callers: Annotated[
        int,
        _option("callers", "Namespaces in turn on each connection; 0: as few as it takes.", _WHO),
    ] = _DEFAULT.callers,
    destinations: Annotated[
        int, _option("destinations", "Namespaces that each of them signs for, in turn.", _WHO)
    ] = _DEFAULT.destinations,
    first_sight: Annotated[
        bool,
        _option("first-sight", "Every call is new: another pair, an unseen token.", _WHO),
    ] = _DEFAULT.first_sight,
    traceparent: Annotated[
        bool, _option("traceparent", "Every call has another traceparent.", _WHO)
    ] = _DEFAULT.traceparent,
    connections: Annotated[
        int, _option("connections", "Connections, up to 5,000.", _LOAD)
    ] = _DEFAULT.connections,
    in_flight: Annotated[
        int, _option("in-flight", "Calls at once on each connection.", _LOAD)
    ] = _DEFAULT.in_flight,
    rate: Annotated[
        float,
        _option(
            "rate",
            "Open loop: begin so many calls per second, and count latencies from when they "
            "should have begun; 0: closed loop, each answer begins the next call.",
            _LOAD,
        ),
    ] = _DEFAULT.rate,
    seconds: Annotated[float, _option("seconds", "How long a run is.", _LOAD)] = _DEFAULT.seconds,
    warmup: Annotated[float, _option("warmup", "Seconds before it.", _LOAD)] = _DEFAULT.warmup,
    max_calls: Annotated[
        int, _option("max-calls", "Calls after which a run ends early.", _LOAD)
    ] = MAX_CALLS,
    processes: Annotated[
        int, _option("processes", "Client processes.", _LOAD)
    ] = _DEFAULT.processes,
    transport: Annotated[
        Transport, _option("transport", "The server's transport.", _HOW)
    ] = Transport.HTTP2,
    workers: Annotated[
        int, _option("workers", "The server's worker processes.", _HOW, min=1, max=64)
    ] = 1,
    compare: Annotated[
        int,
        _option(
            "compare",
            "Run both transports in turn, so many times; show medians and spread.",
            _HOW,
            min=0,
            max=100,
        ),
    ] = 0,
    repeat: Annotated[
        int, _option("repeat", "How often each run is done.", _HOW, min=1, max=100)
    ] = 1,
    kept: Annotated[
        bool,
        _option("kept", "Also run with settings that let sidecars keep answers, in turn.", _HOW),
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Ask one server as fast as it can, or at a fixed rate, and see what that costs it.

    Starts the server, with keys, policy and certificates of its own, asks it
    real questions with real tokens, and takes it down. Latencies and rates are
    the clients', CPU and memory the server's. One wrong answer fails the run.
    """
    given = locals()
    plan = Plan(**{field.name: given[field.name] for field in fields(Plan)})
    transports = [*Transport] if compare else [transport]
    repeat = compare or repeat
    runs = with_stack(
        lambda stack, _, tell: run_hotpath(
            stack, plan, transports, kept=kept, repeat=repeat, workers=workers, tell=tell
        ),
        steps=len(transports) * (1 + kept) * (1 + repeat),
    )
    if json_file is not None:
        write(_report(runs), json_file)
    if json_file != STDOUT:
        _show(runs)
    end(runs)


def _report(runs: list[Measured]) -> dict[str, Any]:
    title = _title(runs[0].plan)
    results = [
        asdict(Result.of(f"{title}, {transport}", [*map(figures, each)]))
        for transport, each in _by_transport(runs).items()
    ]
    return {
        "kind": "hotpath",
        "machine": machine(),
        "results": results,
        "runs": [*map(stored, runs)],
    }


def _by_transport(runs: Iterable[Measured]) -> dict[str, list[Measured]]:
    found: dict[str, list[Measured]] = {}
    for run in runs:
        found.setdefault(run.transport, []).append(run)
    return found


def _show(runs: list[Measured]) -> None:
    columns = {transport: spreads(each) for transport, each in _by_transport(runs).items()}
    rows = [
        {"figure": name, **{transport: column[name] for transport, column in columns.items()}}
        for name in next(iter(columns.values()))
    ]
    typer.echo(_title(runs[0].plan))
    show(rows, title="", as_json=False)


def _title(plan: Plan) -> str:
    """What differs from a plain run."""
    said = [
        f"{field.name.replace('_', ' ')} {getattr(plan, field.name)}"
        for field in fields(Plan)
        if getattr(plan, field.name) != getattr(_DEFAULT, field.name) or field.name == "ask"
    ]
    return ", ".join(said)


def end(runs: Iterable[Measured]) -> None:
    """Say what went wrong, and fail for it."""
    failed = False
    for run in runs:
        for problem, count in run.problems.items():
            failed = True
            wrong(f"{run.transport}: {count} x {problem}")
        if run.client_busy > BUSY and run.checks and not run.plan.rate:
            note(f"{run.transport}: the clients were the bottleneck, give more --processes")
    if failed:
        raise typer.Exit(1)
