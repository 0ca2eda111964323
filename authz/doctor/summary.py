"""What was found in all that was looked at, for people and machines."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from authz.doctor.collect import Source
from authz.doctor.dump import CannotRead, Workload, read_dump
from authz.doctor.examine import examine
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule


@contextmanager
def _without_collector() -> Iterator[None]:
    """Read a dump without the collector of cycles: half of all time goes into it, for nothing.

    A dump is some hundred thousand objects without a cycle, and gone after it was examined.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Gone(CannotRead):
    """The pod has ended since it was listed."""


class Examined(NamedTuple):
    """A proxy that was examined."""

    workload: str
    kind: str
    """`sidecar` or `gateway`."""
    istio: str
    """The version of its Istio, as its agent says."""
    revision: str
    """That of the control plane to which it belongs; empty where no cluster was asked."""


class Accepted(NamedTuple):
    """Findings that are known: not told."""

    rule: Rule
    workload: str
    """A pattern as of a shell: `NAMESPACE/POD`, `NAMESPACE/*`, `*`."""

    def fits(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        return finding.rule is self.rule and fnmatchcase(finding.workload, self.workload)


@dataclass
class Report:
    """What was found."""

    proxies: list[Examined] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """What could not be looked at though it should be, and why."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Pods of which no dump is wanted, and why."""
    notes: list[str] = field(default_factory=list)
    """What is no hole and good to know."""

    def look(
        self, source: Source, expected: Expected, *, pod: str = "", revision: str = ""
    ) -> Workload | None:
        """Examine one proxy; `pod` is whose it must be, where that is known."""
        try:
            text = source.read()
            with _without_collector():
                workload = read_dump(text, source.name, pod=pod)
                self.findings += examine(workload, expected)
        except Gone as error:
            self.skipped[source.name] = str(error).removeprefix(f"{source.name}: ")
            return None
        except CannotRead as error:
            self.unreadable.append(str(error))
            return None
        proxy = workload.proxy
        self.proxies.append(Examined(workload.name, proxy.kind, proxy.istio_version, revision))
        return workload

    def without(self, accepted: Iterable[Accepted]) -> None:
        """Leave out what is known, sort the rest."""
        known = [*accepted]
        found = dict.fromkeys(self.findings)  # what a pod says, and the API server of it
        told = [it for it in found if not any(one.fits(it) for one in known)]
        self.findings = sorted(told, key=lambda it: (it.workload, it.where, it.what))

    @property
    def versions(self) -> dict[str, int]:
        """How many proxies are of which version of Istio."""
        return dict(sorted(Counter(it.istio for it in self.proxies).items()))

    @property
    def revisions(self) -> dict[str, int]:
        """How many proxies are of which revision."""
        return dict(sorted(Counter(it.revision for it in self.proxies if it.revision).items()))

    def row(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "examined": [it.workload for it in self.proxies],
            "unreadable": self.unreadable,
            "skipped": self.skipped,
            "notes": self.notes,
            "versions": self.versions,
            "revisions": self.revisions,
            "findings": [finding.row() for finding in self.findings],
        }
