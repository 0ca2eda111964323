"""The one language of tables of calls: words for what came, and what they are worth."""

from __future__ import annotations

import pytest

from authz._proto.ext_authz_pb2 import CheckResponse, HeaderValueOption
from authz.domain import rotation, tokens
from authz.domain.keys import TokenLife
from authz.domain.names import Namespace
from authz.testing import INVALID, LEAKED, LET_IN, NOW, Case, Outcome, Result, played, token_set
from authz.wire import REASON_HEADER, TOKEN_HEADER

SET = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
ADD = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
TOKEN = tokens.mint(
    source=Namespace("shop"),
    service_account="default",
    destination=Namespace("bank"),
    keyring=rotation.create(NOW),
    now=NOW,
    life=TokenLife(),
)


def allowing(*values: str, action: HeaderValueOption.HeaderAppendAction = SET) -> CheckResponse:
    answer = CheckResponse()
    answer.status.code = 0
    for value in values:
        option = answer.ok_response.headers.add(append_action=action)
        option.header.key, option.header.value = TOKEN_HEADER, value
    return answer


def removing(answer: CheckResponse) -> CheckResponse:
    answer.ok_response.headers_to_remove.append(TOKEN_HEADER)
    return answer


def denying(code: int, http: int = 403) -> CheckResponse:
    answer = CheckResponse()
    answer.status.code = code
    answer.denied_response.status.code = http  # type: ignore[assignment]
    option = answer.denied_response.headers.add()
    option.header.key, option.header.value = REASON_HEADER, "token-invalid"
    return answer


def test_what_came_is_put_into_words() -> None:
    assert Outcome.of(200, "acme-db") == "200 acme-db"
    assert Outcome.of(503) == "503"
    assert Outcome.of(0) == "no answer"
    assert Outcome.of(0, "UNAVAILABLE") == "no answer: UNAVAILABLE"
    whole = Outcome.of(200, "app", LEAKED, asked=["sign", "verify"])
    assert whole == "200 app, WITH A TOKEN; sign, verify"
    assert (whole.status, whole.leaked) == (200, True)
    assert [Outcome(it).status for it in ("403", "503; sign", "greeted", "")] == [403, 503, 0, 0]


def test_what_a_check_was_answered() -> None:
    assert Outcome.of_check(removing(allowing())) == LET_IN
    assert Outcome.of_check(allowing()) == "allowed"
    assert Outcome.of_check(denying(7)) == INVALID
    assert Outcome.of_check(allowing(TOKEN)) == "token from shop to bank"
    assert token_set(allowing(TOKEN)) == TOKEN
    statuses = [Outcome.of_check(it).status for it in (allowing(), allowing(TOKEN), denying(7))]
    assert statuses == [200, 200, 403]


@pytest.mark.parametrize(
    "answer",
    [
        CheckResponse(),
        denying(0),
        denying(16),
        allowing("v1.a"),
        allowing(TOKEN, action=ADD),
        removing(allowing(TOKEN)),
    ],
    ids=[
        "no status",
        "status 0 with a denial",
        "unauthenticated",
        "no token",
        "added",
        "set and removed",
    ],
)
def test_an_answer_that_envoy_may_take_otherwise_is_malformed(answer: CheckResponse) -> None:
    assert Outcome.of_check(answer).startswith("MALFORMED")


def test_a_denial_that_is_not_one_for_http_shows() -> None:
    assert Outcome.of_check(denying(7, http=200)) == "200 token-invalid"


@pytest.mark.parametrize(
    ("expected", "came", "ok"),
    [
        ("200 acme-db", "200 acme-db", True),
        ("200 acme-db", "200 acme-db, WITH A TOKEN", False),
        ("200 acme-db", "200 acme-db2", False),
        ("403 ?*", "403 not-allowed", False),
    ],
)
def test_a_case_is_as_it_must_be_or_not(expected: str, came: str, ok: bool) -> None:
    assert Result(Case("a", "b", expected, None), Outcome(came)).ok is ok


@pytest.mark.parametrize(
    ("pattern", "came", "ok"),
    [
        ("403 ?*", "403 not-allowed", True),
        ("403 ?*", "403", False),
        ("[!2]*", "no answer", True),
        ("[!2]*", "204", False),
    ],
)
def test_only_where_a_case_says_so_its_outcome_is_a_pattern(
    pattern: str, came: str, ok: bool
) -> None:
    assert Result(Case("a", "b", pattern, None, is_pattern=True), Outcome(came)).ok is ok


async def test_a_case_that_breaks_is_a_difference_and_not_the_end() -> None:
    async def play(case: Case[bool]) -> Outcome:
        if case.call:
            raise ValueError("it broke\n on two lines")
        return Outcome("fine")

    cases = [Case("a", "", "fine", True), Case("b", "", "fine", False)]
    results = [it async for it in played(cases, play)]
    assert [result.ok for result in results] == [False, True]
    assert results[0].outcome == "ValueError: it broke on two lines"
