"""The list of attacks is whole: every test that it names exists, every rule has its proof."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.attacks.row import Played
from tests.attacks.table import ATTACKS, FILE, markdown
from tests.mutations import ROOT


@pytest.fixture(scope="module")
def collected() -> set[str]:
    """Ids of all tests in the files that the list names, with and without parameters.

    What feeds the box's Envoys stands before an attack's name, and is `recorded` without options.
    """
    files = sorted({where.partition("::")[0] for attack in ATTACKS for _, where in attack.tests()})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ids = {line.split("@")[0] for line in done.stdout.splitlines() if "::" in line}
    ids |= {it.replace("[recorded-", "[") for it in ids}
    return ids | {re.sub(r"\[.*", "", it) for it in ids}


def test_every_test_that_is_named_was_collected(collected: set[str]) -> None:
    named = {where for attack in ATTACKS for _, where in attack.tests()}
    assert named - collected == set()


def test_every_attack_has_a_name_of_its_own() -> None:
    assert [name for name, times in Counter(it.name for it in ATTACKS).items() if times > 1] == []


def test_what_is_played_has_a_twin_and_a_removal() -> None:
    for attack in ATTACKS:
        if isinstance(attack.attack, Played):
            assert attack.twin, attack.name
            assert attack.gets if attack.without else attack.noticed, attack.name


def test_the_list_is_fresh() -> None:
    assert FILE.read_text() == markdown(), "python -m tests.attacks.table"
