"""Takes each row of the decision tables away: what a request then gets is another thing.

A row without such a request fails, so none can be added without one.
"""

from typing import Any

import pytest

from authz.domain import tokens
from authz.domain.decision import TABLES, decide
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.names import PUBLIC
from authz.domain.verdict import Deny, SetToken
from authz.testing import NOW, workload
from tests.small_mesh import (
    ACTIVATOR,
    AUTOSCALER,
    DB,
    EVENTING,
    FOREIGN,
    GATEWAY,
    HELLO,
    IN_ISTIO,
    PARTNER,
    PROMETHEUS,
    RULES,
    SCALING,
    SCRAPE,
    WEB,
    token,
)

Row = tuple[Question, str]
Shown = tuple[dict[str, Any], str, str]
"""The facts, what comes of them, and what without the row."""

TO_DB = IN_ISTIO.format("acme-db")
TO_US = IN_ISTIO.format("authz-system")
STRANGER = SpiffeId("other", WEB.namespace, "default")
REFUSED = "denied no-row"


def _tokens(caller: SpiffeId, **where: Any) -> dict[str, Shown]:
    """The rows about tokens, which `verify` and `transit` share."""

    def shown(peer: SpiffeId, *received: str) -> dict[str, Any]:
        return {"caller": caller, "principal": str(peer), "tokens": received, **where}

    own, partner = token("acme-web", "acme-db"), token("initech", "acme-db")
    foreign = token("globex", "acme-db")
    public, to_web = token(PUBLIC, "acme-db", ""), token("acme-web", "acme-web")
    return {
        # Without it the next row has no token to look at, and an error of ours is no answer.
        "token-missing": (shown(FOREIGN), "denied token-missing", "IndexError"),
        "token-repeated": (shown(ACTIVATOR, own, "x"), "denied token-repeated", "let in"),
        # No row lets in by what was not found good.
        "token-bad": (
            shown(ACTIVATOR, own[:-3] + "AAA"),
            "denied signature-wrong",
            "denied no-grant",
        ),
        "meant-for-another": (
            shown(ACTIVATOR, to_web),
            "denied meant-for-another-namespace",
            "let in",
        ),
        "stranger": (shown(FOREIGN, own), "denied presented-by-a-stranger", "let in"),
        "not-public": (shown(GATEWAY, public), "denied not-public", "let in"),
        "same-tenant": (shown(ACTIVATOR, own), "let in", "denied no-grant"),
        "granted": (shown(ACTIVATOR, partner), "let in", "denied no-grant"),
        "no-grant": (shown(ACTIVATOR, foreign), "denied no-grant", REFUSED),
    }


def _peers(question: Question) -> dict[str, Shown]:
    """The rows about peers, which `verify` and `tcp` share."""
    else_ = "denied token-missing" if question is Question.VERIFY else "denied peer-unproven"
    scrape = SCRAPE if question is Question.VERIFY else {"port": 5432}
    return {
        "forwarded": (
            {"caller": DB, "principal": str(WEB), "forwarded": True},
            "denied check-forwarded",
            "let in",
        ),
        "caller-untrusted": (
            {"caller": STRANGER, "principal": str(WEB)},
            "denied caller-untrusted",
            "let in",
        ),
        "exempt": ({"caller": DB, "principal": str(PROMETHEUS), **scrape}, "let in", else_),
        "peer-of-tenant": ({"caller": DB, "principal": str(WEB)}, "let in", else_),
        "peer-granted": ({"caller": DB, "principal": str(PARTNER)}, "let in", else_),
    }


