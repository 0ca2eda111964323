"""`authz policy matrix` and `diff`: who may reach whom, and what a change of that opens."""

import enum
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from authz.cli.output import AsJson, print_json, show, write
from authz.cli.policy_files import POLICY_FILE, Cluster, Enforced, PolicyFile, load, now
from authz.reach.difference import Change, Difference, Turn
from authz.reach.groups import Among
from authz.reach.matrix import Matrix
from authz.reach.page import page
from authz.reach.pairs import Opening
from authz.reach.rows import Row, rows
from authz.reach.ways import Way
from authz.reach.words import MOST_NAMES, Words, as_columns, day, plain


def matrix(
    file: PolicyFile,
    *,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page to look at there.")
    ] = None,
    cluster: Cluster = False,
    enforced: Enforced = False,
    as_json: AsJson = False,
) -> None:
    """Say who may reach whom, and by which way.

    Ways: `peer`, straight from pod to pod, by mTLS; `token`, through the activator or the local
    gateway; `event`, through a broker, channel or sink; `tcp`, straight and not as HTTP;
    `plaintext`, with a token whose presenter is not proven; `exemption`, straight, as an exemption
    describes it; `outside`, by the public gateway.

    Namespaces that the policy treats alike stand together, as do all that it does not name. A
    namespace's way to itself is left out, and so are accounts that hold a role: they are trusted
    with all that passes through them. Of many names a table has the first, `--json` all.
    """
    policy = load(file, cluster=cluster, enforced=enforced)
    found = Matrix([policy], now())
    words = Words(found, MOST_NAMES)
    reach = list(rows(found, lambda answers: answers.open[0]))
    if html is not None:
        write(html, page(found, reach, words, str(file)), "--html")
    if as_json:
        print_json({"groups": words.described(), "reach": [_as_json(it, words) for it in reach]})
        return
    inside = [it for it in reach if not _is_outside(it) and it.among != Among.ITSELF]
    outside = [it for it in reach if _is_outside(it) and it.among != Among.BLOCK]
    show(_rows(inside, words), title="Who may reach whom; all else is denied", as_json=False)
    if outside:
        title = "Whom the outside world may reach, by routes of its tenant's own or of others"
        show(_rows(outside, words), title=title, as_json=False)


class FailOn(enum.StrEnum):
    """Which changes are an exit code of 1."""

    ANY = "any"
    OPENS = "opens"
    CLOSES = "closes"


def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help=POLICY_FILE)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The same of another policy.")],
    *,
    fail_on: Annotated[
        FailOn,
        typer.Option("--fail-on", help="Changes that give exit code 1: any, opens or closes."),
    ] = FailOn.ANY,
    cluster: Cluster = False,
    enforced: Enforced = False,
    as_json: AsJson = False,
) -> None:
    """Say which pairs of namespaces NEW opens and which it closes, as against OLD.

    A grant that ends later opens, one that ends earlier closes. Fields about trust, or where names
    lead, belong to no pair: each that differs is named, and counts as both. A request that gets in
    as before, for another reason, is no change. Of many names a terminal shows the first, a pipe
    gets all.

    Exit code 1: something changes; with `--fail-on opens`, something opens.
    """
    policies = [load(it, cluster=cluster, enforced=enforced) for it in (old, new)]
    found = Difference(policies[0], policies[1], now())
    words = _words(found.matrix)
    if as_json:
        changes = [{"change": row.line.value.turn, **_as_json(row, words)} for row in found.rows]
        told_all = {"groups": words.described(), "changes": changes, "besides": found.besides}
        print_json(told_all)
    elif found.rows or found.besides:
        for turn in Turn:
            turned = [it for it in found.rows if it.line.value.turn is turn]
            if turned:
                show(_rows(turned, words), title=f"{new} {turn}", as_json=False)
        for name in found.besides:
            typer.echo(f"{name} differs: it says who is trusted, or where names lead")
    else:
        typer.echo("no pair opens or closes")
    turns = found.turns()
    if turns if fail_on is FailOn.ANY else Turn(fail_on.value) in turns:
        raise typer.Exit(1)


def _words(found: Matrix) -> Words:
    """A pipe gets every name, a terminal as many as one looks at."""
    return Words(found, MOST_NAMES if sys.stdout.isatty() else None)


def _is_outside(row: Row[Any]) -> bool:
    return Way.OUTSIDE in row.line.ways


def _rows(some: Iterable[Row[Any]], words: Words) -> list[dict[str, object]]:
    return [
        {"from": source, "to": to, **as_columns(row.line), **_why(row.line.value)}
        for row in some
        for source, to in words.ends(row)
    ]


def _why(value: Opening | Change) -> dict[str, object]:
    if isinstance(value, Change):
        return {"until": _until(value), "because": value.because}
    return {"until": day(value.until), "because": value.because}


def _until(change: Change) -> str | None:
    """Until when, now and before, where that is what changes."""
    before, after = (
        None if it is None else day(it) or "for ever" for it in (change.before, change.after)
    )
    if before is not None and after is not None:
        return f"{after}, not {before}"
    return next((it for it in (before, after) if it not in (None, "for ever")), None)


def _as_json(row: Row[Any], words: Words) -> dict[str, Any]:
    value = row.line.value
    return {
        "among": "within each tenant" if row.within else row.among.value,
        "from": words.numbers(row.sources),
        "but_from": words.numbers(row.but),
        "to": words.numbers(row.to),
        **plain(row.line),
        "until": day(value.until) if isinstance(value, Opening) else _until(value),
        "because": value.because,
    }
