"""What may stand between a connection and a filter chain, and in it: matches, TLS, network filters.

Envoy: config.listener.v3 (listener_components.proto). Which chains a sidecar's inbound listener has
for a mode of mutual TLS is istiod's `filterchain_options.go`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from authz.doctor import transport
from authz.doctor.dump import MANAGER, Json
from authz.doctor.expected import Known
from authz.doctor.finding import Rule
from authz.doctor.http import RBAC, Place, access_log, discovered, manager, unknown_fields
from authz.doctor.shape import Odd, Shape, harmless, kind_of, message, one_of, typed

TCP_PROXY: Final = "envoy.filters.network.tcp_proxy"
CAPTURE_PORT: Final = 15006
_NAMES: Final = harmless("a name")
_WAITS: Final = harmless("it limits times")
_COUNTS: Final = harmless("it is for statistics")

_HTTP: Final = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
_TCP: Final = ("istio-peer-exchange", "istio")
_ALL: Final = ("istio", "istio-peer-exchange", *_HTTP)
_PLAIN: Final = ("http/1.1", "h2c")
_MATCHES: Final = frozenset(
    {
        # transport, ALPN, whether it ends TLS
        ("tls", _HTTP, True),
        ("tls", _TCP, True),
        ("tls", _ALL, True),
        ("tls", (), True),
        ("tls", (), False),
        ("raw_buffer", (), False),
        ("raw_buffer", _PLAIN, False),
        ("", (), False),
    }
)


def inbound(chain: Json, known: Known) -> Iterator[Odd]:
    """A chain of a sidecar's inbound listener."""
    match = chain.get("filter_chain_match", {})
    port = match.get("destination_port", 0)
    yield from _matched(chain, match, port)
    yield from _inbound_chain(known, _leads_to(port))(chain, "")


def outbound(chain: Json, known: Known) -> Iterator[Odd]:
    """A chain of a sidecar's outbound listener: it ends no TLS."""
    yield from _chain(known, "outbound")(chain, "")


def gateway(chain: Json, known: Known, *, of_mesh: bool) -> Iterator[Odd]:
    """A chain of a gateway's listener; `of_mesh`, if it asks about callers of the mesh."""
    yield from _chain(known, "gateway", of_mesh=of_mesh)(chain, "")


def _matched(chain: Json, match: Json, port: int) -> Iterator[Odd]:
    ends = "transport_socket" in chain
    about = (
        match.get("transport_protocol", ""),
        tuple(match.get("application_protocols", ())),
        ends,
    )
    fits = about in _MATCHES and (about[0] != "" or port == CAPTURE_PORT)
    if not fits or match.keys() - {
        "destination_port",
        "transport_protocol",
        "application_protocols",
    }:
        what = f"takes {match or 'everything'}{' and ends TLS' if ends else ''}"
        what += ": istiod makes no such chain"
        yield Odd(Rule.CHAIN, "filter_chain_match", what)


def _leads_to(port: int) -> str:
    """The cluster to which all of a chain must go."""
    if port == CAPTURE_PORT:
        return "BlackHoleCluster"
    if port:
        return f"inbound|{port}||"
    return "InboundPassthroughCluster"


@cache
def _inbound_chain(known: Known, cluster: str) -> Shape:
    tls = {"DownstreamTlsContext": transport.mutual(known, Rule.TRUST, of_mesh=True)}
    proxy = {
        "cluster": one_of(Rule.ROUTE_CHOICE, cluster),
        **_proxy(known),
    }
    return message(
        Rule.CHAIN,
        {
            "filters": _filters(
                known,
                manager(known, "inbound", cluster),
                message(Rule.ROUTE_CHOICE, proxy, need=("cluster",)),
            ),
            "transport_socket": _socket(tls),
            **_ABOUT,
        },
        need=("filters",),
    )


@cache
def _chain(known: Known, place: Place, *, of_mesh: bool = False) -> Shape:
    if of_mesh:
        shape = transport.mutual(known, Rule.GATEWAY_PLAINTEXT, of_mesh=False)
    else:
        shape = transport.one_way()
    proxy = {
        "cluster": harmless("raw TCP gets no token, and `tcp` asks about it where it arrives"),
        "weighted_clusters": harmless("the same"),
        "hash_policy": harmless("it chooses among endpoints"),
        **_proxy(known),
    }
    fields: dict[str, Shape] = {
        "filters": _filters(known, manager(known, place), message(Rule.UNKNOWN_FIELD, proxy)),
        **_ABOUT,
    }
    if place == "gateway":
        fields["transport_socket"] = _socket({"DownstreamTlsContext": shape})
    return message(Rule.CHAIN, fields, need=("filters",))


def _proxy(known: Known) -> dict[str, Shape]:
    return {
        "stat_prefix": _COUNTS,
        "idle_timeout": _WAITS,
        "max_downstream_connection_duration": _WAITS,
        "access_log": access_log(known),
        "upstream_connect_mode": harmless("compared with what ships"),
        "max_early_data_bytes": harmless("the same"),
    }


_ABOUT: Final[dict[str, Shape]] = {
    "name": _NAMES,
    "metadata": _NAMES,
    "filter_chain_match": harmless("checked on its own"),
    "transport_socket_connect_timeout": _WAITS,
}


def _socket(kinds: dict[str, Shape]) -> Shape:
    config = typed(Rule.TRUST, kinds)
    fields = {"name": one_of(Rule.TRUST, transport.TLS), "typed_config": config}
    return message(Rule.TRUST, fields, need=("typed_config",))


def _filters(known: Known, http: Shape, proxy: Shape) -> Shape:
    """Network filters: those of Istio, ours, and at the end what takes the connection."""
    others = {
        "MetadataExchange": harmless("it tells statistics who the peer is"),
        "PluginConfig": _COUNTS,
        "RBAC": RBAC,
    }

    def check(value: Any, path: str) -> Iterator[Odd]:
        for it in value:
            name, config = it.get("name", "?"), it.get("typed_config", {})
            yield from discovered(it, path)
            if name in known.ours:
                continue
            yield from unknown_fields(it, name)
            kind = kind_of(config)
            if kind == "HttpConnectionManager" and name == MANAGER:
                yield from http(config, "")
            elif kind == "TcpProxy" and name == TCP_PROXY:
                yield from proxy(config, "tcp_proxy")
            elif kind in others:
                yield from others[kind](config, name)
            else:
                what = f"unknown filter {name} ({kind}): does it pass connections on by itself?"
                yield Odd(Rule.UNKNOWN_FILTER, "", what)

    return check
