"""What may stand between a connection and the app's HTTP: connection managers and HTTP filters.

Envoy: extensions.filters.network.http_connection_manager.v3. Our own filters are compared with the
documents that are installed, see `filters`; here it is about all that stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final, Literal, TypeAlias

from authz.doctor import routes
from authz.doctor.expected import Known
from authz.doctor.finding import Rule
from authz.doctor.shape import Odd, Shape, harmless, kind_of, message, one_of, short, typed

Place: TypeAlias = Literal["inbound", "outbound", "gateway"]

_COUNTS: Final = harmless("it is for statistics and traces")
_LIMITS: Final = harmless("it limits sizes, numbers and times")
_ALIKE: Final = harmless("it is applied before filters, so the service is asked what the app gets")
_METADATA: Final = "TypedStruct"

_REFUSES: Final = "whatever its rules are, it refuses or does nothing"
_STATISTICS: Final = harmless("it tells statistics who the peer is")
_SHADOW: Final = "tenant_authz"
"""With what the result of `tenant-authz.scrape` begins, by which verify is skipped."""


def _shadow(value: Any, path: str) -> Iterator[Odd]:
    if value.startswith(_SHADOW):
        what = f"is {value}: verify believes whatever this filter lets in"
        yield Odd(Rule.SCRAPE_RULE, path, what)


RBAC: Final = message(
    Rule.UNKNOWN_FIELD,
    {
        "rules": harmless(_REFUSES),
        "shadow_rules": harmless("a dry run, with a prefix of its own"),
        "shadow_rules_stat_prefix": _shadow,
        "stat_prefix": _COUNTS,
    },
)
"""An AuthorizationPolicy: of HTTP or of the network. Those that ship are compared in `policies`."""

_FILTERS: Final = {
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig": _COUNTS,
    "envoy.extensions.filters.http.fault.v3.HTTPFault": harmless("it delays or refuses"),
    "envoy.extensions.filters.http.cors.v3.Cors": harmless("it answers browsers' questions"),
    "envoy.extensions.filters.http.rbac.v3.RBAC": RBAC,
    "io.istio.http.peer_metadata.Config": _STATISTICS,
    "stats.PluginConfig": _COUNTS,
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig": harmless(
        "it chooses the ALPN of the next hop, each of whose filter chains asks"
    ),
    "envoy.extensions.filters.http.router.v3.Router": message(
        Rule.UNKNOWN_FIELD,
        {
            "dynamic_stats": _COUNTS,
            "start_child_span": _COUNTS,
            "suppress_envoy_headers": harmless("it is about responses, and about x-envoy-*"),
        },
    ),
}
"""HTTP filters beside ours that are known, by their full type."""

_HTTP1: Final = message(
    Rule.UNKNOWN_FIELD,
    {
        "accept_http_10": _ALIKE,
        "default_host_for_http_10": _ALIKE,
        "header_key_format": harmless("names of headers do not differ by case"),
    },
)
_HTTP2: Final = message(
    Rule.UNKNOWN_FIELD,
    dict.fromkeys(
        ("max_concurrent_streams", "initial_stream_window_size", "initial_connection_window_size"),
        _LIMITS,
    ),
)
_COMMON: Final = message(
    Rule.UNKNOWN_FIELD,
    {
        **dict.fromkeys(
            (
                "idle_timeout",
                "max_connection_duration",
                "max_headers_count",
                "max_stream_duration",
                "max_requests_per_connection",
            ),
            _LIMITS,
        ),
        "headers_with_underscores_action": _ALIKE,
    },
)
_WEBSOCKET: Final = one_of(Rule.UPGRADE, [{"upgrade_type": "websocket"}])


@cache
def manager(known: Known, place: Place, cluster: str = "") -> Shape:
    """An HttpConnectionManager.

    Args:
        known: what is known of the installation.
        place: where it stands.
        cluster: inbound, where all of it leads.
    """
    route_config = (
        routes.inbound(known, cluster)
        if place == "inbound"
        else routes.outbound(known, hop=place == "gateway")
    )
    certificate = {
        "inbound": ("APPEND_FORWARD", "SANITIZE_SET", "SANITIZE"),
        "outbound": ("SANITIZE",),
        "gateway": ("SANITIZE_SET", "SANITIZE"),
    }[place]
    fields: dict[str, Shape] = {
        "http_filters": http_filters(known),
        "route_config": route_config,
        "rds": message(
            Rule.INCOMPLETE,
            {
                "config_source": _from_istiod,
                "route_config_name": harmless("`complete` sees that it is there"),
            },
        ),
        "normalize_path": one_of(Rule.NORMALISATION, True),
        "merge_slashes": _ALIKE,
        "path_with_escaped_slashes_action": _ALIKE,
        "upgrade_configs": _WEBSOCKET,
        "use_remote_address": one_of(Rule.PEER_ADDRESS, place == "gateway"),
        "xff_num_trusted_hops": harmless("nothing is decided by a client's address"),
        "forward_client_cert_details": one_of(Rule.PEER_ADDRESS, *certificate),
        "set_current_client_cert_details": _certificate(),
        "http_protocol_options": _HTTP1,
        "http2_protocol_options": _HTTP2,
        "common_http_protocol_options": _COMMON,
        "codec_type": one_of(Rule.UNKNOWN_FIELD, "AUTO", "HTTP1", "HTTP2"),
        "access_log": access_log(known),
        "request_id_extension": typed_config_of("UuidRequestIdConfig"),
        **dict.fromkeys(
            ("tracing", "stat_prefix", "proxy_100_continue", "generate_request_id"), _COUNTS
        ),
        **dict.fromkeys(
            ("server_name", "server_header_transformation", "append_x_forwarded_port"),
            harmless("nothing is decided by it"),
        ),
        **dict.fromkeys(
            ("stream_idle_timeout", "request_timeout", "drain_timeout", "delayed_close_timeout"),
            _LIMITS,
        ),
    }
    need = ("http_filters", "normalize_path", "use_remote_address")
    return message(Rule.NORMALISATION, fields, need=need)


@cache
def http_filters(known: Known) -> Shape:
    """A manager's filters. Of ours only what `filters` does not compare."""

    def check(value: Any, path: str) -> Iterator[Odd]:
        names = [it.get("name", "?") for it in value]
        for number, it in enumerate(value):
            yield from discovered(it, path)
            if names[number] not in known.ours:
                yield from one(it, names[number], _beside(names, number))

    def one(value: Any, name: str, beside: str) -> Iterator[Odd]:
        config = value.get("typed_config", {})
        kind = str(config.get("@type", "")).removeprefix("type.googleapis.com/")
        if kind.endswith(_METADATA):
            kind = str(config.get("type_url", "")).removeprefix("type.googleapis.com/")
        if kind not in _FILTERS:
            yield Odd(Rule.UNKNOWN_FILTER, "", _question(name, kind_of(config), beside))
        else:
            yield from _FILTERS[kind](config, f"{name}")
        if value.get("disabled"):
            what = "is true: istiod switches no filter off by itself"
            yield Odd(Rule.SWITCHED_OFF, f"{name}.disabled", what)
        yield from unknown_fields(value, name, "disabled")

    return check


