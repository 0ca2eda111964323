"""What the pages say of a request is what the program decides, in whatever world."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from authz.domain import case, decision, destination, entry, exposure, names, policy, reuse
from authz.domain.decision import TABLES
from authz.domain.facts import Facts, Hop, Question
from authz.domain.keys import Keyring
from authz.testing import root_key
from tests.oracle.compare import Asked, asked, decided, difference
from tests.oracle.token_format import fault, read
from tests.oracle.worlds import COUNT, FIXED, TODAY

FOLDER: Final = Path(__file__).parent
VECTORS: Final = json.loads((FOLDER.parent / "vectors" / "tokens.json").read_text())["vectors"]
OFTEN: Final = 10
"""Of these, each row answers more: 25 at least when this was written."""
MANY: Final = dict.fromkeys(range(TODAY * 100, TODAY * 100 + 50), 20000)
"""With --oracle: a million in pieces, others every day."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        seeds = dict.fromkeys((*FIXED, TODAY), COUNT)
        if metafunc.config.getoption("--oracle"):
            seeds |= MANY
        metafunc.parametrize(("seed", "count"), seeds.items(), ids=map(str, seeds))


@pytest.fixture(scope="module")
def questions() -> list[Asked]:
    """Those of every run."""
    return [one for seed in (*FIXED, TODAY) for one in asked(seed, COUNT)]


def test_the_program_decides_as_the_pages_say(seed: int, count: int) -> None:
    for one in asked(seed, count):
        found = difference(one)
        assert not found, f"seed {seed}\n{found}"


def test_each_row_answers_often(questions: list[Asked]) -> None:
    rows = {(question, row.name) for question, table in TABLES.items() for row in table}
    answers = Counter((it.request.question, it.read.row) for it in questions)
    assert answers.keys() == rows
    assert min(answers.values()) >= OFTEN, answers.most_common()[-3:]


@pytest.mark.parametrize("question", list(Question))
def test_a_row_that_is_missing_is_noticed(questions: list[Asked], question: Question) -> None:
    for gone in TABLES[question]:
        table = {question: tuple(row for row in TABLES[question] if row is not gone)}
        mine = [
            it for it in questions if (it.request.question, it.read.row) == (question, gone.name)
        ]
        assert any(decided(it.request, it.rules, it.world.now, table) != it.read for it in mine)


@pytest.mark.parametrize("question", list(Question))
def test_a_denial_that_another_mode_rules_is_noticed(
    questions: list[Asked], question: Question
) -> None:
    for row in TABLES[question]:
        other = replace(row, always=not row.always)
        table = {question: tuple(other if it is row else it for it in TABLES[question])}
        mine = [
            it
            for it in questions
            if (it.request.question, it.read.row) == (question, row.name)
            and (not it.read.allowed or it.read.why == "not-enforced")
        ]
        if mine and row.name != "nowhere":  # without D there is no mode
            assert any(decided(it.request, it.rules, it.world.now, table) != it.read for it in mine)


def _without_end(grant: policy.Grant, account: str, port: int | None, now: float) -> bool:
    return COVERS(grant, account, port, 0 * now)


def _anybodys_port(its: case.Case) -> int | None:
    return None if its.question is Question.TRANSIT else its.facts.port


def _no_port_at_the_activator(its: case.Case) -> int | None:
    return None if its.hop is Hop.ACTIVATOR else PORT(its)


def _any_role(its: case.Case, source: str) -> bool:
    return bool(its.peer_roles) or MAY_PRESENT(its, source)


def _with_queue_proxy(
    its: case.Case, question: Question, facts: Facts, rules: case.Rules, now: float
) -> None:
    CASE(its, question, facts._replace(queue_proxy=True), rules, now)


def _of_any_method(exemption: policy.Exemption, **sent: Any) -> bool:
    return EXEMPTS(exemption, **sent | {"method": "GET"})


def _first_segment(path: str) -> object:
    return destination._by_path("/", path)


COVERS: Final[Callable[..., bool]] = policy.Grant.covers
EXEMPTS: Final[Callable[..., bool]] = policy.Exemption.covers
CASE: Final[Callable[..., None]] = case.Case.__init__
PORT: Final[Callable[..., int | None]] = case.Case.__dict__["port"].fget
HALF: Final = {role: [policy.Exemption(8012, network_probe="probe")] for role in policy.Role}
MAY_PRESENT: Final[Callable[..., bool]] = entry._may_present
BROKEN: Final[dict[str, tuple[Any, str, Any]]] = {
    "a grant has no end": (policy.Grant, "covers", _without_end),
    "a grant with a port counts for events": (case.Case, "port", property(_anybodys_port)),
    "a grant with a port wakes any pod": (
        case.Case,
        "port",
        property(_no_port_at_the_activator),
    ),
    "half a probe is one": (entry, "ROLE_EXEMPTIONS", HALF),
    "a probe may be a POST": (policy.Exemption, "covers", _of_any_method),
    "every pod has queue-proxy": (case.Case, "__init__", _with_queue_proxy),
    "every role may present a token of @public": (entry, "_may_present", _any_role),
    "the job sink goes by the first segment": (destination, "_by_job_sink", _first_segment),
    "a name in full may be short": (
        destination,
        "namespace_of_full_name",
        names.namespace_of_host,
    ),
    "anybody's route leads anywhere": (exposure, "_may_open", lambda *_: True),
    "a holder of a role keeps answers": (reuse, "_most", lambda its: max(its.rules.reuse)),
    "nobody says reuse: false": (reuse, "_may_be_kept", lambda *_: True),
    "an answer is kept beyond its end": (decision, "seconds", lambda its, _: its.rules.reuse.entry),
    "the newest root signs": (Keyring, "primary", lambda its, _now: its.roots[-1]),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_rule_that_is_broken_is_noticed(
    questions: list[Asked], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*BROKEN[broken])
    assert any(decided(it.request, it.rules, it.world.now) != it.read for it in questions)


def test_a_difference_is_told_with_a_small_world(
    questions: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*BROKEN["a grant has no end"])
    told = next(filter(None, map(difference, questions)))
    assert len(told.split("--- keys")[0].splitlines()) <= 12
    assert "until: " in told
    assert "--- the pages: Answer(row='" in told
    assert "granted'" in told.rpartition("--- decide:")[2]


@pytest.mark.parametrize(
    "file", ["kept.py", "oracle.py", "policy_file.py", "token_format.py", "where_to.py"]
)
def test_the_oracle_imports_nothing_of_ours(file: str) -> None:
    imports = [
        line
        for line in (FOLDER / file).read_text().splitlines()
        if line.startswith(("import ", "from "))
    ]
    assert not [line for line in imports if "authz" in line]


@pytest.mark.parametrize("vector", VECTORS, ids=[it["name"] for it in VECTORS])
def test_the_oracle_reads_tokens_as_the_vectors_say(vector: dict[str, Any]) -> None:
    text, now = vector["token"], vector["now"]
    token = read(text)
    found = fault(text, token, Keyring((root_key(),)), now, 30) if token else "token-malformed"
    assert (found or "valid") == vector["expected"]
