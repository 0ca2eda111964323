"""Has a driver make the calls of the matrix, and says what came of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from authz.conformance.matrix import Call, Caller
from authz.errors import AuthzError
from authz.testing import LEAKED, Case, Outcome, Result

Json = dict[str, Any]


class CouldNotProve(AuthzError):
    """The tenants could not be made, or the calls not be made."""


class Tenants(Protocol):
    """Two tenants that are there."""

    async def names(self) -> Mapping[str, str]:
        """What `{a}`, `{b}`, `{a_plain}` and `{a_hello}` stand for in the matrix."""

    async def probe(self, caller: Caller, calls: Sequence[Json]) -> list[Json]:
        """Make calls as this caller; see `probe` for their form and that of what came.

        Raises:
            CouldNotProve: nobody could make them.
        """


Driver = AbstractAsyncContextManager[Tenants]
"""Makes the tenants, and takes them away at the end, whatever happened."""


async def play(driver: Driver, matrix: Sequence[Case[Call]]) -> list[Result[Call]]:
    """Play all cases, in the order of the matrix.

    Raises:
        CouldNotProve: the tenants or a caller could not be made.
    """
    results: dict[int, Outcome] = {}
    async with driver as tenants:
        names = await tenants.names()
        for caller in dict.fromkeys(case.call.caller for case in matrix):
            calls = {n: it.call for n, it in enumerate(matrix) if it.call.caller == caller}
            came = await tenants.probe(caller, [_written(call, names) for call in calls.values()])
            if len(came) != len(calls):
                raise CouldNotProve(f"caller {caller}: {len(came)} of {len(calls)} calls were made")
            results |= dict(zip(calls, map(outcome, came), strict=True))
    return [Result(case, results[number]) for number, case in enumerate(matrix)]


def outcome(came: Json) -> Outcome:
    """What came of a call, of what the probe says."""
    status = came.get("status", 0)
    who = came.get("reason") if status else came.get("error")
    return Outcome.of(status, who or "", *[LEAKED] * bool(came.get("token")))


def _written(call: Call, names: Mapping[str, str]) -> Json:
    """A call as the probe takes it."""
    written: Json = {"url": call.url.format_map(names)}
    if call.host:
        written["host"] = call.host.format_map(names)
    if call.headers:
        written["headers"] = [[name, value.format_map(names)] for name, value in call.headers]
    return written
