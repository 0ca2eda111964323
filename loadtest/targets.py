"""`targets`: what the project holds itself to, each with a run that measures it.

All runs are repeated in turn, so that a noisy minute touches all of them alike; what counts is the
median. Ratios are of medians.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from authz.config import IdentitySource, Transport
from loadtest.bench import Measured, measured
from loadtest.hotpath import Tell
from loadtest.plan import Ask, Plan
from loadtest.result import Spread, spreads
from loadtest.stack import Server, Setup, Stack, has_workers

_VERIFY: Final = Plan(ask=Ask.VERIFY)
_SIGN: Final = Plan(ask=Ask.SIGN)
# Ten callers fit into a connection's header table, so only what is kept for namespaces differs.
_SPREAD: Final = Plan(ask=Ask.BOTH, connections=1000, callers=10, in_flight=20)
_MIXED: Final = Plan(ask=Ask.BOTH, connections=32)

PLANS: Final[Mapping[str, Plan]] = {
    "verify": _VERIFY,
    "sign": _SIGN,
    "verify, mTLS": replace(_VERIFY, identity=IdentitySource.MTLS),
    "sign, mTLS": replace(_SIGN, identity=IdentitySource.MTLS),
    "verify, traceparent": replace(_VERIFY, traceparent=True),
    "sign, 8 destinations, traceparent": replace(_SIGN, destinations=8, traceparent=True),
    "verify, 4 connections": replace(_VERIFY, connections=4),
    "verify, 1 in flight": replace(_VERIFY, in_flight=1),
    "sign, 1 in flight": replace(_SIGN, in_flight=1),
    "verify, first sight": replace(_VERIFY, first_sight=True),
    "sign, first sight": replace(_SIGN, first_sight=True),
    "10 namespaces": replace(_SPREAD, namespaces=10),
    "10,000 namespaces": replace(_SPREAD, namespaces=10_000),
    "10,000 namespaces, 32 connections": replace(_MIXED, namespaces=10_000),
    "1 worker": replace(_VERIFY, connections=32),
    "2 workers": replace(_VERIFY, connections=32),
}
_ON_BOTH: Final = (
    "verify", "sign", "verify, mTLS", "sign, mTLS", "verify, traceparent",
    "sign, 8 destinations, traceparent", "verify, 1 in flight", "sign, 1 in flight",
)  # fmt: skip
_IDLE: Final = Plan(
    identity=IdentitySource.MTLS, connections=1000, in_flight=1, seconds=0, warmup=0
)
_IDLE_NAME: Final = "idle connections"
_IDLE_IDENTITIES: Final = 100

_KB, _MB = 1e3, 1e6
_SPREAD_NAMESPACES: Final = 10_000

Runs: TypeAlias = dict[tuple[str, str], list[Measured]]
"""By plan and transport."""


@dataclass(frozen=True, slots=True)
class Row:
    """A target, and what was measured. `met` is `None` where there is nothing to meet."""

    what: str
    target: str
    measured: str
    met: bool | None


async def measure(stack: Stack, *, repeat: int, seconds: float, tell: Tell) -> Runs:
    """Do all runs.

    Raises:
        CouldNotStart: a process failed.
    """
    runs: Runs = {}
    async with AsyncExitStack() as servers:
        running: dict[Setup, Server] = {}
        jobs = list(_jobs())
        for number in range(repeat):
            for step, (name, setup, plan) in enumerate(jobs, start=1):
                if number and name == _IDLE_NAME:
                    continue  # a server that had them once finds memory to reuse
                if setup not in running:
                    running[setup] = await servers.enter_async_context(stack.serving(setup))
                timed = replace(plan, seconds=min(plan.seconds, seconds))
                run = await measured(stack, running[setup], timed)
                runs.setdefault((name, setup.transport.value), []).append(run)
                place = f"{number + 1}/{repeat} {step}/{len(jobs)}"
                cost = f"{run.cpu_us:.1f} us CPU per Check" if run.checks else "measured"
                tell(f"{place} {setup.transport}, {name}: {cost}")
    return runs


def steps() -> int:
    """How many runs a repeat has."""
    return len([*_jobs()])


def rows(runs: Runs) -> list[Row]:
    """The table."""
    return [*_costs(runs), *_speeds(runs), *_firsts(runs), *_sizes(runs), *_workers(runs)]


def markdown(made: Iterable[Row]) -> str:
    """The table, as loadtest/README.md has it."""
    signs = {True: "yes", False: "**no**", None: ""}
    lines = ["| what | target | measured | met |", "|---|---|---|---|"]
    lines += [f"| {row.what} | {row.target} | {row.measured} | {signs[row.met]} |" for row in made]
    return "\n".join(lines)


def _jobs() -> Iterator[tuple[str, Setup, Plan]]:
    for name, plan in PLANS.items():
        # Each size of policy, and each number of workers, is a server of its own.
        setup = Setup(identity=plan.identity)
        if plan.callers or plan.namespaces > 1:
            kept_apart = "" if plan.callers else name  # or each would find the other's memory
            setup = replace(setup, namespaces=_SPREAD_NAMESPACES, name=kept_apart)
        if name == "2 workers":
            if not has_workers():
                continue
            setup = replace(setup, workers=2)
        yield name, setup, plan
        if name in _ON_BOTH:
            yield name, replace(setup, transport=Transport.GRPCIO), plan
    idle = replace(_IDLE, namespaces=_IDLE_IDENTITIES)
    yield _IDLE_NAME, Setup(identity=IdentitySource.MTLS, namespaces=_IDLE_IDENTITIES), idle


def _costs(runs: Runs) -> Iterator[Row]:
    def cost(name: str, what: str, most: float, ratio: float | None = None) -> Row:
        ours, theirs = (_of(runs, name, "cpu_us", transport) for transport in Transport)
        times = theirs.median / ours.median
        target = f"≤ {most:g} µs" + ("" if ratio is None else f", ≤ 1/{ratio:g} of grpcio")
        met = ours.median <= most and (ratio is None or times >= ratio)
        return Row(what, target, f"{ours} µs; grpcio {theirs} µs: 1/{times:.0f}", met)

    for ask in ("verify", "sign"):
        what = f"CPU per Check, {ask}, warm, 32 in flight, plaintext"
        yield cost(ask, what, 25, 12)
    for ask in ("verify", "sign"):
        yield cost(f"{ask}, mTLS", f"the same, {ask}, mTLS, one connection", 30)
    yield cost(
        "sign, 8 destinations, traceparent",
        "8 destinations in turn, a traceparent that changes on every call, sign",
        45,
    )
    yield cost("verify, traceparent", "a traceparent that changes on every call, verify", 45)


def _speeds(runs: Runs) -> Iterator[Row]:
    for name, what in (
        ("verify", "Checks per second, one core, 32 in flight, one connection"),
        ("verify, 4 connections", "the same, 32 in flight on each of 4 connections"),
    ):
        rate = _of(runs, name, "checks_per_second")
        yield Row(what, "≥ 30,000", str(rate), rate.median >= 30_000)
    for ask in ("verify", "sign"):
        ours, theirs = (
            _of(runs, f"{ask}, 1 in flight", "p50_us", transport) for transport in Transport
        )
        share = ours.median / theirs.median
        yield Row(
            f"p50, one in flight, {ask}",
            "≤ 1/2 of grpcio",
            f"{ours} µs; grpcio {theirs} µs: {share:.2f}",
            share <= 0.5,
        )


def _firsts(runs: Runs) -> Iterator[Row]:
    for ask, what in (("sign", "sign for a new pair"), ("verify", "verify of an unseen token")):
        first, warm = (_of(runs, name, "cpu_us") for name in (f"{ask}, first sight", ask))
        over = first.median - warm.median
        yield Row(
            f"first sight: {what}",
            "≤ 60 µs over warm",
            f"{over:.0f} µs over warm: {first} µs",
            over <= 60,
        )


def _sizes(runs: Runs) -> Iterator[Row]:
    few, many = (_of(runs, name, "cpu_us") for name in ("10 namespaces", "10,000 namespaces"))
    ratio = many.median / few.median
    yield Row(
        "traffic of 10,000 namespaces against 10, warm, 1,000 connections",
        "CPU ratio ≤ 1.2",
        f"{ratio:.2f}: {many} µs; {few} µs",
        ratio <= 1.2,
    )
    last = runs["10,000 namespaces", Transport.HTTP2.value]
    memory = Spread.of([run.resident_after / _MB for run in last])
    yield Row("memory then", "RSS ≤ 150 MB", f"{memory} MB", memory.most <= 150)
    mixed = _of(runs, "10,000 namespaces, 32 connections", "cpu_us")
    yield Row(
        "the same traffic over 32 connections, a caller after the other on each",
        "report",
        f"{mixed} µs",
        None,
    )
    idle = Spread.of(
        [
            (run.resident_warm - run.resident_before) / run.plan.connections / _KB
            for run in runs[_IDLE_NAME, Transport.HTTP2.value]
        ]
    )
    yield Row("memory per idle mTLS connection", "≤ 60 KB", f"{idle} KB", idle.most <= 60)


def _workers(runs: Runs) -> Iterator[Row]:
    for name in ("1 worker", "2 workers"):
        if (name, Transport.HTTP2.value) in runs:
            rate, cost = (_of(runs, name, figure) for figure in ("checks_per_second", "cpu_us"))
            text = f"{rate} Checks/s, {cost} µs CPU per Check"
            yield Row(f"{name}, 32 connections of 32 in flight", "report", text, None)


def _of(runs: Runs, name: str, figure: str, transport: Transport = Transport.HTTP2) -> Spread:
    return spreads(runs[name, transport.value])[figure]