BEHIND: dict[str, Any] = {"hop": Hop.GATEWAY, "upstream": TO_DB}
OUT: dict[str, Any] = {"upstream": "PassthroughCluster", "tokens": ("forged",)}
UNREADABLE = f"{TO_DB};"
SHOWN: dict[Question, dict[str, Shown]] = {
    Question.SIGN: {
        "forwarded": (
            {"caller": WEB, "upstream": TO_DB, "forwarded": True},
            "denied check-forwarded",
            "token acme-web→acme-db",
        ),
        "caller-untrusted": (
            {"caller": STRANGER, "upstream": TO_DB},
            "denied caller-untrusted",
            "token acme-web→acme-db",
        ),
        "upstream-unreadable": (
            {"caller": WEB, "upstream": UNREADABLE},
            "removed upstream-unreadable",
            "removed left-the-mesh",
        ),
        "leaves-the-mesh": ({"caller": WEB, **OUT}, "removed left-the-mesh", REFUSED),
        "to-ourselves": (
            {"caller": EVENTING, "upstream": TO_US, "kn_namespace": ("acme-web",)},
            "denied for-ourselves",
            "token acme-web→authz-system",
        ),
        "on-behalf-of": (
            {"caller": EVENTING, "upstream": TO_DB, "kn_namespace": ("acme-web",)},
            "token acme-web→acme-db",
            "token knative-eventing→acme-db",
        ),
        "passed-on": (
            {"caller": ACTIVATOR, "upstream": TO_DB, "tokens": ("the origin's",)},
            "kept",
            "token knative-serving→acme-db",
        ),
        "signed": ({"caller": WEB, "upstream": TO_DB}, "token acme-web→acme-db", REFUSED),
    },
    Question.PUBLIC: {
        "forwarded": (
            {"caller": GATEWAY, "upstream": TO_DB, "virtual_service": HELLO, "forwarded": True},
            "denied check-forwarded",
            "token @public→acme-db",
        ),
        "caller-untrusted": (
            {"caller": STRANGER, "upstream": TO_DB},
            "denied caller-untrusted",
            "denied role-required",
        ),
        "gateway-only": (
            {"caller": WEB, "upstream": TO_DB, "virtual_service": HELLO},
            "denied role-required",
            "token @public→acme-db",
        ),
        "upstream-unreadable": (
            {"caller": GATEWAY, "upstream": UNREADABLE},
            "removed upstream-unreadable",
            "removed left-the-mesh",
        ),
        "leaves-the-mesh": ({"caller": GATEWAY, **OUT}, "removed left-the-mesh", REFUSED),
        "to-ourselves": (
            {"caller": GATEWAY, "upstream": TO_US, "virtual_service": HELLO},
            "denied for-ourselves",
            "denied route-foreign",
        ),
        "not-theirs-to-open": (
            {"caller": GATEWAY, "upstream": IN_ISTIO.format("globex"), "virtual_service": HELLO},
            "denied route-foreign",
            "token @public→globex",
        ),
        "public": (
            {"caller": GATEWAY, "upstream": TO_DB, "virtual_service": HELLO},
            "token @public→acme-db",
            REFUSED,
        ),
    },
    Question.VERIFY: {
        **_peers(Question.VERIFY),
        **_tokens(DB),
        "from-outside": (
            {
                "caller": WEB,
                "principal": str(GATEWAY),
                "tokens": (token(PUBLIC, "acme-web", ""),),
            },
            "let in",
            "denied no-grant",
        ),
    },
    Question.TRANSIT: {
        "forwarded": (
            {
                "caller": ACTIVATOR,
                "principal": str(WEB),
                "tokens": (token("acme-web", "acme-db"),),
                "forwarded": True,
                **BEHIND,
            },
            "denied check-forwarded",
            "let in",
        ),
        "caller-untrusted": (
            {"caller": STRANGER, **BEHIND},
            "denied caller-untrusted",
            "denied role-required",
        ),
        "hop-only": (
            {
                "caller": FOREIGN,
                "principal": str(WEB),
                "tokens": (token("acme-web", "acme-db"),),
                **BEHIND,
            },
            "denied role-required",
            "let in",
        ),
        "nowhere": (
            {
                "caller": ACTIVATOR,
                "hop": Hop.GATEWAY,
                "upstream": "",
                "principal": str(WEB),
                "tokens": (token("acme-web", "acme-db"),),
            },
            "denied destination-unknown",
            "denied meant-for-another-namespace",
        ),
        "to-ourselves": (
            {
                "caller": ACTIVATOR,
                "hop": Hop.GATEWAY,
                "upstream": TO_US,
                "principal": str(ACTIVATOR),
                "tokens": (token("authz-system", "authz-system"),),
            },
            "denied for-ourselves",
            "let in",
        ),
        "probe": (
            {"caller": ACTIVATOR, "hop": Hop.ACTIVATOR, "principal": str(AUTOSCALER), **SCALING},
            "let in",
            "denied token-missing",
        ),
        **_tokens(ACTIVATOR, **BEHIND),
        "from-outside": (
            {
                "caller": ACTIVATOR,
                "hop": Hop.GATEWAY,
                "upstream": IN_ISTIO.format("acme-web"),
                "principal": str(GATEWAY),
                "tokens": (token(PUBLIC, "acme-web", ""),),
            },
            "let in",
            "denied no-grant",
        ),
    },
    Question.TCP: {
        **_peers(Question.TCP),
        "peer-unproven": (
            {"caller": DB, "principal": str(FOREIGN)},
            "denied peer-unproven",
            REFUSED,
        ),
    },
}
ROWS = [(question, row.name) for question, rows in TABLES.items() for row in rows]


