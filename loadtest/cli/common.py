"""What the commands share: a stack, a bar of progress, options."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from loadtest.stack import Stack

T = TypeVar("T")
Tell: TypeAlias = Callable[[str], None]

JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="FILE", help="Write all results as JSON; - for standard output."
    ),
]


def with_stack(act: Callable[[Stack, Path, Tell], Coroutine[Any, Any, T]], *, steps: int) -> T:
    """Do something with a stack, which is taken down afterwards, also on SIGINT and SIGTERM."""

    async def acting(tell: Tell) -> T:
        task = asyncio.current_task()
        if task is not None:  # SIGTERM takes everything down as Ctrl-C does
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with tempfile.TemporaryDirectory(prefix="authz-loadtest-") as directory:
            stack = Stack(Path(directory))
            await stack.keys.make_keys()
            return await act(stack, Path(directory), tell)

    with progress(steps) as tell:
        return asyncio.run(acting(tell))


@contextmanager
def progress(steps: int) -> Iterator[Tell]:
    """Show how far it is: a bar on a terminal, else a line for each step."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield note
        return
    shown = (
        BarColumn(24),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*shown, console=console, transient=True) as bar:
        task = bar.add_task("", total=steps)

        def tell(text: str) -> None:
            bar.update(task, advance=1, description=text)

        yield tell


def note(text: str) -> None:
    """Say something beside the results."""
    typer.echo(f"loadtest: {text}", err=True)


def wrong(text: str) -> None:
    """Say what went wrong."""
    typer.secho(text, fg=typer.colors.RED, err=True)
