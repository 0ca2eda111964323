"""From shadow to enforce: what the decision log says would be denied, and the grants against it.

A grant is proposed only where the origin was proven and nothing but the policy stood against it.
Never for a token that was not good: that is an attack or a fault, and no grant mends either.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from authz.domain.facts import Question
from authz.domain.identity import is_service_account
from authz.domain.names import PUBLIC, Namespace, parse_namespace
from authz.domain.policy import Mode, Policy
from authz.domain.reason import Outward, Reason

_REASONS: Final = {reason.slug: reason for reason in Reason}
_GRANTABLE: Final = frozenset({Reason.NO_GRANT, Reason.TOKEN_MISSING, Reason.PEER_UNPROVEN})
_ENVELOPES: Final = ("log", "message", "msg", "line", "body", "jsonPayload", "_source")
"""Where container runtimes and log stores put what a program wrote, as text or as an object."""
_MOST_ENVELOPES: Final = 3
_FEW: Final = 10  # lines of a log that may be somebody else's
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,16}(?:Z|\+00:00)")
_HASH: Final = re.compile(r"sha256:[0-9a-f]{32}")  # of a long account's name
_ADVICE: Final = {
    Reason.NO_GRANT: "the origin is the platform's, or has too long a name: find who called",
    Reason.TOKEN_MISSING: "the caller's sidecar does not sign: injected? `sign` installed?",
    Reason.NOT_PUBLIC: "the policy says public: false; change that if it is meant to be public",
    Reason.ROUTE_FOREIGN: "an Ingress or other route of another tenant leads there: see route_of",
    Reason.ROUTE_UNOWNED: "a route at the gateway without a VirtualService, as of an EnvoyFilter",
    Reason.HOST_FOREIGN: "hosts, host_templates or a ClusterDomainClaim give the name to another",
    Reason.PEER_UNPROVEN: "raw TCP from a peer that cannot be named",
}


class Readiness(StrEnum):
    """What is to be said of a namespace."""

    SAFE = "safe"
    """Nothing would have been denied."""
    GRANTS = "grants"
    """All that would have been denied can be granted, or is to be denied on purpose."""
    LOOK = "look"
    """Something would have been denied that no grant can allow: find out what it is."""
    UNPROTECTED = "unprotected"
    """It signs but never verifies: to enforce would protect nothing."""
    UNKNOWN = "unknown"
    """It signs; whether it verifies, not all servers say: upgrade them, then ask all of them."""
    ENFORCED = "enforced"
    """It denies already."""


class Caller(NamedTuple):
    """Who was denied, where, and why. What is `None` is not proven."""

    to: Namespace
    source: Namespace | None
    service_account: str | None
    reason: Reason

    @property
    def order(self) -> tuple[str, ...]:
        """What to sort by: what is not proven comes first."""
        return self.to, self.source or "", self.service_account or "", self.reason.slug


@dataclass(slots=True)
class Seen:
    """How often, and when: times as the log writes them, which sort as text."""

    would: Counter[str] = field(default_factory=Counter)
    """By question: a call through a hop is recorded there and at the pod."""
    denied: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""

    @property
    def times_shadowed(self) -> int:
        """Calls that enforcing would have denied, each counted once."""
        return max(self.would.values(), default=0)

    @property
    def times_denied(self) -> int:
        """Calls that were denied."""
        return max(self.denied.values(), default=0)

    def add(self, *, shadowed: bool, question: str, time: str) -> None:
        """Count one line."""
        (self.would if shadowed else self.denied)[question] += 1
        if time:
            self.first = min(self.first or time, time)
            self.last = max(self.last, time)


class Log:
    """What a decision log says, however long it is."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self.callers: dict[Caller, Seen] = {}
        self.first = self.last = ""
        self.lines = self.ours = self.unreadable = 0
        self.left_out: Counter[str] = Counter()
        """Lines that were over the log's limit, by the namespace that asked."""
        # Never the origin of a tenant's call, never granted anything.
        self._platform = self.policy.platform

    def read(self, lines: Iterable[str]) -> None:
        """Take in lines of a log; whatever is not one of ours is counted and passed over."""
        for line in lines:
            if not line.strip():
                continue
            self.lines += 1
            try:
                self._take(_record(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.unreadable += 1
            else:
                self.ours += 1

    @property
    def is_evidence(self) -> bool:
        """Whether lines of ours were read, and nearly all that could have been some."""
        return self.ours > 0 and self.unreadable <= max(_FEW, self.lines // 100)

    def _take(self, record: Mapping[str, Any]) -> None:
        time = str(record["timestamp"])
        time = f"{time[:19]}Z" if _TIME.fullmatch(time) else ""
        self.first = min(self.first or time, time or self.first)
        self.last = max(self.last, time)
        match record["event"]:
            case "denied" | "would deny" as event:
                if record.get("destination") is None:
                    return
                caller = self._caller(record)
                question = Question(record["question"]).value
                seen = self.callers.setdefault(caller, Seen())
                seen.add(shadowed=event == "would deny", question=question, time=time)
            case "denials left out of the log":
                for who, count in record["left_out"].items():
                    self.left_out[str(who).partition(" at ")[2]] += int(count)

    def _caller(self, record: Mapping[str, Any]) -> Caller:
        reason = _REASONS[record["reason"]]
        source, account = record.get("source"), record.get("service_account")
        if account is not None and not (_HASH.fullmatch(account) or is_service_account(account)):
            raise ValueError("not the name of a service account")
        return Caller(
            parse_namespace(record["destination"]),
            None if source is None else _origin(source),
            account,
            reason,
        )

    # -- what follows --------------------------------------------------------------------------

    def namespaces(self) -> list[Namespace]:
        """Every namespace that there is something to say of."""
        shadowed = {
            name for name in self.policy.namespaces if self.policy.mode_of(name) is Mode.SHADOW
        }
        return sorted(shadowed | {caller.to for caller in self.callers})

    def of(self, namespace: Namespace) -> list[tuple[Caller, Seen]]:
        """Who was denied there, the most frequent first; echoes of a hop's own line left out."""
        found = [
            (caller, seen)
            for caller, seen in self.callers.items()
            if caller.to == namespace and not self._echoes(caller)
        ]
        return sorted(found, key=lambda one: (-one[1].times_shadowed, one[0].order))

    def readiness(
        self,
        namespace: Namespace,
        unprotected: Iterable[str] = (),
        undecided: Iterable[str] = (),
    ) -> Readiness:
        """Whether `namespace` may be enforced."""
        if namespace in set(unprotected):
            return Readiness.UNPROTECTED
        if namespace in set(undecided):
            return Readiness.UNKNOWN
        shadowed = [caller for caller, seen in self.of(namespace) if seen.would]
        if shadowed:
            mended = all(self.grant(caller) or self._on_purpose(caller) for caller in shadowed)
            return Readiness.GRANTS if mended else Readiness.LOOK
        if any(seen.denied for _, seen in self.of(namespace)):
            return Readiness.ENFORCED
        return Readiness.SAFE

    def incomplete(self, namespace: Namespace) -> bool:
        """Whether lines about it may have been left out of the log, there or at a hop."""
        return any(self.left_out[name] for name in {namespace, *self._platform})

    def grant(self, caller: Caller) -> dict[str, str] | None:
        """The grant that would let a caller in, as the policy file writes it, or none."""
        if caller.reason.outward is Outward.TOKEN_INVALID or caller.reason not in _GRANTABLE:
            return None
        if caller.source is None or caller.source == PUBLIC or caller.source in self._platform:
            return None
        account = caller.service_account
        if account is not None and not is_service_account(account):
            return None  # a long name's hash, which a policy does not take
        questions = self.callers[caller].would + self.callers[caller].denied
        if caller.reason is Reason.TOKEN_MISSING and Question.VERIFY not in questions:
            return None  # on a hop, a grant is of no use without a token
        named = {} if account is None else {"service_account": account}
        return {"to": caller.to, "from": caller.source, **named}

    def grants(self) -> list[tuple[dict[str, str], Seen]]:
        """All grants to propose, each once."""
        found: dict[tuple[str, ...], tuple[dict[str, str], Seen]] = {}
        for namespace in self.namespaces():
            for caller, seen in self.of(namespace):
                if grant := self.grant(caller):
                    found.setdefault(tuple(grant.values()), (grant, seen))
        return [found[key] for key in sorted(found)]

    def advice(self, caller: Caller) -> str:
        """What to do about a caller."""
        if self.grant(caller):
            return "grant, if the call is meant to be"
        if caller.reason.outward is Outward.TOKEN_INVALID:
            return "an attack or a fault: never a grant; " + caller.reason.sentence
        return _ADVICE.get(
            caller.reason, "a fault of ours or the mesh's: " + caller.reason.sentence
        )

    def _on_purpose(self, caller: Caller) -> bool:
        return caller.reason is Reason.NOT_PUBLIC

    def _echoes(self, caller: Caller) -> bool:
        """Whether it is a request that a hop let pass in shadow and signed as its own."""
        return (
            caller.reason is Reason.NO_GRANT
            and caller.source in self._platform
            and any(
                other.to == caller.to and Question.TRANSIT in seen.would
                for other, seen in self.callers.items()
            )
        )


def as_policy(log: Log) -> str:
    """The proposed grants as part of a policy file, for somebody to review."""
    lines = [
        "# Proposed from the decision log. Each line lets one tenant into another: keep those that",
        "# are meant to be, narrow them with `port` and `until`, then `authz policy check`.",
    ]
    grants = log.grants()
    lines.append("grants:" if grants else "grants: []")
    for grant, seen in grants:
        times = max(seen.times_shadowed, seen.times_denied)
        when = f", {seen.first} to {seen.last}" if seen.first else ""
        written = ", ".join(f"{name}: {json.dumps(value)}" for name, value in grant.items())
        lines += [f"  # calls: {times}{when}", f"  - {{{written}}}"]
    return "\n".join(lines) + "\n"


def _record(line: str) -> dict[str, Any]:
    """The record in a line: behind a pod's name (`kubectl logs --prefix`), within envelopes."""
    found: Any = json.loads(line[line.index("{") :])
    for _ in range(_MOST_ENVELOPES):
        if "event" in found:
            break
        inner = next((found[name] for name in _ENVELOPES if name in found), None)
        found = json.loads(inner[inner.index("{") :]) if isinstance(inner, str) else inner
    if not isinstance(found, dict):
        raise TypeError("not a record")
    return found


def _origin(text: str) -> Namespace:
    return PUBLIC if text == PUBLIC else parse_namespace(text)
