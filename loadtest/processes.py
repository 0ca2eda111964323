"""What processes use: CPU to the nanosecond, memory, and who belongs together."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_LISTEN: Final = "0A"
_CPU_CLOCK: Final = 2  # CPUCLOCK_SCHED: what clock_getcpuclockid(3) makes of a process


class Cpu(NamedTuple):
    """CPU seconds since a process began. `total` is exact, the rest in ticks of the clock."""

    total: float
    user: float
    system: float

    def since(self, earlier: Cpu) -> Cpu:
        """What was used in between."""
        return Cpu(*(now - then for now, then in zip(self, earlier, strict=True)))


def family(pid: int) -> frozenset[int]:
    """A process and all that it started, and those started, as far as they live."""
    parents = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
            except OSError:  # it has just ended
                continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return frozenset(found)


def listening(port: int) -> frozenset[int]:
    """Who listens on a TCP port of this machine, with families; none if that cannot be seen."""
    sockets = {
        f"socket:[{fields[9]}]"
        for table in ("tcp", "tcp6")
        for fields in map(str.split, (_PROC / "net" / table).read_text().splitlines()[1:])
        if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port
    }
    found: set[int] = set()
    for entry in _PROC.glob("[0-9]*/fd/*"):
        try:
            if os.readlink(entry) in sockets:  # noqa: PTH115 - it is no path
                found.add(int(entry.parts[2]))
        except OSError:  # it has just ended, or is not ours to see
            continue
    return frozenset[int]().union(*map(family, found))


def cpu(pids: frozenset[int]) -> Cpu:
    """What they have used.

    Raises:
        OSError: one has ended.
    """
    total = user = system = 0.0
    for pid in pids:
        total += time.clock_gettime(~pid << 3 | _CPU_CLOCK)
        stat = _stat(pid)
        user += int(stat[11]) / _TICKS
        system += int(stat[12]) / _TICKS
    return Cpu(total, user, system)


def resident(pids: frozenset[int]) -> int:
    """Bytes of memory; pages that they share count for each.

    Raises:
        OSError: one has ended.
    """
    return sum(int((_PROC / str(pid) / "statm").read_text().split()[1]) for pid in pids) * _PAGE


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat that follow the name, which may hold anything."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
