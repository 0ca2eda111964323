"""Markdown, as far as generated pages need it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; `|` in a cell is escaped."""
    lines = [list(head), ["---"] * len(head), *([str(it) for it in row] for row in rows)]
    return "".join(
        f"| {' | '.join(it.replace('|', chr(92) + '|') for it in row)} |\n" for row in lines
    )


def text(docstring: str | None) -> str:
    """A docstring or help text as paragraphs, each on one line."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def meanings(owner: Any) -> dict[str, str]:
    """What the strings below a class's or module's names say of them, in one line each.

    Python keeps no such string, so this reads the source.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    if isinstance(owner, type):
        (of,) = body
        assert isinstance(of, ast.ClassDef)
        body = of.body
    return dict(_followed_by_strings(body))


def _followed_by_strings(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for one, after in pairwise(body):
        targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
        match targets, after:
            case [ast.Name(id=name)], ast.Expr(value=ast.Constant(value=str(said))):
                yield name, " ".join(said.split())
            case _:
                pass
