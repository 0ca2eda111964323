"""Which listeners a proxy should have, and what may stand before their filter chains.

Envoy: config.listener.v3 (listener.proto). istiod gives a sidecar one listener for all that arrives
(`virtualInbound`), one that iptables lead everything to that leaves (`virtualOutbound`), and one
for each port or address of Services, which is bound to nothing; a gateway has one for each port.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from authz.doctor import chains
from authz.doctor.bootstrap import agents_listener, is_agents_listener
from authz.doctor.dump import Json, Workload, port_of
from authz.doctor.expected import Expected, Known
from authz.doctor.finding import Finding, Rule
from authz.doctor.http import access_log
from authz.doctor.shape import Odd, Shape, harmless, kind_of, message, one_of

INBOUND: Final = "virtualInbound"
OUTBOUND: Final = "virtualOutbound"

_LIMITS: Final = harmless("it limits times, sizes and how many connections are taken at once")
_CHAINS: Final = harmless("each is checked on its own")
_PEEKS: Final = {"tls": "TlsInspector", "http": "HttpInspector"}
_PLAIN_ALPN: Final = frozenset({"http/1.1", "h2c"})


def listeners(workload: Workload, expected: Expected) -> Iterator[Finding]:
    """What of each listener is not as it should be, our own filters left aside."""
    known = expected.known(workload)
    for listener in workload.listeners:
        if (
            workload.proxy.kind == "sidecar"
            and "traffic_direction" not in listener
            and (not workload.is_static or not is_agents_listener(listener, workload))
        ):
            continue  # `filters` tells of it
        if (
            workload.is_static
            and is_agents_listener(listener, workload)
            and ("traffic_direction" not in listener)
        ):
            found = [("", it) for it in agents_listener(listener)]
        else:
            found = [*_examined(listener, workload, known)]
        for where, odd in found:
            yield Finding(workload.name, f"{_called(listener)}{where}", str(odd), odd.rule)
    for listener in workload.started_with:
        where = f"static {_called(listener)}"
        if not is_agents_listener(listener, workload):
            what = "it is neither istiod's nor the agent's: no filter of ours is ever put in"
            yield Finding(workload.name, where, what, Rule.LISTENER)
            continue
        for odd in agents_listener(listener):
            yield Finding(workload.name, where, str(odd), odd.rule)


def labelled(listener: Json) -> Iterator[tuple[str, Json]]:
    """Its filter chains, and how to call them."""
    for number, chain in enumerate(listener.get("filter_chains", ())):
        yield _label(chain, number), chain
    if "default_filter_chain" in listener:
        yield "default chain", listener["default_filter_chain"]


def _called(listener: Json) -> str:
    return f"listener {listener.get('name') or port_of(listener)}"


def _label(chain: Json, number: int) -> str:
    match = chain.get("filter_chain_match", {})
    port, transport = match.get("destination_port"), match.get("transport_protocol")
    alpn = "/".join(match.get("application_protocols", ()))
    about = [f"port {port}" if port else "", transport or "", alpn]
    said = " ".join(it for it in about if it)
    name = chain.get("name") or f"chain {number}"
    return f"{name} ({said})" if said else str(name)


def _examined(listener: Json, workload: Workload, known: Known) -> Iterator[tuple[str, Odd]]:
    """What is odd, and in which chain."""
    transparent = workload.metadata.get("INTERCEPTION_MODE") == "TPROXY"
    gateway = workload.proxy.kind == "gateway"
    inbound = listener.get("traffic_direction") == "INBOUND"
    shape = _shape(known, listener.get("name", ""), inbound, gateway, transparent)
    for odd in (*shape(listener, ""), *_before(listener, inbound, transparent)):
        yield "", odd
    seen = []
    for label, chain in labelled(listener):
        if gateway:
            of_mesh = _asks_as_transit(chain)
            found = chains.gateway(chain, known, of_mesh=of_mesh)
        elif inbound:
            found = chains.inbound(chain, known)
        else:
            found = chains.outbound(chain, known)
        for odd in found:
            yield f", {label}", odd
        if inbound and label == "default chain":
            yield f", {label}", Odd(Rule.CHAIN, "", "istiod makes no default chain here")
        match = chain.get("filter_chain_match")
        if match in seen and label != "default chain":
            yield f", {label}", Odd(Rule.CHAIN, "filter_chain_match", "is that of another chain")
        seen.append(match)


def _asks_as_transit(chain: Json) -> bool:
    return "'tenant-authz.transit'" in str(
        [
            it.get("name")
            for one in chain.get("filters", ())
            for it in one.get("typed_config", {}).get("http_filters", ())
        ]
    )


@cache
def _shape(known: Known, name: str, inbound: bool, gateway: bool, transparent: bool) -> Shape:
    fields: dict[str, Shape] = {
        "name": harmless("a name"),
        "address": harmless("iptables and Services decide what arrives"),
        "additional_addresses": harmless("the same"),
        "filter_chains": _CHAINS,
        "default_filter_chain": _CHAINS,
        "listener_filters": harmless("checked on their own"),
        "traffic_direction": one_of(Rule.LISTENER, "INBOUND" if inbound else "OUTBOUND"),
        "access_log": access_log(known),
        "metadata": harmless("for statistics"),
        **dict.fromkeys(
            (
                "continue_on_listener_filters_timeout",
                "listener_filters_timeout",
                "max_connections_to_accept_per_socket_event",
                "per_connection_buffer_limit_bytes",
                "connection_balance_config",
                "enable_reuse_port",
                "tcp_backlog_size",
                "socket_options",
                "bypass_overload_manager",
                "ignore_global_conn_limit",
            ),
            _LIMITS,
        ),
    }
    need: tuple[str, ...] = ("filter_chains",)
    if not gateway:
        need = ("traffic_direction", *need)
    if transparent and name in {INBOUND, OUTBOUND}:
        fields["transparent"] = one_of(Rule.LISTENER, True)
        need += ("transparent",)
    if name == OUTBOUND:
        fields["use_original_dst"] = one_of(Rule.LISTENER, True)
        need += ("use_original_dst",)
    elif not gateway and name != INBOUND:
        fields["bind_to_port"] = one_of(Rule.LISTENER, False)
        need += ("bind_to_port",)
    return message(Rule.LISTENER, fields, need=need, unknown=Rule.LISTENER)


def _before(listener: Json, inbound: bool, transparent: bool) -> Iterator[Odd]:
    """Listener filters: they find out where a connection was going, and what it speaks."""
    found = [kind_of(it.get("typed_config", {})) for it in listener.get("listener_filters", ())]
    matches = [it.get("filter_chain_match", {}) for _, it in labelled(listener)]
    wanted = []
    if inbound:
        wanted = ["OriginalDst", *(["OriginalSrc"] if transparent else [])]
        if any(match.get("transport_protocol") == "tls" for match in matches):
            wanted.append(_PEEKS["tls"])
        if any(_PLAIN_ALPN & set(it.get("application_protocols", ())) for it in matches):
            wanted.append(_PEEKS["http"])
        if found != wanted:
            said = ", ".join(found) or "none"
            yield Odd(
                Rule.NO_CAPTURE, "listener_filters", f"are {said}, must be {', '.join(wanted)}"
            )
    elif unknown := [it for it in found if it not in _PEEKS.values()]:
        what = f"has {', '.join(unknown)}: does it change whom a connection is from or for?"
        yield Odd(Rule.LISTENER, "listener_filters", what)
    for it in listener.get("listener_filters", ()):
        yield from _LISTENER_FILTER(it, "listener_filters")


def _typed(value: Any, path: str) -> Iterator[Odd]:
    allowed = {"@type", "initial_read_buffer_size", "enable_ja3_fingerprinting", "mark"}
    if odd := sorted(value.keys() - allowed):
        yield Odd(Rule.UNKNOWN_FIELD, f"{path}.{odd[0]}", "the doctor does not know this field")


_LISTENER_FILTER: Final = message(
    Rule.LISTENER,
    {
        "name": harmless("a name"),
        "typed_config": _typed,
        "filter_disabled": harmless("where nobody peeks, fewer chains fit, and each one asks"),
    },
    need=("typed_config",),
)
