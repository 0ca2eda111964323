"""The audit log: one JSON line for each denial, also for those that shadow mode let pass.

Allows are counted, not logged, but for three: no token where the upstream could not be read, which
must be a fault; once an hour, that a namespace was let into one that is not its own tenant's, by
which row of the decision table and which grant; and samples, if the operator wants some. The flood
of one tenant must not hide what another does, so the limit is per namespace that asks and namespace
that the request was brought by; what was left out is counted and said.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

from authz.domain.facts import Question
from authz.domain.identity import SpiffeId
from authz.domain.verdict import Allow, Deny, Ground
from authz.observe.events import DecisionEvent
from authz.observe.trace import trace_fields

LINES_PER_SECOND: Final = 20
"""Lines for each pair of asking and bringing namespace."""
MAX_LINES_PER_SECOND: Final = 1000
"""Lines for all of them together."""
MAX_SAMPLES_PER_SECOND: Final = 100
"""Lines that show an allow."""
UPSTREAM_SECONDS: Final = 60
"""How often upstreams that cannot be read are told of: one of each asking namespace."""
MAX_UPSTREAMS: Final = 100
"""Of how many namespaces, in that time."""
ENTRY_SECONDS: Final = 3600
"""How often it is told who is let in from elsewhere: each source and destination, row and grant."""
MAX_ENTRIES: Final = 5000
"""How many lines of that, in that time."""
MAX_ENTRIES_OF_ONE: Final = 100
"""How many of those of one source: service accounts are quickly made."""
_FROM_ELSEWHERE: Final = (
    Ground.EXEMPT,
    Ground.PROVEN_PEER,
    Ground.GRANTED,
    Ground.FROM_OUTSIDE,
)


class AuditLog:
    """Writes denials. `clock` is in seconds, monotonic."""

    def __init__(
        self, log: structlog.typing.FilteringBoundLogger, clock: Callable[[], float]
    ) -> None:
        self._log = log
        self._clock = clock
        self._second = 0
        self._written: Counter[str] = Counter()
        self._all = 0
        self._sample_second = 0
        self._samples = 0
        self._minute = 0
        self._told_of: set[str] = set()
        self._hour = 0
        self._entries: set[tuple[object, ...]] = set()
        self._entries_of: Counter[str | None] = Counter()

    def decided(self, event: DecisionEvent) -> None:
        """Write a line if the answer was a denial, or would have been."""
        verdict = event.verdict
        reason = verdict.reason if isinstance(verdict, Deny) else verdict.would_deny
        parties = verdict.parties
        asking = event.caller.namespace if event.caller else "nobody"
        bringing = parties.peer.namespace if parties.peer else "nobody"
        if isinstance(verdict, Allow) and verdict.ground is Ground.UPSTREAM_UNREADABLE:
            self._unreadable(event, asking)
        if isinstance(verdict, Allow) and verdict.ground in _FROM_ELSEWHERE:
            self._let_in(event, verdict)
        if reason is None or not self._may_write(f"{bringing} at {asking}"):
            return
        self._log.warning(
            "denied" if isinstance(verdict, Deny) else "would deny",
            reason=reason.slug,
            told=reason.outward.value,
            because=reason.sentence,
            row=verdict.row or None,
            **_about(event),
        )

    def sampled(self, event: DecisionEvent) -> None:
        """Show an allow, unless there were too many in this second."""
        allow = event.verdict
        second = int(self._clock())
        if second != self._sample_second:
            self._sample_second, self._samples = second, 0
        if not isinstance(allow, Allow) or self._samples >= MAX_SAMPLES_PER_SECOND:
            return
        self._samples += 1
        self._log.info(
            "allowed",
            reason=allow.ground.slug,
            because=allow.ground.value,
            row=allow.row or None,
            grant=None if allow.grant is None else str(allow.grant),
            **_about(event),
        )

    def _unreadable(self, event: DecisionEvent, asking: str) -> None:
        minute = int(self._clock() // UPSTREAM_SECONDS)
        if minute != self._minute:
            self._minute = minute
            self._told_of.clear()
        if asking in self._told_of or len(self._told_of) >= MAX_UPSTREAMS:
            return
        self._told_of.add(asking)
        self._log.warning(
            "no token: the upstream is no cluster name of istiod's",
            upstream=event.verdict.parties.upstream,
            question=event.question.value if event.question else None,
            asked_by=str(event.caller) if event.caller else None,
        )

    def _let_in(self, event: DecisionEvent, allow: Allow) -> None:
        if allow.ground is Ground.PROVEN_PEER and allow.grant is None:  # of the tenant itself
            return
        hour = int(self._clock() // ENTRY_SECONDS)
        if hour != self._hour:
            self._hour = hour
            self._entries.clear()
            self._entries_of.clear()
        parties = allow.parties
        source, account = parties.source, parties.service_account
        entry = source, account, parties.destination, allow.row, allow.grant
        if (
            entry in self._entries
            or len(self._entries) >= MAX_ENTRIES
            or self._entries_of[source] >= MAX_ENTRIES_OF_ONE
        ):
            return
        self._entries.add(entry)
        self._entries_of[source] += 1
        self._log.info(
            "let in",
            row=allow.row,
            grant=None if allow.grant is None else str(allow.grant),
            question=event.question.value if event.question else None,
            source=parties.source,
            service_account=parties.service_account or None,
            destination=parties.destination,
            peer=str(parties.peer) if parties.peer else None,
        )

    def given_again(self, question: Question | None, ground: Ground, caller: SpiffeId) -> None:
        """Allows are counted, not logged."""

    def failed(self, error: Exception) -> None:
        """Name the kind of error; its text might quote what the request held."""
        if self._may_write("errors"):
            traceback = error.__traceback__
            while traceback is not None and traceback.tb_next is not None:
                traceback = traceback.tb_next
            place = (
                f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
                if traceback
                else None
            )
            self._log.error("unexpected error", kind=type(error).__name__, place=place)

    def _may_write(self, who: str) -> bool:
        second = int(self._clock())
        if second != self._second:
            left_out = {
                name: count - LINES_PER_SECOND
                for name, count in self._written.items()
                if count > LINES_PER_SECOND
            }
            self._second = second
            self._written.clear()
            self._all = 0
            if left_out:
                self._log.warning("denials left out of the log", left_out=left_out)
        self._written[who] += 1
        self._all += 1
        return self._written[who] <= LINES_PER_SECOND and self._all <= MAX_LINES_PER_SECOND


def _about(event: DecisionEvent) -> dict[str, str | None]:
    """Who asked for whom, as far as it is known."""
    parties = event.verdict.parties
    return {
        "question": event.question.value if event.question else None,
        "peer": str(parties.peer) if parties.peer else None,
        "source": parties.source,
        "claimed_source": parties.claimed_source,
        "service_account": parties.service_account or None,
        "destination": parties.destination,
        "key_id": str(parties.key) if parties.key else None,
        "request_id": event.request_id,
        "asked_by": str(event.caller) if event.caller else None,
        **({"upstream": parties.upstream} if parties.upstream else {}),
        **({"route_of": parties.route_of} if parties.route_of else {}),
        **trace_fields(event.trace),
    }
