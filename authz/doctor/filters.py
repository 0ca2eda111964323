"""Are our filters in each listener and chain, in the right place, and are they the right ones?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from authz.doctor.dump import MANAGER, Json, Workload, port_of
from authz.doctor.expected import Expected
from authz.doctor.fields import differences
from authz.doctor.finding import Finding, Rule
from authz.doctor.listeners import labelled

_MISSING: Final = {
    "tenant-authz.sign": Rule.SIGN_MISSING,
    "tenant-authz.verify": Rule.VERIFY_MISSING,
    "tenant-authz.tcp": Rule.TCP_MISSING,
    "tenant-authz.strip": Rule.STRIP_MISSING,
    "tenant-authz.transit": Rule.TRANSIT_MISSING,
    "tenant-authz.public": Rule.PUBLIC_MISSING,
    "tenant-authz.scrape": Rule.SCRAPE_MISSING,
    "tenant-authz.carry": Rule.CARRY_MISSING,
}


def filters(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """What is wrong with the filters.

    Raises:
        CannotRead: the patches do not fit these listeners.
    """
    wanted = expected.listeners(workload)
    covered = expected.listeners(workload, removals=False)
    for found, want, cover in zip(workload.listeners, wanted, covered, strict=True):
        sidecar = workload.proxy.kind == "sidecar"
        if sidecar and "traffic_direction" not in found:
            what = "this listener is not istiod's: no filter of ours is ever put in"
            where = f"listener {found['name'] or port_of(found)}"
            yield Finding(workload.name, where, what, Rule.UNCOVERED)
            continue
        triples = zip(labelled(found), labelled(want), labelled(cover), strict=True)
        for (label, chain), (_, want_chain), (_, cover_chain) in triples:
            checking = _Chain(
                workload, expected, f"listener {found['name'] or port_of(found)}, {label}"
            )
            yield from checking.compared(chain, want_chain)
            if not sidecar:
                yield from checking.at_gateway(want_chain, port_of(found))
            elif found["traffic_direction"] == "INBOUND":
                yield from checking.arriving(chain, want_chain, cover_chain)
            elif _manages(chain) and not expected.asking & _names(cover_chain):
                what = "HTTP leaves here without a filter that could sign it"
                yield checking.finding(Rule.UNCOVERED, what)


def _manages(chain: Json) -> bool:
    return any(it.get("name") == MANAGER for it in chain.get("filters", ()))


def _lists(chain: Json) -> Iterator[list[Json]]:
    """The network filters, and the HTTP filters of each that manages HTTP."""
    network = chain.get("filters", [])
    yield network
    for it in network:
        if it.get("name") == MANAGER:
            yield it.get("typed_config", {}).get("http_filters", [])


def _names(chain: Json) -> frozenset[str]:
    return frozenset(it.get("name", "") for several in _lists(chain) for it in several)


class _Chain:
    """One filter chain under examination."""

    def __init__(self, workload: Workload, expected: Expected, where: str) -> None:
        self._workload = workload
        self._expected = expected
        self._where = where

    def finding(self, rule: Rule, what: str) -> Finding:
        return Finding(self._workload.name, self._where, what, rule)

    def compared(self, chain: Json, want: Json) -> Iterator[Finding]:
        """Differences between what is there and what istiod would make of it now."""
        for found_list, want_list in zip(_lists(chain), _lists(want), strict=False):
            yield from self._presence(found_list, want_list)
            for found, wanted in _pairs(found_list, want_list):
                if found.get("name") == MANAGER:
                    continue
                bare = {k: v for k, v in found.items() if k != "config_discovery"}  # see `http`
                for rule, fields in differences(bare, wanted):
                    yield self.finding(rule, f"{found['name']}: {'; '.join(fields)}")

    def _presence(self, found: list[Json], want: list[Json]) -> Iterator[Finding]:
        ours = self._expected.ours
        names, wanted = [it.get("name", "") for it in found], [it.get("name", "") for it in want]
        for name in dict.fromkeys(it for it in wanted if it in ours and it not in names):
            source = self._expected.source(name, self._workload.proxy)
            what = f"{name} is not there; EnvoyFilter {source} should have put it in"
            yield self.finding(_MISSING.get(name, Rule.FILTER_MISSING), what)
        for name in dict.fromkeys(it for it in names if it in ours):
            if name not in wanted:
                yield self.finding(Rule.UNEXPECTED, f"{name} must not be here")
            elif names.count(name) > wanted.count(name):
                what = f"{name} is there {names.count(name)} times"
                yield self.finding(Rule.REPEATED, what)
        order = list(dict.fromkeys(it for it in wanted if it in names))
        actual = list(dict.fromkeys(it for it in names if it in wanted))
        if order != actual:
            what = f"the order is {', '.join(actual)}; must be {', '.join(order)}"
            yield self.finding(Rule.ORDER, what)

    def arriving(self, chain: Json, want: Json, cover: Json) -> Iterator[Finding]:
        """Whether somebody is asked about what arrives here, or must not be, on purpose."""
        if not self._expected.asking & (_names(want) | _names(cover)):
            kinds = ", ".join(it.get("name", "?") for it in chain.get("filters", ())) or "none"
            what = f"its filters, {kinds}, give ours nothing to hold on to"
            yield self.finding(Rule.UNCOVERED, what)

    def at_gateway(self, want: Json, port: int) -> Iterator[Finding]:
        """Whether each HTTP port of our gateway asks one question, the local one of known peers."""
        names = _names(want)
        if names & self._expected.ours and not names & self._expected.asking:
            what = f"port {port} is asked about neither as public nor as the local gateway"
            yield self.finding(Rule.NOT_ASKED_PORT, what)
        socket = want.get("transport_socket", {}).get("typed_config", {})
        if "tenant-authz.transit" in names and not socket.get("require_client_certificate"):
            what = f"port {port} takes callers without a certificate of the mesh"
            yield self.finding(Rule.GATEWAY_PLAINTEXT, what)


def _pairs(found: list[Json], want: list[Json]) -> Iterator[tuple[Json, Json]]:
    """Filters of one name, the first with the first and so on."""
    left = list(want)
    for it in found:
        same = next((one for one in left if one.get("name") == it.get("name")), None)
        if same is not None:
            left.remove(same)
            yield it, same
