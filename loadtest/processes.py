"""What processes use: CPU to the nanosecond, memory, and who belongs together."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final, NamedTuple

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
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
