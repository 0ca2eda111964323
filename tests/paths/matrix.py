"""The tables of paths of envoyfilters/PATHS.md, made of what the tests play."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from authz.lab.box.paths import probes, table
from authz.lab.box.paths.deliveries import DELIVERIES


def markdown() -> str:
    """The tables, as the page must have them."""
    relations = table.RELATIONS
    calls = [[it.way, _asked(it.asked), *_cells(it.outcomes, relations)] for it in table.PATHS]
    inside = relations[:-1]
    sent = [[it.way, _asked(it.asked), *_cells(it.outcomes, inside)] for it in DELIVERIES]
    asked = [[it.what, it.port, it.expected.partition("; ")[2], it.passes] for it in probes.PROBES]
    return "\n".join(
        [
            *_table(["call", "asked", *relations], calls),
            "",
            *_table(["event", "asked", *inside], sent),
            "",
            *_table(["probe or scrape", "port", "asked", "why it passes"], asked),
            "",
        ]
    )


def _asked(questions: Iterable[str]) -> str:
    return ", ".join(question.partition(" ")[0] for question in questions)


def _cells(
    outcomes: Mapping[table.Relation, str], relations: Sequence[table.Relation]
) -> list[str]:
    return [_cell(outcomes[relation]) if relation in outcomes else "" for relation in relations]


def _cell(outcome: str) -> str:
    if outcome in {table.IN, table.NO_ROUTE, table.NO_IDENTITY}:
        return outcome
    return f"**{outcome.partition(' ')[0]}**"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [
        f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines
    ]
