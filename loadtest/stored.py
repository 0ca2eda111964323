"""Results in files: what a command measured, so that it can be read and compared later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import typer

from loadtest.plan import BadPlan

STDOUT: Final = Path("-")


@dataclass(frozen=True, slots=True)
class Result:
    """One thing that was measured: every figure with a value for each repeat."""

    name: str
    figures: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, name: str, runs: Sequence[Mapping[str, float]]) -> Self:
        """From the figures of each run."""
        return cls(name, {figure: [run[figure] for run in runs] for figure in runs[0]})


def write(report: Mapping[str, Any], file: Path) -> None:
    """Write a report, to standard output for `-`.

    Raises:
        BadPlan: the file cannot be written.
    """
    text = json.dumps(report, indent=1)
    if file == STDOUT:
        typer.echo(text)
    else:
        save(text + "\n", file)


def save(text: str, file: Path) -> None:
    """Write a file.

    Raises:
        BadPlan: it cannot be.
    """
    try:
        file.write_text(text)
    except OSError as error:
        raise BadPlan(f"{file}: cannot be written: {error.strerror}") from None


def put(text: str, file: Path, name: str) -> None:
    """Write Markdown, into its place where the file has one for it: between two comments.

    Raises:
        BadPlan: the file cannot be read or written.
    """
    if file == STDOUT:
        typer.echo(text)
        return
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->\n"
    try:
        whole = file.read_text() if file.exists() else ""
    except (OSError, ValueError) as error:
        raise BadPlan(f"{file}: cannot be read: {error}") from None
    before, opened, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    save(f"{before}{begin}{text}\n{end}{after}" if opened and closed else f"{text}\n", file)


def read(file: Path) -> dict[str, Any]:
    """A report.

    Raises:
        BadPlan: it is none.
    """
    try:
        report = json.loads(file.read_text())
        results(report)
    except OSError as error:
        raise BadPlan(f"{file}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadPlan(f"{file}: is not a result that --json has written") from None
    made: dict[str, Any] = report
    return made


def results(report: Mapping[str, Any]) -> dict[str, Result]:
    """What a report holds, by name."""
    made = [Result(each["name"], dict(each["figures"])) for each in report["results"]]
    return {each.name: each for each in made}
