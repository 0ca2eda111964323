"""Which changes of a dump take nothing from isolation, each with its reason.

A pattern is of `fnmatch`, over a mutation's path without the brackets of lists; `<name>` is the
item of that name. Where kinds are given, only those changes are harmless.
"""

from __future__ import annotations

from typing import Final, NamedTuple

ANY: Final = ""


class Harmless(NamedTuple):
    """Changes that need not be noticed."""

    reason: str
    kinds: str
    """Of `mutations.Mutation`, by commas; all, if empty."""
    patterns: tuple[str, ...]


CLOSES: Final = "what is not there takes no connection, and what is there is checked on its own"
OUTWARD: Final = "it takes a token from what leaves, never from what arrives: the caller is denied"

HARMLESS: Final = (
    Harmless(
        "statistics, logs and traces decide nothing",
        ANY,
        (
            "*.stat_prefix",
            "*.alt_stat_name",
            "*/HttpConnectionManager.tracing*",
            "*/HttpConnectionManager.request_id_extension*",
            "*/UuidRequestIdConfig*",
            "*/PluginConfig*",
            "*/TypedStruct*",
            "*<istio.stats>",
            "*<istio.metadata_exchange>",
            "*<envoy.filters.http.grpc_stats>",
            "*.decorator*",
            "*.include_request_attempt_count",
            "bootstrap.stats_config*",
            "bootstrap.deferred_stat_options*",
            "bootstrap.application_log_config*",
            "bootstrap.admin.access_log*",
            "bootstrap.admin.profile_path",
            "bootstrap/FileAccessLog*",
        ),
    ),
    Harmless(
        "names say nothing: what counts is the type of a filter, the match of a chain",
        "alter,remove",
        (
            "*.filters.name",
            "*.http_filters.name",
            "*.listener_filters.name",
            "*.filter_chains.name",
            "*.default_filter_chain.name",
            "*.transport_socket_matches.name",
            "*.transport_socket.name",
            "*.virtual_hosts.name",
            "*.routes.name",
            "*.route_config.name",
            "*/Listener.name",
            "agent-listener.name",
            "*.compressor_library.name",
            "bootstrap.layered_runtime.layers.name",
            "bootstrap.overload_manager.resource_monitors.name",
        ),
    ),
    Harmless(
        "limits of sizes, numbers and times, and tries",
        ANY,
        (
            "*.circuit_breakers*",
            "*.connect_timeout",
            "*.transport_socket_connect_timeout",
            "*.stream_idle_timeout",
            "*.listener_filters_timeout",
            "*.continue_on_listener_filters_timeout",
            "*.max_connections_to_accept_per_socket_event",
            "*.initial_read_buffer_size",
            "*.initial_fetch_timeout",
            "*.upstream_connection_options*",
            "*.max_requests_per_connection",
            "*.cleanup_interval",
            "*.common_http_protocol_options.idle_timeout",
            "*.routes.route.timeout",
            "*.routes.route.max_grpc_timeout",
            "*.routes.route.max_stream_duration*",
            "*.routes.route.retry_policy*",
            "routes/PreviousHostsPredicate",
            "*.max_direct_response_body_size_bytes",
            "*.bypass_overload_manager",
            "*.ignore_global_conn_limit",
            "bootstrap.overload_manager*",
            "bootstrap/DownstreamConnectionsConfig*",
        ),
    ),
    Harmless(
        "it chooses among the endpoints of one cluster",
        ANY,
        (
            "*.lb_policy",
            "*.common_lb_config*",
            "*.outlier_detection",
            "*.outlier_detection.enforcing_*",
        ),
    ),
    Harmless(
        "in which HTTP the proxy speaks to whom it has chosen",
        ANY,
        ("*/HttpProtocolOptions*", "*.typed_extension_protocol_options*"),
    ),
    Harmless(
        "istiod says which Services a cluster stands for, and whose a route is: there is no second "
        "source, and without it the service denies",
        ANY,
        ("*/Cluster.metadata*", "routes.virtual_hosts.routes.metadata*"),
    ),
    Harmless(
        "it answers or refuses, and lets nothing pass",
        ANY,
        (
            "*<envoy.filters.http.cors>",
            "*<envoy.filters.http.fault>",
            "*/Cors",
            "*/HTTPFault",
            "*/HttpConnectionManager.proxy_100_continue",
            "*/HttpConnectionManager.server_name",
        ),
    ),
    Harmless(
        "which ALPN is offered chooses the chain of the next hop, and each of its chains asks",
        ANY,
        ("*<istio.alpn>", "*/FilterConfig*", "*.alpn_protocols*"),
    ),
    Harmless(
        "without them nothing is routed, or Envoy refuses the list",
        "drop,repeat",
        (
            "*/HttpConnectionManager.http_filters<envoy.filters.http.router>",
            "*.filters<envoy.filters.network.http_connection_manager>",
            "*.filters<envoy.filters.network.tcp_proxy>",
        ),
    ),
    Harmless(
        "a list in which the last filter is not the last is refused by Envoy",
        "reverse",
        ("*.filter_chains.filters", "*.default_filter_chain.filters"),
    ),
    Harmless(
        CLOSES,
        "remove,drop,repeat,reverse",
        (
            "listeners",
            "*/Listener.filter_chains",
            "*/HttpConnectionManager.rds",
            "*/HttpConnectionManager.route_config",
            "*/HttpConnectionManager.route_config.virtual_hosts",
            "*/HttpConnectionManager.route_config.virtual_hosts.routes",
            "*/HttpConnectionManager.upgrade_configs",
        ),
    ),
    Harmless(
        CLOSES,
        "remove",
        (
            "gateway-*/Listener.filter_chains.filters",
            "outbound/Listener.filter_chains.filters",
            "outbound/Listener.default_filter_chain*",
        ),
    ),
    Harmless(
        "where a listener is bound decides what arrives there, and all that arrives is asked about",
        ANY,
        ("*/Listener.address*", "*/Listener.traffic_direction"),
    ),
    Harmless(
        "where nobody peeks into a connection, other chains fit, and each of them asks",
        ANY,
        (
            "*.listener_filters.filter_disabled*",
            "gateway-*/Listener.listener_filters",
            "gateway-*/Listener.listener_filters<envoy.filters.listener.tls_inspector>",
        ),
    ),
    Harmless(
        "a chain that takes more connections asks about those, too",
        "remove",
        ("inbound/Listener.filter_chains.filter_chain_match.application_protocols",),
    ),
    Harmless(
        OUTWARD,
        ANY,
        (
            "outbound/Listener.listener_filters",
            "outbound/Listener.listener_filters<*>",
            "outbound/Listener.filter_chains.filter_chain_match*",
            "outbound/Listener.default_filter_chain.filter_chain_match",
            "outbound/TcpProxy.cluster",
            "cluster-PassthroughCluster/Cluster.filters*",
            "cluster-outbound/Cluster.filters*",
        ),
    ),
    Harmless(
        "a default that is the same, or stricter",
        "remove",
        (
            "*/ExtAuthz.failure_mode_allow",
            "*/RBAC*.action",
            "*/HttpConnectionManager.forward_client_cert_details",
            "*/HttpConnectionManager.set_current_client_cert_details",
            "*/HttpConnectionManager.http_protocol_options",
            "*/HttpConnectionManager.http2_protocol_options",
            "*.tls_params*",
        ),
    ),
    Harmless(
        "order and copies in these lists mean nothing",
        "repeat,reverse,drop",
        (
            "*/ExtAuthz.allowed_headers.patterns",
            "*/ExtAuthz.grpc_service.initial_metadata",
            "*.tls_params.cipher_suites",
            "dump",
        ),
    ),
    Harmless(
        "who calls is decided by the URI alone",
        ANY,
        (
            "*.set_current_client_cert_details.subject",
            "*.set_current_client_cert_details.dns",
            "*.set_current_client_cert_details.cert",
        ),
    ),
    Harmless(
        "it is applied before filters, so the service is asked what the app gets",
        ANY,
        ("*/HttpConnectionManager.path_with_escaped_slashes_action",),
    ),
    Harmless(
        "which of istiod's clusters a request goes to is chosen before the service is asked, with "
        "that cluster's name",
        ANY,
        (
            "routes.virtual_hosts",
            "routes.virtual_hosts.domains*",
            "routes.virtual_hosts.routes",
            "routes.virtual_hosts.routes.match*",
            "routes.virtual_hosts.routes.route",
            "routes.virtual_hosts.routes.route.cluster",
            "routes.validate_clusters",
            "routes.ignore_port_in_host_matching",
            "*.route_config.validate_clusters",
            "*/HttpConnectionManager.rds.config_source*",
        ),
    ),
    Harmless(
        "the activator routes by the headers that the gateway's routes set, and is judged by them",
        ANY,
        ("routes.virtual_hosts.routes.request_headers_to_add*",),
    ),
    Harmless(
        "which account serves is told by endpoints, which istiod alone writes; authority and trust "
        "domain are checked",
        "remove,drop,repeat,alter",
        ("cluster-outbound/UpstreamTlsContext*.match_subject_alt_names*",),
    ),
    Harmless(
        "without the plaintext fallback there is less; the match for mutual TLS may not be missing",
        "drop",
        ("cluster-outbound/Cluster.transport_socket_matches",),
    ),
    Harmless("a transport that has no settings", "add", ("cluster-outbound/RawBuffer",)),
    Harmless(
        "a cluster without it leads nowhere, or Envoy refuses it",
        "remove,add,alter",
        (
            "cluster-outbound/Cluster.eds_cluster_config",
            "cluster-*nbound*/Cluster.upstream_bind_config*",
        ),
    ),
    Harmless(
        "public clients have no identity of the mesh, whatever the certificate that they see",
        ANY,
        (
            "gateway-8443/DownstreamTlsContext.common_tls_context*",
            "gateway-8443/DownstreamTlsContext.require_client_certificate",
            "gateway-8443/Listener.filter_chains.transport_socket",
        ),
    ),
    Harmless(
        "what the agent serves is its own health and statistics, wherever that is asked for, and "
        "where its clusters lead is checked",
        ANY,
        (
            "agent-listeners",
            "agent-listener.address*",
            "agent-listener.filter_chains",
            "agent-listener.filter_chains.filters",
            "agent-listener/Compressor*",
            "agent-listener/Brotli",
            "agent-listener/Gzip",
            "agent-listener/Zstd",
            "agent-listener/HttpConnectionManager.codec_type",
            "agent-listener/HttpConnectionManager.http_filters*",
            "agent-listener/HttpConnectionManager.route_config*",
            "agent-clusters",
            "agent-cluster.load_assignment*",
        ),
    ),
    Harmless(
        "listeners and clusters of the bootstrap are in the dump a second time, and checked there",
        ANY,
        (
            "bootstrap.static_resources*",
            "bootstrap/Brotli",
            "bootstrap/Compressor*",
            "bootstrap/Gzip",
            "bootstrap/Zstd",
            "bootstrap/HttpConnectionManager*",
        ),
    ),
    Harmless(
        "what istiod has sent is in the dump, whatever the stream by which it came",
        "remove",
        ("bootstrap.dynamic_resources*", "bootstrap.bootstrap_extensions"),
    ),
    Harmless(
        "known settings of Istio's agent, none of which switches a filter off",
        "alter,remove,add,drop,repeat,reverse",
        (
            "bootstrap.layered_runtime",
            "bootstrap.layered_runtime.layers",
            "bootstrap.layered_runtime.layers.static_layer*",
            "bootstrap.layered_runtime.layers.admin_layer",
        ),
    ),
    Harmless(
        "a pod says itself who it is; --cluster compares that with whom it has asked",
        ANY,
        (
            "bootstrap.node",
            "bootstrap.node.cluster",
            "bootstrap.node.id",
            "bootstrap.node.metadata*",
        ),
    ),
)
