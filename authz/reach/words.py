"""Rows in words, for tables, and as JSON."""

import datetime as dt
from collections.abc import Iterable, Iterator
from math import isinf
from typing import Any, Final

from authz.domain.names import PUBLIC, Namespace
from authz.domain.policy import Exemption
from authz.reach.groups import Among, Group
from authz.reach.lines import Line, Some
from authz.reach.matrix import Matrix
from authz.reach.rows import Groups, Row
from authz.reach.ways import Way

_FEW: Final = 3
_IN_A_ROW: Final = 20
"""Names in one row of a table that has all."""
MOST_NAMES: Final = 6
"""What somebody who looks at a cell of a table wants to see of many."""
OUTSIDE: Final = str(PUBLIC)
EVERYBODY_ELSE: Final = "every namespace not named"


class Words:
    """Names groups of one matrix: all their namespaces, or no more than `most` at a place."""

    def __init__(self, matrix: Matrix, most: int | None = None) -> None:
        self._most = most
        self._all = frozenset(matrix.groups)
        self._number = {group: number for number, group in enumerate(matrix.groups)}
        self._policies = [said.policy for said in matrix.pairs.said]

    def groups(self, groups: Iterable[Group]) -> str:
        """Their namespaces."""
        return listed(self._names(groups), self._most)

    def ends(self, row: Row[Any]) -> Iterator[tuple[str, str]]:
        """From whom, and to whom: once, or so often that each has a few names.

        From outside, a request comes by somebody's routes.
        """
        source = self._source(row)
        if Way.OUTSIDE in row.line.ways:
            itself = row.among is Among.ITSELF
            source = OUTSIDE if itself else f"{OUTSIDE}, by routes of {source}"
        names = self._tenants(row.to) if row.within else self._names(row.to)
        if self._most is not None:
            yield source, listed(names, self._most)
            return
        step = _IN_A_ROW // 5 if row.within else _IN_A_ROW
        for start in range(0, len(names), step):
            yield source, ", ".join(names[start : start + step])

    def _source(self, row: Row[Any]) -> str:
        if row.among is Among.ITSELF:
            return "itself"
        if row.within:
            return "its own tenant"
        if row.sources is None:
            but = f", but {self.groups(row.but)}" if row.but else ""
            return f"any other namespace{but}"
        return self.groups(row.sources)

    def _names(self, groups: Iterable[Group]) -> list[str]:
        groups = list(groups)
        left = self._all.difference(groups)
        if not left:
            return ["every namespace"]
        if any(it.unnamed for it in groups) and sum(len(it.members) for it in left) <= _FEW:
            return [f"every namespace but {self.groups(left)}"]
        names = sorted(name for it in groups if not it.unnamed for name in it.members)
        others = [EVERYBODY_ELSE] if any(it.unnamed for it in groups) else []
        return [*names, *others]

    def _tenants(self, groups: Iterable[Group]) -> list[str]:
        """Their tenants and who is in them, for what is so within each."""
        known: dict[str, list[str]] = {}
        for name in sorted(name for it in groups for name in it.members):
            known.setdefault(self._tenant(name), []).append(name)
        step = _IN_A_ROW if self._most is None else max(map(len, known.values()), default=1)
        return [
            f"{tenant} ({listed(names[start : start + step], self._most)})"
            for tenant, names in sorted(known.items())
            for start in range(0, len(names), step)
        ]

    def _tenant(self, name: Namespace) -> str:
        """By the last of the policies that has it in one."""
        said = (policy.of(name).tenant for policy in reversed(self._policies))
        return next((tenant for tenant in said if tenant is not None), name)

    def numbers(self, groups: Groups | None) -> list[int] | None:
        """Groups in JSON: their numbers in `described`."""
        return None if groups is None else sorted(self._number[it] for it in groups)

    def described(self) -> list[dict[str, Any]]:
        """All groups, and what the last of the policies says of each."""
        policy = self._policies[-1]
        found = []
        for group, number in self._number.items():
            names = group.members
            public = policy.accepts_public(names[0])
            found.append(
                {
                    "id": number,
                    "namespaces": None if group.unnamed else names,
                    "tenants": sorted({policy.of(it).tenant or it for it in names})
                    if not group.unnamed
                    else None,
                    "mode": policy.mode_of(names[0]).value,
                    "public": public if isinstance(public, bool) else sorted(public),
                    "plaintext_peers": policy.of(names[0]).plaintext_peers,
                }
            )
        return found


def listed(names: list[str], most: int | None) -> str:
    """Names, or the first of them and how many more."""
    if most is None or len(names) <= most + 1:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most:,} more"


def as_columns(line: Line[Any]) -> dict[str, str]:
    """What is asked for, in a table's columns."""
    ports = "" if line.ports.is_all else str(line.ports)
    if line.services is not None and not line.services.is_all:
        ports = f"Service {line.services}"
    return {
        "by": ", ".join(line.ways),
        "account": "" if line.accounts.is_all else str(line.accounts),
        "port": ports + (f" {like(line.exemption)}" if line.exemption else ""),
    }


def like(exemption: Exemption) -> str:
    """What an exemption asks of a request, but for its port."""
    words = {
        "": exemption.path,
        "User-Agent ": exemption.user_agent,
        "K-Network-Probe ": exemption.network_probe,
    }
    return ", ".join(f"{name}{value}" for name, value in words.items() if value is not None)


def day(until: float) -> str | None:
    """The last day on which something counts, as policies write it."""
    if isinf(until):
        return None
    return dt.datetime.fromtimestamp(until - 1, dt.UTC).date().isoformat()


def plain(line: Line[Any]) -> dict[str, Any]:
    """What is asked for. `null`: any; a list: these; `all_but`: any but these."""
    return {
        "ways": [way.value for way in line.ways],
        "service_accounts": _some(line.accounts),
        "ports": _some(line.ports),
        **({"services": _some(line.services)} if line.services else {}),
        **({"exemption": like(line.exemption)} if line.exemption else {}),
    }


def _some(some: Some[Any]) -> Any:
    if some.is_all:
        return None
    return {"all_but": list(some.named)} if some.all_but else list(some.named)
