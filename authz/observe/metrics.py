"""Metrics for Prometheus. authz/REFERENCE.md lists them, deploy/observability what to do.

Counting costs a fraction of a microsecond, for it happens at each Check: plain numbers, exported
when somebody asks. Only the event loop's thread counts. What one process has counted can be added
to what another has: `changes` there, `add` here.
"""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from authz import __version__
from authz.domain.facts import Question
from authz.domain.identity import SpiffeId
from authz.domain.names import Namespace
from authz.domain.reason import Reason
from authz.domain.verdict import Deny, Ground
from authz.observe import processes, series
from authz.observe.destinations import MAX_CLAIMED, MAX_PROVEN, NOWHERE, OTHER, Destinations
from authz.observe.events import DecisionEvent
from authz.observe.latency import Latency

MAX_LISTED: Final = 1000
"""Most namespaces that get a series of their own."""

_CHECKS: Final = "authz_checks"
_DENIALS: Final = "authz_denials"
_ERRORS: Final = "authz_unexpected_errors"
_RELOAD_FAILURES: Final = "authz_reload_failures"
_CLOSED: Final = "authz_connections_closed"
_LIMITED: Final = "authz_limits_met"
_RESTARTS: Final = "authz_worker_restarts"

_DENIED: Final = (
    "Denials by destination namespace; outcome shadow: it would have been denied. `_other`: beyond "
    f"the first {MAX_PROVEN} whose pods ask and {MAX_CLAIMED} others; `_unknown`: none is known."
)
_COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    _CHECKS: (
        "Questions answered, by question, outcome (allow, deny, shadow) and reason.",
        ("question", "outcome", "reason"),
    ),
    _DENIALS: (_DENIED, ("destination", "outcome")),
    _ERRORS: ("Bugs; each such Check failed, and Envoy went by its failure mode.", ("kind",)),
    _RELOAD_FAILURES: (
        "New versions that were bad and not used; the last good one stays in use.",
        ("what",),
    ),
    _CLOSED: ("Connections that ended, by reason.", ("reason",)),
    _LIMITED: ("Limits reached: a request refused, a connection closed, or a delay.", ("limit",)),
    _RESTARTS: ("Workers that ended by themselves and were started again.", ()),
}
_EXPECTED: Final[Mapping[str, tuple[str, ...]]] = {
    _ERRORS: series.ERRORS,
    _RELOAD_FAILURES: series.RELOADED,
    _CLOSED: series.CLOSED,
    _LIMITED: series.LIMITS,
}
_NO_REASON: Final = id(None)
_OWN: Final = 0  # workers are numbered from 1


Family: TypeAlias = (
    CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily
)


class _Cell:
    """One series of a counter."""

    __slots__ = ("count", "key", "names", "told")

    def __init__(self, key: tuple[str, ...], names: dict[Namespace, None] | None = None) -> None:
        self.key = key  # the counter's name, and a value for each of its labels
        self.count = 0
        self.told = 0  # how much of it `changes` has given out
        self.names = names  # where to note the namespace of whoever asked


@dataclass(slots=True)
class _State:
    """What is so in one process now, in contrast to what has happened."""

    keyring_version: int = 0
    keyring_refused: bool = False
    behind: set[str] = field(default_factory=set)
    """Of what the newest version is bad, so that an older one is in use."""
    seen: dict[str, float] = field(default_factory=dict)
    connections: int = 0
    certificate_expires: float | None = None


