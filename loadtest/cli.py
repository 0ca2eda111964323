"""The words that people type. Exit codes: 0 ok, 1 a wrong answer, 2 usage, 3 could not start."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from authz.cli.output import AsJson, print_json, show
from authz.config import IdentitySource, Transport
from authz.errors import AuthzError
from loadtest import targets as held
from loadtest.hotpath import hotpath as run_hotpath
from loadtest.plan import MAX_CALLS, Ask, BadPlan, Plan
from loadtest.result import machine, spreads, stored
from loadtest.run import Measured
from loadtest.stack import Stack

T = TypeVar("T")

_DEFAULT: Final = Plan()
_WHO, _HOW, _LOAD = "Who asks what", "How it is measured", "Load"
_BUSY: Final = 0.9

app = typer.Typer(
    name="loadtest",
    help="Measures the service, with a stack of its own on this machine's loopback interface.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; every error on purpose becomes a text and an exit code."""
    try:
        app(prog_name="python -m loadtest")
    except AuthzError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        sys.exit(2 if isinstance(error, BadPlan) else 3)
    except (KeyboardInterrupt, asyncio.CancelledError):
        typer.echo("interrupted before the end", err=True)
        sys.exit(3)


@app.callback()
def _options() -> None:
    """Measures the service, with a stack of its own on this machine's loopback interface."""


def _option(name: str, text: str, panel: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", help=text, rich_help_panel=panel, **more)


@app.command(
    epilog="Examples: python -m loadtest hotpath --compare 5; "
    "python -m loadtest hotpath --ask sign --identity mtls --namespaces 100 --connections 100 "
    "--in-flight 1 --rate 5000; "
    "python -m loadtest hotpath --ask both --first-sight --json"
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
    as_json: AsJson = False,
) -> None:
    """Ask one server as fast as it can, or at a fixed rate, and see what that costs it.

    Starts the server, with keys, policy and certificates of its own, asks it
    real questions with real tokens, and takes it down. Latencies and rates are
    the clients', CPU and memory the server's. One wrong answer fails the run.
    """
    given = locals()
    plan = Plan(**{field.name: given[field.name] for field in fields(Plan)})
    transports = [*Transport] if compare else [transport]
    runs = _with_stack(
        lambda stack: run_hotpath(
            stack, plan, transports, repeat=compare or 1, workers=workers, tell=_tell
        )
    )
    if as_json:
        print_json({"machine": machine(), "summary": _summary(runs), "runs": [*map(stored, runs)]})
    else:
        _show(runs)
    _end(runs)


@app.command(
    epilog="Examples: python -m loadtest targets; "
    "python -m loadtest targets --repeat 9 --seconds 3 --json > targets.json"
)
def targets(
    repeat: Annotated[
        int, typer.Option("--repeat", help="How often each run is done.", min=1, max=100)
    ] = 5,
    seconds: Annotated[
        float, typer.Option("--seconds", help="How long each run is.", min=0.1, max=60)
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Measure everything that the project holds itself to; print it as a Markdown table.

    Takes some ten minutes, and a machine that does nothing else. What counts is
    the median; the spread stands beside it. Draining behind an Envoy is a test,
    and not measured here.
    """
    runs = _with_stack(
        lambda stack: held.measure(stack, repeat=repeat, seconds=seconds, tell=_tell)
    )
    rows = held.rows(runs)
    every = [run for each in runs.values() for run in each]
    if as_json:
        results = {
            f"{name}, {transport}": [stored(run) for run in each]
            for (name, transport), each in runs.items()
        }
        rows_ = [asdict(row) for row in rows]
        print_json({"machine": machine(), "targets": rows_, "runs": results})
    else:
        typer.echo(held.markdown(rows))
    _end(every)


def _with_stack(act: Callable[[Stack], Coroutine[Any, Any, T]]) -> T:
    async def acting() -> T:
        task = asyncio.current_task()
        if task is not None:  # SIGTERM takes everything down as Ctrl-C does
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with tempfile.TemporaryDirectory(prefix="authz-loadtest-") as directory:
            stack = Stack(Path(directory))
            await stack.make_keys()
            return await act(stack)

    return asyncio.run(acting())


def _summary(runs: Iterable[Measured]) -> dict[str, Any]:
    by_transport: dict[str, list[Measured]] = {}
    for run in runs:
        by_transport.setdefault(run.transport, []).append(run)
    return {
        transport: {name: asdict(spread) for name, spread in spreads(each).items()}
        for transport, each in by_transport.items()
    }


def _show(runs: list[Measured]) -> None:
    by_transport: dict[str, list[Measured]] = {}
    for run in runs:
        by_transport.setdefault(run.transport, []).append(run)
    columns = {transport: spreads(each) for transport, each in by_transport.items()}
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


def _end(runs: Iterable[Measured]) -> None:
    """Say what went wrong, and fail for it."""
    wrong = False
    for run in runs:
        for problem, count in run.problems.items():
            wrong = True
            typer.secho(f"{run.transport}: {count} x {problem}", fg=typer.colors.RED, err=True)
        if run.client_busy > _BUSY and run.checks and not run.plan.rate:
            _tell(f"{run.transport}: the clients were the bottleneck, give more --processes")
    if wrong:
        raise typer.Exit(1)


def _tell(text: str) -> None:
    typer.echo(f"loadtest: {text}", err=True)
