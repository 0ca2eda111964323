"""Tables for people, JSON for machines, times that both can read."""

import datetime as dt
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from authz.cli import streams
from authz.errors import AuthzError, BadSettings, InvalidIdentity, InvalidName, KeyringError

_PIPED_COLUMNS: Final = 10_000
"""Nothing is cut off where no terminal says how wide it is."""

ENOUGH: Final = 128 + signal.SIGPIPE
"""The exit code where whoever reads the output has gone, as a shell has it for other programs."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@contextmanager
def exits() -> Iterator[None]:
    """Make of every error on purpose a text and an exit code."""
    try:
        try:
            yield
        finally:
            streams.let_go()
    except streams.Unwritable as error:
        if error.reader_left:
            sys.exit(ENOUGH)
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        sys.exit(3)
    except AuthzError as error:
        typer.secho(str(error), fg=typer.colors.RED, err=True)
        match error:
            case BadSettings() | InvalidName() | InvalidIdentity():
                sys.exit(2)
            case KeyringError():
                sys.exit(1)
            case _:
                sys.exit(3)


def show(rows: Sequence[Mapping[str, object]], *, title: str, as_json: bool) -> None:
    """Print rows that have the same keys."""
    if as_json:
        print_json(list(rows))
        return
    # Text, since in a plain string brackets would be markup.
    table = Table(title=Text(title), title_justify="left")
    for name in rows[0] if rows else ():
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS).print(table)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Tell on standard error how far something has come: always on a terminal, else by hundreds."""
    terminal = sys.stderr.isatty()

    def tell(done: int, of: int) -> None:
        if terminal:
            typer.echo(f"\r{done} of {of} {what}", err=True, nl=False)
        elif done % 100 == 0:
            typer.echo(f"{done} of {of} {what}", err=True)

    try:
        yield tell
    finally:
        if terminal:
            typer.echo(err=True)


def write(file: Path, text: str, option: str) -> None:
    """Write what an option wants in a file.

    Raises:
        BadSettings: it cannot be written there.
    """
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise BadSettings([f"{option}: {file}: {error.strerror}"]) from None


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=2))


def moment(seconds: float | None) -> str | None:
    """A time in UTC, to the second."""
    if seconds is None:
        return None
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="seconds")