def unknown_fields(value: Any, name: str, *more: str) -> Iterator[Odd]:
    """What stands beside a filter's configuration and is not known."""
    for field in sorted(value.keys() - {"name", "typed_config", "config_discovery", *more}):
        yield Odd(Rule.UNKNOWN_FIELD, f"{name}.{field}", "the doctor does not know this field")


def _beside(names: list[str], number: int) -> str:
    """On which side of which of our filters it stands."""
    ours = [name for name in names if name.startswith("tenant-authz.")]
    after = [it for it in names[number:] if it in ours]
    return f" before {after[0]}" if after else f" after {ours[-1]}" if ours else ""


def discovered(value: Any, path: str) -> Iterator[Odd]:
    """A filter that is delivered by ECDS, with what it is until it is delivered."""
    source = value.get("config_discovery")
    if source is None:
        return
    name = value.get("name", "?")
    for field in ("default_config", "apply_default_config_without_warming"):
        if source.get(field):
            what = "counts until ECDS has delivered the filter, and nobody can tell when"
            yield Odd(Rule.ECDS, f"{name}.config_discovery.{field}", what)
    if "typed_config" not in value:
        yield Odd(Rule.ECDS, f"{path}", f"{name} comes by ECDS and has not been delivered")


def access_log(known: Known) -> Shape:
    """Logs see tokens if their format names the header."""

    def check(value: Any, path: str) -> Iterator[Odd]:
        text = str(value).lower()
        for header in sorted(known.token_headers):
            if header in text:
                yield Odd(Rule.LOGGED, path, f"writes {header} into a log")

    return check


def typed_config_of(kind: str) -> Shape:
    """An extension of a known type, whose settings do not matter."""
    inner = typed(Rule.UNKNOWN_FIELD, {kind: harmless("it makes ids of requests")})
    return message(Rule.UNKNOWN_FIELD, {"name": _COUNTS, "typed_config": inner})


def _certificate() -> Shape:
    """What the app, and our own service behind a sidecar, hear of the peer."""
    fields = {
        "uri": one_of(Rule.PEER_ADDRESS, True),
        **dict.fromkeys(
            ("subject", "dns", "cert", "chain"), harmless("who calls is decided by the URI alone")
        ),
    }
    return message(Rule.PEER_ADDRESS, fields, need=("uri",))


def _from_istiod(value: Any, path: str) -> Iterator[Odd]:
    if value.get("ads") != {}:
        yield Odd(Rule.INCOMPLETE, path, f"is {short(value)}, must be istiod's stream, `ads`")


def _question(name: str, kind: str, beside: str) -> str:
    return (
        f"unknown filter {name} ({kind}){beside}: "
        "does it change the token, the path, the host or the peer, or answer in the app's place?"
    )
