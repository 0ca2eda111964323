"""What our processes use: processor, memory, open files. As Linux tells, under the usual names.

Each process has series of its own, for a sum would fall when a worker ends, and one busy worker is
one whose connections wait.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector

_COUNTERS: Final = {"process_cpu_seconds": "Seconds of the processor, user's and system's."}
_GAUGES: Final = {
    "process_resident_memory_bytes": "Resident memory in bytes; what workers share, each counts.",
    "process_open_fds": "Open file descriptors.",
    "process_max_fds": "Most file descriptors that the process may open.",
    "process_start_time_seconds": "When the process started, in seconds since the epoch.",
}


def families(
    processes: Mapping[int, int],
) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
    """Metrics of processes, given as their number and process id. One that is gone has none."""
    labels = ["worker"]
    made: dict[str, Any] = {
        name: CounterMetricFamily(name, text, labels=labels) for name, text in _COUNTERS.items()
    } | {name: GaugeMetricFamily(name, text, labels=labels) for name, text in _GAUGES.items()}
    for number, pid in processes.items():
        for family in ProcessCollector(pid=_always(pid), registry=None).collect():
            for sample in family.samples:
                if family.name in made:
                    made[family.name].add_metric([str(number)], sample.value)
    yield from made.values()


def _always(pid: int) -> Any:
    return lambda: pid