def outcome(question: Question, facts: dict[str, Any], *, without: str = "") -> tuple[str, str]:
    """What comes of the facts, and by which row."""
    tables = {question: tuple(row for row in TABLES[question] if row.name != without)}
    try:
        verdict = decide(question, Facts(**facts), RULES, NOW, tables)
    except IndexError as error:
        return type(error).__name__, ""
    if isinstance(verdict, Deny):
        return f"denied {verdict.reason.slug}", verdict.row
    if isinstance(verdict.header, SetToken):
        claims = tokens.parse(verdict.header.token).claims
        return f"token {claims.source}→{claims.destination}", verdict.row
    if question in {Question.SIGN, Question.PUBLIC}:
        kept = {"keep": "kept", "remove": f"removed {verdict.ground.slug}"}
        return kept[verdict.header.value], verdict.row
    return "let in", verdict.row


@pytest.mark.parametrize(("question", "row"), ROWS, ids=[f"{q}-{row}" for q, row in ROWS])
def test_without_its_row_a_request_gets_something_else(question: Question, row: str) -> None:
    facts, with_it, without_it = SHOWN[question][row]
    assert outcome(question, facts) == (with_it, row)
    assert outcome(question, facts, without=row)[0] == without_it != with_it


def test_rows_have_names_of_their_own_and_none_is_shown_that_is_not_there() -> None:
    assert len(set(ROWS)) == len(ROWS)
    assert {(question, row) for question, rows in SHOWN.items() for row in rows} == set(ROWS)


@pytest.mark.parametrize("question", list(Question))
def test_what_no_row_answers_is_refused_under_every_mode(question: Question) -> None:
    umbrella = workload("umbrella")  # in shadow mode
    verdict = decide(question, Facts(umbrella, principal=str(umbrella)), RULES, NOW, {question: ()})
    assert isinstance(verdict, Deny)
    assert verdict.reason.slug == "no-row"


@pytest.mark.parametrize(
    ("facts", "row", "grant"),
    [
        ({"caller": DB, "principal": str(PARTNER)}, "peer-granted", "acme-db from initech"),
        (
            {"caller": DB, "principal": str(ACTIVATOR), "tokens": (token("initech", "acme-db"),)},
            "granted",
            "acme-db from initech",
        ),
        (
            {"caller": WEB, "principal": str(workload("narrow", "reader")), "port": 8080},
            "peer-granted",
            "acme-web from narrow/reader, port 8080",
        ),
        ({"caller": DB, "principal": str(WEB)}, "peer-of-tenant", None),
    ],
)
def test_an_allow_names_its_row_and_its_grant(
    facts: dict[str, Any], row: str, grant: str | None
) -> None:
    verdict = decide(Question.VERIFY, Facts(**facts), RULES, NOW)
    assert not isinstance(verdict, Deny)
    assert verdict.row == row
    assert (None if verdict.grant is None else str(verdict.grant)) == grant


def test_in_shadow_mode_an_allow_names_the_row_that_would_deny() -> None:
    verdict = decide(Question.VERIFY, Facts(workload("umbrella")), RULES, NOW)
    assert not isinstance(verdict, Deny)
    assert verdict.row == "token-missing"
