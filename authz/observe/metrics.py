"""Metrics for Prometheus. The README's table says what each means."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from authz.errors import Reason
from authz.facts import Question
from authz.names import Namespace
from authz.observe.events import DecisionEvent
from authz.verdict import Allow, Deny, Ground

MAX_LISTED: Final = 1000
"""Most namespaces that get a series of their own."""


class Metrics:
    """Counts every decision; exports the age of what decisions are made by.

    `clock` is in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._checks = Counter(
            "authz_checks",
            "Questions answered, by question and by what was said.",
            ("question", "outcome", "reason"),
            registry=self.registry,
        )
        self._errors = Counter(
            "authz_unexpected_errors",
            "Unexpected errors; each was answered with a denial.",
            ("kind",),
            registry=self.registry,
        )
        self.reload_failures = Counter(
            "authz_reload_failures",
            "Bad new versions that were not taken; the last good one stays in use.",
            ("what",),
            registry=self.registry,
        )
        self.keyring_version = Gauge(
            "authz_keyring_version",
            "Version of the keyring in use, as the key store counts it.",
            registry=self.registry,
        )
        self._seen: dict[str, float] = {}
        self._clock = clock
        age = Gauge(
            "authz_age_seconds",
            "Seconds since the key store was last reached, or the policy last loaded.",
            ("what",),
            registry=self.registry,
        )
        for what in ("keyring", "policy"):
            age.labels(what).set_function(partial(self._age_of, what))
            self.reload_failures.labels(what)
        self._children: dict[tuple[Question | None, str, str], Counter] = {}
        self._unverified = _Unverified()
        self.registry.register(self._unverified)

    def decided(self, event: DecisionEvent) -> None:
        """Count a decision."""
        verdict = event.verdict
        if isinstance(verdict, Deny):
            outcome, reason = "deny", verdict.reason.slug
        elif verdict.would_deny is not None:
            outcome, reason = "shadow", verdict.would_deny.slug
        else:
            outcome, reason = "allow", verdict.ground.slug
        key = event.question, outcome, reason
        child = self._children.get(key)
        if child is None:  # binding labels costs several times what counting does
            question = event.question.value if event.question else "unknown"
            child = self._children[key] = self._checks.labels(question, outcome, reason)
        child.inc()
        self._unverified.note(event)

    def failed(self, error: Exception) -> None:
        """Count an unexpected error by its type."""
        self._errors.labels(type(error).__name__).inc()

    def fresh(self, what: str) -> None:
        """`keyring` or `policy` is known to be current as of now."""
        self._seen[what] = self._clock()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _age_of(self, what: str) -> float:
        seen = self._seen.get(what)
        return float("inf") if seen is None else self._clock() - seen


class _Unverified(Collector):
    """Namespaces that sign but never verify: their pods let everybody in."""

    def __init__(self) -> None:
        self._sign: set[Namespace] = set()
        self._verify: set[Namespace] = set()

    def note(self, event: DecisionEvent) -> None:
        caller, verdict = event.caller, event.verdict
        reason = verdict.reason if isinstance(verdict, Deny) else None
        ground = verdict.ground if isinstance(verdict, Allow) else None
        if caller is None or reason is Reason.CALLER_UNTRUSTED:
            return  # another mesh's namespace may have the name of one of ours
        if event.question is Question.VERIFY:
            self._verify.add(caller.namespace)
        elif event.question is Question.SIGN and ground is Ground.SIGNED:
            self._sign.add(caller.namespace)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        unverified = sorted(self._sign - self._verify)
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
