"""Has a driver make the calls of the matrix, and says what came of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from authz.conformance.matrix import Caller, Must, Row
from authz.errors import AuthzError

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


@dataclass(frozen=True)
class Outcome:
    """What came of one row."""

    row: Row
    came: Json

    @property
    def as_expected(self) -> bool:
        """Whether it was what must be."""
        status, token = self.came.get("status", 0), self.came.get("token", False)
        match self.row.must:
            case Must.ALLOWED:
                return 200 <= status < 300 and not token
            case Must.DENIED:
                return status == 403 and bool(self.came.get("reason"))
            case Must.KEPT_OUT:
                return not 200 <= status < 300

    def told(self) -> Json:
        """As the command line prints it."""
        status = self.came.get("status") or "no answer"
        about = [self.came.get("reason"), self.came.get("error")]
        about += ["the app saw a token"] if self.came.get("token") else []
        came = " ".join(str(it) for it in (status, *about) if it)
        return {
            "": "ok" if self.as_expected else "DIFFERENT",
            "caller": self.row.caller,
            "call": self.row.name,
            "must_be": self.row.must.value,
            "came": came,
        }


async def play(driver: Driver, matrix: Sequence[Row]) -> list[Outcome]:
    """Play all rows, in the order of the matrix.

    Raises:
        CouldNotProve: the tenants or a caller could not be made.
    """
    results: dict[int, Json] = {}
    async with driver as tenants:
        names = await tenants.names()
        for caller in dict.fromkeys(row.caller for row in matrix):
            rows = [(number, row) for number, row in enumerate(matrix) if row.caller == caller]
            came = await tenants.probe(caller, [_call(row, names) for _, row in rows])
            if len(came) != len(rows):
                raise CouldNotProve(f"caller {caller}: {len(came)} of {len(rows)} calls were made")
            results |= {number: one for (number, _), one in zip(rows, came, strict=True)}
    return [Outcome(row, results[number]) for number, row in enumerate(matrix)]


def _call(row: Row, names: Mapping[str, str]) -> Json:
    call: Json = {"url": row.url.format_map(names)}
    if row.host:
        call["host"] = row.host.format_map(names)
    if row.headers:
        call["headers"] = [[name, value.format_map(names)] for name, value in row.headers]
    return call
