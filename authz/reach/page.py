"""A matrix as one HTML page that needs nothing else: no script, no network, light or dark."""

import datetime as dt
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from authz.reach.groups import Among, Group
from authz.reach.lines import Line, lines
from authz.reach.matrix import Matrix
from authz.reach.pairs import Answers, Opening
from authz.reach.rows import Row
from authz.reach.ways import Way
from authz.reach.words import OUTSIDE, Words, as_columns, day

_STYLE: Final = Path(__file__).with_name("page.css")
_MOST_GROUPS: Final = 300
"""Rows of a grid that somebody can look at; for more there is the list alone."""

_KINDS: Final = {
    "same tenant": "tenant",
    "grant": "grant",
    "grant to everyone": "everyone",
    "mode shadow": "mode",
    "mode off": "mode",
    "exemption": "exemption",
    "public": "public",
}
_STRENGTH: Final = ("mode", "everyone", "tenant", "grant", "public", "exemption")
"""What colours a cell where several things open it."""


def page(matrix: Matrix, rows: Sequence[Row[Opening]], words: Words, name: str) -> str:
    """The page of the policy that is called `name`."""
    counted = sum(len(group.members) for group in matrix.groups if not group.unnamed)
    when = dt.datetime.fromtimestamp(matrix.pairs.now, dt.UTC).isoformat(" ", "minutes")
    keys = "".join(f'<li class="{kind}">{escape(why)}</li>' for why, kind in _KINDS.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Who may reach whom: {escape(name)}</title>
<style>{_STYLE.read_text("utf-8")}</style>
</head>
<body><main>
<h1>Who may reach whom</h1>
<p class="soft">{escape(name)}, {when}: {counted:,} namespaces in {len(matrix.groups):,} groups of
which the policy says the same. What is not here is denied. Point at a cell for its ways.</p>
<ul class="legend">{keys}</ul>
{_grid(matrix, words)}
<h2>All that is open</h2>
<div class="wide"><table><thead><tr>{_heads()}</tr></thead>
<tbody>{"".join(_rows(rows, words))}</tbody></table></div>
<h2>The groups</h2>
<div class="wide"><table><thead><tr><th>namespaces<th>mode<th>public<th>plaintext peers</tr></thead>
<tbody>{"".join(_groups(words))}</tbody></table></div>
</main></body>
</html>
"""


def _grid(matrix: Matrix, words: Words) -> str:
    if len(matrix.groups) > _MOST_GROUPS:
        many = f"{len(matrix.groups):,}"
        return f'<p class="soft">A grid of {many} groups is too large to look at: see the list.</p>'
    heads = "".join(f"<th scope=col>{escape(words.groups([it]))}</th>" for it in matrix.groups)
    outside = "".join(map(_cell, (_from_outside(matrix, it) for it in matrix.groups)))
    lines_ = "".join(
        f"<tr><th scope=row>{escape(words.groups([it]))}</th>{''.join(_cells(matrix, it))}</tr>"
        for it in matrix.groups
    )
    return (
        f'<div class="wide"><table class="grid"><thead><tr><th>from, down; to, across</th>{heads}'
        f"</tr></thead><tbody><tr><th scope=row>{OUTSIDE}</th>{outside}</tr>{lines_}</tbody>"
        "</table></div>"
    )


def _cells(matrix: Matrix, source: Group) -> Iterator[str]:
    for to in matrix.groups:
        if source is to and sum(map(len, to.blocks.values())) == 1:
            yield '<td class="self" title="itself"></td>'
            continue
        found: list[str] = []
        kinds: set[str] = set()
        for among, _ in source.pairs_with(to):
            cell = matrix.cell(source, to, among)
            if among is Among.ITSELF:
                continue
            for line in _inside(cell.answers):
                kinds.add(_KINDS[line.value.because])
                found.append(f"{among.value}: {_words(line)}" if source is to else _words(line))
        yield _cell((found, kinds))


def _from_outside(matrix: Matrix, to: Group) -> tuple[list[str], set[str]]:
    itself = next(iter(to.pairs_with(to)))
    answers = matrix.cell(to, to, itself[0]).answers
    found = [line for line in lines(answers.asked, answers.open[0]) if Way.OUTSIDE in line.ways]
    return [_words(it) for it in found], {_KINDS[it.value.because] for it in found}


def _cell(found: tuple[list[str], set[str]]) -> str:
    texts, kinds = found
    if not texts:
        return "<td>"
    kind = next(it for it in _STRENGTH if it in kinds)
    return f'<td class="{kind}" title="{escape(chr(10).join(texts))}">{len(texts)}</td>'


def _inside(answers: Answers) -> Iterator[Line[Opening]]:
    yield from (it for it in lines(answers.asked, answers.open[0]) if Way.OUTSIDE not in it.ways)


def _words(line: Line[Opening]) -> str:
    parts = [f"{name} {said}" for name, said in as_columns(line).items() if said]
    until = day(line.value.until)
    return ", ".join([line.value.because, *parts, *([f"until {until}"] if until else [])])


def _heads() -> str:
    names = ("from", "to", "by", "account", "port", "until", "because")
    return "".join(f"<th>{name}</th>" for name in names)


def _rows(rows: Sequence[Row[Opening]], words: Words) -> Iterator[str]:
    for row in rows:
        outside = Way.OUTSIDE in row.line.ways
        if row.among is (Among.BLOCK if outside else Among.ITSELF):
            continue  # what is so of every namespace or tenant
        opening = row.line.value
        texts = (*next(words.ends(row)), *as_columns(row.line).values(), day(opening.until) or "")
        cells = "".join(f"<td>{escape(text)}</td>" for text in texts)
        kind = _KINDS[opening.because]
        yield f'<tr>{cells}<td class="{kind}">{escape(opening.because)}</td></tr>'


def _groups(words: Words) -> Iterator[str]:
    for group in words.described():
        names = group["namespaces"]
        shown = "every namespace not named" if names is None else ", ".join(names)
        public = group["public"]
        said = ", ".join(public) if isinstance(public, list) else str(public).lower()
        texts = (shown, group["mode"], said, str(group["plaintext_peers"]).lower())
        yield f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in texts)}</tr>"
