"""One row of the list of attacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from authz.testing import Case
from tests.attacks.box import Action, Without

BOX: Final = "tests/attacks/test_box.py"
ROW: Final = "tests/test_rows.py::test_without_its_row_a_request_gets_something_else"
MUTATION: Final = "tests/test_mutation.py::test_a_test_notices_when_this_rule_is_taken_away"


@dataclass(frozen=True)
class Played:
    """What is done in the box, and what comes of it."""

    action: Action
    expected: str


@dataclass(frozen=True)
class Attack:
    """One row."""

    name: str
    does: str
    stopped_by: str
    attack: Played | str
    """In the box; or the test that plays it elsewhere."""
    twin: Played | str = ""
    without: Without | None = None
    gets: str = ""
    """Without the rule: what the attacker gets."""
    noticed: str = ""
    """Else the test that notices when the rule is missing."""
    source: str = ""
    """Where it is known from: a CVE, say."""

    @property
    def cases(self) -> dict[str, Case[Action]]:
        """What is played in the box: the attack, its twin, the attack without what stops it."""
        ways = {"attack": self.attack, "twin": self.twin}
        found = {
            which: Case(self.name, self.does, it.expected, it.action)
            for which, it in ways.items()
            if isinstance(it, Played)
        }
        if self.without is not None:
            found["removal"] = replace(found["attack"], expected=self.gets)
        return found

    def tests(self) -> Iterator[tuple[str, str]]:
        """Its tests: which of the three, and where."""
        if isinstance(self.attack, str):
            yield "attack", self.attack
        else:
            yield "attack", f"{BOX}::test_an_attack_gets_nothing[{self.name}]"
        if isinstance(self.twin, Played):
            yield "twin", f"{BOX}::test_its_legitimate_twin_passes[{self.name}]"
        elif self.twin:
            yield "twin", self.twin
        if self.without is not None:
            yield "removal", f"{BOX}::test_without_its_rule_it_gets_through[{self.name}]"
        elif self.noticed:
            yield "removal", self.noticed
