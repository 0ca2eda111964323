"""What a proxy gives again is what it would be told, had it asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Final, NamedTuple

import pytest

from authz.domain.decision import Rules, decide
from authz.domain.facts import Facts, Question
from authz.domain.reuse import REUSABLE
from authz.domain.verdict import Allow, Ground, SetToken, Verdict
from tests.oracle.compare import FROM_ONE_WORLD, asked
from tests.oracle.keys import FIELDS, alike, key_of
from tests.oracle.requests import request
from tests.oracle.worlds import COUNT, FIXED, TODAY

OTHERS: Final = 6
"""Requests with the same key, for each answer that may be kept."""


class Kept(NamedTuple):
    """A request with an answer that may be kept."""

    question: Question
    facts: Facts
    rules: Rules
    now: float
    answer: Allow
    others: tuple[Facts, ...]
    """Of the same question in the same world."""


@pytest.fixture(scope="module")
def kept() -> list[Kept]:
    return [it for seed in (*FIXED, TODAY) for it in _kept(seed)]


def _kept(seed: int) -> Iterator[Kept]:
    random = Random(seed)
    for number, one in enumerate(asked(seed, 2 * COUNT)):
        if number % FROM_ONE_WORLD == 0:
            questions = [request(random, one.world) for _ in range(FROM_ONE_WORLD)]
        question, facts = one.request
        answer = decide(question, facts, one.rules, one.world.now)
        if isinstance(answer, Allow) and answer.reuse:
            same = [it.facts for it in questions if it.question is question]
            others = tuple(random.choices(same, k=OTHERS))
            yield Kept(question, facts, one.rules, one.world.now, answer, others)


def _differences(kept: list[Kept], question: Question, without: str = "") -> Iterator[str]:
    random = Random(1)
    for one in kept:
        if one.question is not question:
            continue
        key = key_of(question, one.facts, without)
        for other in one.others:
            facts = alike(question, one.facts, other, without)
            if key is None or key_of(question, facts, without) != key:
                continue
            later = one.now + random.random() * one.answer.reuse
            anew = decide(question, facts, one.rules, later)
            if not _same(one.answer, anew):
                yield f"{one.facts._asdict()}\n{one.answer}\n{facts._asdict()}\n{anew}"


def _same(again: Allow, anew: Verdict) -> bool:
    """Whether an answer that is given again is what deciding anew comes to, then."""
    if not isinstance(anew, Allow) or anew.would_deny or anew.ground is Ground.NOT_ENFORCED:
        return False
    if isinstance(again.header, SetToken) and isinstance(anew.header, SetToken):
        return again.parties == anew.parties
    return again.header is anew.header


@pytest.mark.parametrize("question", sorted(REUSABLE))
def test_an_answer_that_is_given_again_is_what_deciding_anew_gives(
    kept: list[Kept], question: Question
) -> None:
    assert not next(_differences(kept, question), "")


@pytest.mark.parametrize(
    ("question", "field"), [(question, it) for question, all_ in FIELDS.items() for it in all_]
)
def test_what_is_missing_in_a_key_is_noticed(
    kept: list[Kept], question: Question, field: str
) -> None:
    assert next(_differences(kept, question, without=field), "")


def test_each_row_that_may_be_kept_is(kept: list[Kept]) -> None:
    rows = Counter((it.question, it.answer.row) for it in kept)
    assert min(rows.values()) >= OTHERS, rows
    assert len(rows) == 2 + 5 + 3
