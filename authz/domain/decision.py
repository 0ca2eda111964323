"""The decision: a question and its facts go in, `Allow` or `Deny` comes out.

The law of this file: it is the only place that decides, and it is pure (time is an argument). What
it decides by are tables of named rows. The first row that answers wins; what is in no table is
refused. `sign` and `public` put a token on a request; `verify`, `transit` and `tcp` let it in.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from authz.domain import entry, signing
from authz.domain.case import Case, Row, Rules, left_by, party
from authz.domain.facts import Facts, Question
from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace
from authz.domain.policy import Mode, Policy
from authz.domain.reason import Reason
from authz.domain.reuse import REUSABLE, seconds
from authz.domain.verdict import Allow, Deny, Ground, Verdict

__all__ = ["TABLES", "Rules", "decide", "decide_in_doubt", "markdown"]

Tables = Mapping[Question, tuple[Row, ...]]

TABLES: Final[Tables] = MappingProxyType(
    {
        Question.SIGN: signing.SIGN,
        Question.PUBLIC: signing.PUBLIC,
        Question.VERIFY: entry.VERIFY,
        Question.TRANSIT: entry.TRANSIT,
        Question.TCP: entry.TCP,
    }
)
"""What each question is decided by."""


def decide(
    question: Question | None, facts: Facts, rules: Rules, now: float, tables: Tables = TABLES
) -> Verdict:
    """Answer one question.

    `question` is `None` where it is missing, repeated or unknown; `now` is in seconds since the
    epoch. Other `tables` are for tests, which take rows away.
    """
    if question is None:
        return Deny(Reason.QUESTION_UNKNOWN, party(facts.caller))
    case = Case(question, facts, rules, now)
    for row in tables[question]:
        case.row = row.name
        verdict = row.rule(case)
        if verdict is not None:
            if isinstance(verdict, Allow):
                again = seconds(case, verdict) if row.reusable else 0
                if not again:
                    return verdict
                return verdict._replace(reuse=again, epoch=rules.keyring.revocations)
            if row.always:
                return verdict
            return _under_mode(verdict, question, case.destination, rules.policy)
    return Deny(Reason.NO_ROW, case.parties)


def decide_in_doubt(
    reason: Reason, question: Question | None, caller: SpiffeId | None, policy: Policy
) -> Verdict:
    """Answer where the facts are lost: a denial, unless the caller's namespace enforces nothing."""
    if caller is None or caller.trust_domain not in policy.trust_domains:
        return Deny(Reason.CALLER_UNTRUSTED, party(caller))
    denial = Deny(reason, party(caller))
    if question is Question.VERIFY or question is Question.TCP:
        return _under_mode(denial, question, caller.namespace, policy)
    return denial


def _under_mode(
    denial: Deny, question: Question, destination: Namespace | None, policy: Policy
) -> Verdict:
    """Let the destination's mode turn a denial into an allow."""
    if destination is None or (mode := policy.mode_of(destination)) is Mode.ENFORCE:
        return denial
    recorded = denial.reason if mode is Mode.SHADOW else None
    parties = denial.parties._replace(destination=destination)
    return Allow(
        Ground.NOT_ENFORCED, left_by(question), parties, would_deny=recorded, row=denial.row
    )


def markdown() -> str:
    """The tables, as the documents print them."""
    parts = []
    for question, rows in TABLES.items():
        parts.append(f"**{question}**\n\n| row | case | answer |\n|---|---|---|\n")
        parts += (
            f"| `{row.name}` | {row.case} | {row.answer}{_WHATEVER if row.always else ''}"
            f"{_AGAIN if row.reusable and question in REUSABLE else ''} |\n"
            for row in rows
        )
        parts.append("\n")
    return "".join(parts)[:-1]


_WHATEVER: Final = ", whatever D's mode"
_AGAIN: Final = "; may be kept"