class Metrics(Collector):
    """Counts every decision; exports the age of what decisions are made by.

    `clock` is in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self.connections: Callable[[], int] = lambda: 0
        """How many are open in this process."""
        self.processes: Callable[[], Mapping[int, int]] = lambda: {_OWN: os.getpid()}
        """Process ids by number of the worker; 0 is this process, which may have none."""
        self.latency = Latency()
        """Of Checks."""
        self._destinations = Destinations()
        self._clock = clock
        self._cells: dict[tuple[str, ...], _Cell] = {}
        self._checks: dict[tuple[Question | None, int, int], _Cell] = {}
        # Both only grow, and keep the order in which names came: dicts, of which sets are made.
        self._signed: dict[Namespace, None] = {}
        self._verified: dict[Namespace, None] = {}
        self._names_told = 0, 0
        self._states: dict[int, _State] = {}
        for check in series.checks():
            self._cell(_CHECKS, *check)
        for label in (OTHER, NOWHERE):
            for outcome in ("deny", "shadow"):
                self._cell(_DENIALS, label, outcome)
        for name, values in _EXPECTED.items():
            for value in values:
                self._cell(name, value)
        self._cell(_RESTARTS)

    # -- what happens --------------------------------------------------------------------------

    def decided(self, event: DecisionEvent) -> None:
        """Count a decision."""
        verdict = event.verdict
        # Members of an enum live as long as the process; to hash one itself is a call in Python.
        if isinstance(verdict, Deny):
            key = event.question, id(verdict.reason), 0
            self._count_denial(event, "deny")
        else:
            key = event.question, id(verdict.ground), id(verdict.would_deny)
            if verdict.would_deny is not None:
                self._count_denial(event, "shadow")
        cell = self._checks.get(key)
        if cell is None:
            cell = self._checks[key] = self._cell_of(event)
        cell.count += 1
        if cell.names is not None and event.caller is not None:
            cell.names[event.caller.namespace] = None

    def given_again(self, question: Question | None, ground: Ground, caller: SpiffeId) -> None:
        """Count an allow."""
        key = question, id(ground), _NO_REASON
        cell = self._checks.get(key)
        if cell is None:
            cell = self._checks[key] = self._allows(question, "allow", ground)
        cell.count += 1
        if cell.names is not None:
            cell.names[caller.namespace] = None

    def sampled(self, event: DecisionEvent) -> None:
        """It is counted already."""

    def failed(self, error: Exception) -> None:
        """Count an unexpected error by its kind."""
        self._cell(_ERRORS, series.kind_of(error)).count += 1

    def reload_failed(self, what: str) -> None:
        """Count a new version of something that was not taken, or could not be read."""
        self._cell(_RELOAD_FAILURES, what).count += 1

    def is_newest(self, what: str, newest: bool) -> None:
        """Whether what is in use is the newest version: else that one is bad, and not used."""
        (self._own.behind.discard if newest else self._own.behind.add)(what)

    def closed(self, reason: str) -> None:
        """Count a connection that ended."""
        self._cell(_CLOSED, reason).count += 1

    def limited(self, limit: str, count: int) -> None:
        """Count how often clients met a limit."""
        self._cell(_LIMITED, limit).count += count

    def restarted(self) -> None:
        """Count a worker that is started again."""
        self._cell(_RESTARTS).count += 1

    def fresh(self, what: str, at: float | None = None) -> None:
        """`keyring` or `policy` is known to be current as of now, or as of `at`."""
        self._own.seen[what] = self._clock() if at is None else at

    def uses_keyring(self, version: int) -> None:
        """Decisions are made by this version from now on."""
        self._own.keyring_version = version

    def refuses_keyring(self, refused: bool) -> None:
        """Whether the stored keyring is not taken, since it takes back what was settled."""
        self._own.keyring_refused = refused

    def presents(self, expires: float) -> None:
        """Clients are shown a certificate that is good until then, in seconds since the epoch."""
        self._own.certificate_expires = expires

    # -- several processes ---------------------------------------------------------------------

    def changes(self) -> dict[str, Any]:
        """What was counted since the last time, and what is so now, as JSON has it."""
        counts = []
        for cell in self._cells.values():
            if (count := cell.count) != cell.told:
                counts.append([*cell.key, count - cell.told])
                cell.told = count
        signed, verified = self._names_told
        self._names_told = len(self._signed), len(self._verified)
        own = self._own
        return {
            "counts": counts,
            "latency": self.latency.changes(),
            "signed": list(islice(self._signed, signed, None)),
            "verified": list(islice(self._verified, verified, None)),
            "keyring_version": own.keyring_version,
            "keyring_refused": own.keyring_refused,
            "behind": sorted(own.behind),
            "seen": own.seen,
            "connections": self.connections(),
            "certificate_expires": own.certificate_expires,
        }

    def add(self, worker: int, changes: Mapping[str, Any]) -> None:
        """Add what another process gave out. Workers are numbered from 1."""
        for name, *labels, count in changes["counts"]:
            if name == _DENIALS:
                labels[0] = self._destinations.take(labels[0])
            self._cell(name, *labels).count += count
        self.latency.add(*changes["latency"])
        self._signed.update(dict.fromkeys(changes["signed"]))
        self._verified.update(dict.fromkeys(changes["verified"]))
        self._states[worker] = _State(
            changes["keyring_version"],
            changes["keyring_refused"],
            set(changes["behind"]),
            changes["seen"],
            changes["connections"],
            changes["certificate_expires"],
        )

    def forget(self, worker: int) -> None:
        """A process is gone. What it counted has happened; what was so there is no more."""
        self._states.pop(worker, None)

    # -- what is exported ----------------------------------------------------------------------

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Family]:
        """All metrics. May be called from any thread."""
        families = {
            name: CounterMetricFamily(name, text, labels=labels)
            for name, (text, labels) in _COUNTERS.items()
        }
        for cell in list(self._cells.values()):
            name, *labels = cell.key
            families[name].add_metric(labels, cell.count)
        yield from families.values()
        yield self.latency.family()
        yield from self._gauges(list(self._states.values()))
        yield from self._unverified()
        yield from processes.families(self.processes())
        about = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("authz_build", "Which program this is; always 1.", about)

    def _gauges(self, states: list[_State]) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "authz_keyring_version",
            "Version of the keyring in use, as the key store counts it; the oldest of all workers.",
            value=min((state.keyring_version for state in states), default=0),
        )
        yield GaugeMetricFamily(
            "authz_keyring_refused",
            "1 while the stored keyring takes back what the one in use has settled, and is not "
            "used; the same if it is so in any worker.",
            value=any(state.keyring_refused for state in states),
        )
        reloads = GaugeMetricFamily(
            "authz_last_reload_successful",
            "0 while the newest version is bad or cannot be read, and an older one stays in use; "
            "0 if it is so in any worker, else 1.",
            labels=["what"],
        )
        for what in series.RELOADED:
            reloads.add_metric([what], not any(what in state.behind for state in states))
        yield reloads
        age = GaugeMetricFamily(
            "authz_age_seconds",
            "Seconds since the key store was last reached, or the policy (with policy_from_cluster "
            "also the cluster) last seen to hold what is in use; the longest of all workers'.",
            labels=["what"],
        )
        now = self._clock()
        for what in series.AGING:
            seen = min((state.seen.get(what, -inf) for state in states), default=-inf)
            age.add_metric([what], now - seen)
        yield age
        expires = GaugeMetricFamily(
            "authz_certificate_expires_seconds",
            "Seconds until our certificate expires; the fewest of all workers'.",
        )
        known = [it.certificate_expires for it in states if it.certificate_expires is not None]
        if known:
            expires.add_metric([], min(known) - now)
        yield expires
        own = self.connections()
        yield GaugeMetricFamily(
            "authz_connections",
            "Connections that are open.",
            value=own + sum(state.connections for state in states),
        )
        yield GaugeMetricFamily("authz_workers", "Processes that answer Checks.", value=len(states))

    def _unverified(self) -> Iterator[GaugeMetricFamily]:
        """Namespaces that sign but never verify: their pods let everybody in.

        One whose pods call on this node and are called on another asks two servers, so each also
        says whom it saw verify: who reads all of them can tell.
        """
        verified = sorted(self._verified)
        unverified = sorted(set(self._signed).difference(verified))
        yield GaugeMetricFamily(
            "authz_unverified_namespaces",
            "How many namespaces have asked to sign and never to verify.",
            value=len(unverified),
        )
        listed = GaugeMetricFamily(
            "authz_namespace_unverified",
            f"1 for each such namespace; the first {MAX_LISTED}.",
            labels=["namespace"],
        )
        for namespace in unverified[:MAX_LISTED]:
            listed.add_metric([namespace], 1)
        yield listed
        yield GaugeMetricFamily(
            "authz_verified_namespaces",
            "How many namespaces have asked to verify.",
            value=len(verified),
        )
        listed = GaugeMetricFamily(
            "authz_namespace_verified",
            f"1 for each such namespace; the first {MAX_LISTED}.",
            labels=["namespace"],
        )
        for namespace in verified[:MAX_LISTED]:
            listed.add_metric([namespace], 1)
        yield listed

    # -- series --------------------------------------------------------------------------------

    @property
    def _own(self) -> _State:
        return self._states.setdefault(_OWN, _State())

    def _cell(self, *key: str) -> _Cell:
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell(key)
        return cell

    def _count_denial(self, event: DecisionEvent, outcome: str) -> None:
        proven = event.question is Question.VERIFY or event.question is Question.TCP
        label = self._destinations.label(event.verdict.parties.destination, proven=proven)
        self._cell(_DENIALS, label, outcome).count += 1

    def _cell_of(self, event: DecisionEvent) -> _Cell:
        """The series that a decision belongs to."""
        question, verdict = event.question, event.verdict
        if isinstance(verdict, Deny):
            cell = self._cell(_CHECKS, _name(question), "deny", verdict.reason.slug)
            # Another mesh's namespace may have the name of one of ours.
            trusted = verdict.reason is not Reason.CALLER_UNTRUSTED
            cell.names = self._verified if trusted and question is Question.VERIFY else None
            return cell
        if verdict.would_deny is not None:
            return self._allows(question, "shadow", verdict.would_deny)
        return self._allows(question, "allow", verdict.ground)

    def _allows(self, question: Question | None, outcome: str, reason: Ground | Reason) -> _Cell:
        cell = self._cell(_CHECKS, _name(question), outcome, reason.slug)
        if question is Question.VERIFY:
            cell.names = self._verified
        elif question is Question.SIGN and reason is Ground.SIGNED:
            cell.names = self._signed
        return cell


def _name(question: Question | None) -> str:
    return series.UNKNOWN if question is None else question.value
