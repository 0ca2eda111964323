"""Every attack that is known: what the attacker does, what stops it, and the tests that show it.

    python -m tests.attacks.table           # writes ATTACKS.md
    python -m tests.attacks.table --check   # only says whether it is fresh

Where an attack is played in the box there are up to three tests of its name: the attack, which
gets nothing; its legitimate twin, which passes; and the attack without the rule that stops it,
which then gets through. Other rows name tests elsewhere in this repository.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from tests.attacks.row import BOX, Attack, Played
from tests.attacks.rows import (
    deputies,
    elsewhere,
    eventing,
    exposure,
    hops,
    pods,
    ports,
    probes,
    questions,
    tokens,
)

FILE: Final = Path(__file__).parent / "ATTACKS.md"
SECTIONS: Final = {
    "Ways to somebody else's pod": pods.ROWS,
    "Tokens": tokens.ROWS,
    "Hops and probes": hops.ROWS,
    "Probes": probes.ROWS,
    "Grants for a port": ports.ROWS,
    "Routes from outside": exposure.ROWS,
    "Eventing": eventing.ROWS,
    "Our own port": questions.ROWS,
    "Our own port, by somebody else's proxy": deputies.ROWS,
    "The server itself": elsewhere.SERVER,
    "Known from others": elsewhere.CVES,
}
ATTACKS: Final[list[Attack]] = [row for rows in SECTIONS.values() for row in rows]


def markdown() -> str:
    """The whole list."""
    parts = [_HEAD.format(len(ATTACKS), sum(isinstance(it.attack, Played) for it in ATTACKS))]
    for title, rows in SECTIONS.items():
        parts.append(f"\n## {title}\n\n")
        parts.append("| name | the attacker | what stops it | tests |\n|---|---|---|---|\n")
        parts += map(_line, rows)
    return "".join(parts)


_HEAD: Final = """\
# Attacks

Made by `python -m tests.attacks.table`. {} attacks, {} of them played in a mesh of real Envoys.

The attacker is a tenant, `mallory`: root in its own pods, their certificates, and all that
Kubernetes' `edit` role lets it create; or a thief of tokens. `acme-web` and `acme-db` are a tenant,
`initech` is granted into `acme-db`, which is not public.

`attack` gets nothing. `twin` is the legitimate request beside it, which passes. `removal`: without
the rule that stops it, the attack gets through, or a test notices that the rule is gone. Tests of a
row in the box are in `test_box.py`, under its name.
"""


def _line(row: Attack) -> str:
    does = row.does + (f" ({row.source})" if row.source else "")
    tests = []
    for which, where in row.tests():
        if where.startswith(f"{BOX}::"):
            removed = f": {row.without.what}" if which == "removal" and row.without else ""
            tests.append(f"{which}{removed}")
        else:
            tests.append(f"{which}: `{where.removeprefix('tests/')}`")
    cells = (f"`{row.name}`", does, row.stopped_by, "; ".join(tests))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def main() -> None:
    """Write the list, or compare."""
    if "--check" not in sys.argv:
        FILE.write_text(markdown())
    elif FILE.read_text() != markdown():
        sys.exit(f"{FILE} is stale: python -m tests.attacks.table")


if __name__ == "__main__":
    main()
