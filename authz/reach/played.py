"""Cases, and what is decided on each request that fits them."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from authz.domain.names import PUBLIC, Namespace
from authz.domain.policy import Policy
from authz.domain.reason import Reason
from authz.domain.verdict import Allow, Verdict
from authz.reach.cases import Case, Expected
from authz.reach.pairs import Pairs
from authz.reach.ways import Request, Way

_EPOCH: Final = dt.date(1970, 1, 1)


@dataclass(frozen=True)
class Answer:
    """What is decided on a request."""

    request: Request
    verdict: Verdict | None
    """`None`: there is no such way, since nobody holds the role that it needs."""

    @property
    def allowed(self) -> bool:
        """Whether it gets in."""
        return isinstance(self.verdict, Allow)

    @property
    def row(self) -> str | None:
        """The row of the decision tables that answers."""
        return None if self.verdict is None else self.verdict.row

    @property
    def reason(self) -> str | None:
        """As the log would say it."""
        match self.verdict:
            case None:
                return None
            case Allow(would_deny=Reason() as hidden):
                return hidden.slug
            case Allow(ground=ground):
                return ground.slug
            case denied:
                return denied.reason.slug

    @property
    def sentence(self) -> str:
        """Why."""
        match self.verdict:
            case None:
                return "no account holds the role that this way needs"
            case Allow() as allow:
                return allow.ground.value
            case denied:
                return denied.reason.sentence


@dataclass(frozen=True)
class Played:
    """A case, and all answers to what fits it."""

    line: int
    case: Case
    answers: tuple[Answer, ...]

    @property
    def name(self) -> str:
        """What it is called."""
        return self.case.name or f"{self.case.from_} to {self.case.to}"

    def wrong(self) -> list[Answer]:
        """The answers that are not as expected."""
        case = self.case
        return [
            answer
            for answer in self.answers
            if answer.allowed != (case.expect is Expected.ALLOW)
            or case.row not in (None, answer.row)
            or case.reason not in (None, answer.reason)
        ]


def play(policy: Policy, cases: list[tuple[int, Case]], now: float) -> Iterator[Played]:
    """Ask for all that fits each case; `now` is in seconds since the epoch."""
    at = cache(lambda moment: Pairs([policy], moment))
    for line, case in cases:
        moment = now if case.on is None else float((case.on - _EPOCH).days * 86400)
        yield Played(line, case, tuple(_answers(at(moment), case)))


def _answers(pairs: Pairs, case: Case) -> Iterator[Answer]:
    to = Namespace(case.to)
    source = Namespace(case.from_)
    if source == PUBLIC:
        source = Namespace(case.route) if case.route else to
    asked = pairs.answers(source, to).asked
    for request in asked:
        if not _fits(request, case, asked):
            continue
        exact = request._replace(service=case.service or request.service)
        verdict = pairs.verdict(0, source, to, exact, pairs.now, host=case.host or "")
        answer = Answer(exact, verdict)
        if case.way is not None or case.from_ == PUBLIC or _is_there(answer):
            yield answer


def _is_there(answer: Answer) -> bool:
    """Whether there is such a way: for plaintext, only where something gets in by it."""
    return answer.allowed or (
        answer.verdict is not None and answer.request.way is not Way.PLAINTEXT
    )


def _fits(request: Request, case: Case, asked: tuple[Request, ...]) -> bool:
    """Whether a request stands for one that a case is about."""
    if (request.way is Way.OUTSIDE) != (case.from_ == PUBLIC):
        return False
    if case.way not in (None, request.way):
        return False

    def stands(name: str, wanted: Any) -> bool:
        def plain(one: Request) -> Any:
            value = getattr(one, name)
            return value.rpartition("/")[2] if isinstance(value, str) else value

        known = {plain(it) for it in asked if it.way is request.way}
        return wanted is None or plain(request) == (wanted if wanted in known else None)

    if request.way is Way.EVENT and case.port is not None:
        return False
    return (
        stands("account", case.service_account)
        and stands("port", case.port)
        and stands("service", case.service)
    )
