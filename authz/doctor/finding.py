"""What can be wrong: each rule with why it matters and how to mend it, each finding with where."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

_APPLY = "apply the filters again, `kubectl apply -k envoyfilters`"
_FOREIGN = (
    "look for another EnvoyFilter that touches it (`kubectl get envoyfilter -A`), then " + _APPLY
)


class Rule(enum.Enum):
    """A rule that was broken, by a word for scripts."""

    why: str
    mend: str

    def __new__(cls, slug: str, why: str, mend: str) -> Self:
        """Make a member of its word, why it matters and how to mend it."""
        member = object.__new__(cls)
        member._value_ = slug
        member.why = why
        member.mend = mend
        return member

    SIGN_MISSING = (
        "sign-missing",
        "outgoing requests carry no token, and shared hops deny them",
        _APPLY,
    )
    VERIFY_MISSING = (
        "verify-missing",
        "requests get in here unchecked",
        _APPLY,
    )
    TCP_MISSING = (
        "tcp-missing",
        "a client that offers another ALPN gets in here by raw TCP, unchecked",
        _APPLY,
    )
    STRIP_MISSING = (
        "strip-missing",
        "the app sees tokens, or a client's own token is passed on",
        _APPLY,
    )
    TRANSIT_MISSING = (
        "transit-missing",
        "a shared hop passes on what anybody sends",
        _APPLY,
    )
    PUBLIC_MISSING = (
        "public-missing",
        "requests from outside get no token of ours, or bring their own",
        _APPLY,
    )
    SCRAPE_MISSING = (
        "scrape-missing",
        "with the service down, nothing is scraped and nothing scales",
        _APPLY,
    )
    CARRY_MISSING = (
        "carry-missing",
        "a broker's events lose their token and are denied at the channel",
        _APPLY,
    )
    FILTER_MISSING = (
        "filter-missing",
        "a filter that ships is not there",
        _APPLY,
    )
    UNCOVERED = (
        "uncovered",
        "no filter of ours matches here, so the service is not asked",
        "give the port an HTTP or TCP protocol (`appProtocol`), or close it with a NetworkPolicy",
    )
    NOT_ASKED_PORT = (
        "port-not-asked",
        "what comes in here gets no token, so that pods deny it, or calls past us",
        "name the port in envoyfilters/base/values.yaml",
    )
    UNEXPECTED = (
        "unexpected",
        (
            "a filter is where it must not be: the service would ask itself, or a shared "
            "hop deny everybody"
        ),
        "see that the EnvoyFilter that removes it is installed, then " + _APPLY,
    )
    ORDER = (
        "order",
        (
            "a filter before ours can admit or rewrite what we judge; one after sign or "
            "public can change the token"
        ),
        _FOREIGN,
    )
    REPEATED = (
        "repeated",
        "the same is asked twice, and the second answer may contradict the first",
        _FOREIGN,
    )
    FAILS_OPEN = (
        "fails-open",
        "a caller who makes the service fail gets in everywhere",
        "apply overlays/enforce instead of overlays/shadow",
    )
    SWITCHED_OFF = (
        "switched-off",
        "the filter is there and does not ask the service",
        (
            "apply overlays/enforce instead of overlays/break-glass, and look for what else"
            " disables it"
        ),
    )
    QUESTION = (
        "question",
        "the service answers another question than the one that arises here",
        _FOREIGN,
    )
    UPSTREAM = (
        "upstream",
        "the service is told of another destination than the request's: no token, or a wrong one",
        _FOREIGN,
    )
    MUTATION = (
        "mutation",
        "a service that was taken over could change any header",
        _FOREIGN,
    )
    ALLOWED_HEADERS = (
        "allowed-headers",
        "the service lacks a header that it decides by, or is sent secrets that it does not need",
        _FOREIGN,
    )
    RAW_HEADERS = (
        "raw-headers",
        "repeated headers arrive joined, and one may hide the other",
        _FOREIGN,
    )
    TIMEOUT = (
        "timeout",
        "a service that hangs holds up each request that long, or is given up too soon",
        "set it in envoyfilters/base/values.yaml",
    )
    WRONG_CLUSTER = (
        "wrong-cluster",
        "the filter asks another cluster than the service's",
        _FOREIGN,
    )
    STRIP_RULE = (
        "strip-rule",
        "the token's header is not removed",
        _FOREIGN,
    )
    SCRAPE_RULE = (
        "scrape-rule",
        "callers other than the autoscaler and Prometheus get in unchecked",
        _FOREIGN,
    )
    STATUS_ON_ERROR = (
        "status-on-error",
        "during an outage, probes take our denial for the app's",
        _FOREIGN,
    )
    EARLY_CONNECT = (
        "early-connect",
        "an app that speaks first greets a client that is then denied",
        _FOREIGN,
    )
    FIELD = (
        "field",
        "the filter differs from the one that ships",
        _FOREIGN,
    )
    UNKNOWN_FILTER = (
        "unknown-filter",
        "the doctor cannot tell what this filter does to requests, tokens and peers",
        "find out, remove its EnvoyFilter or WasmPlugin, or accept it: --accept unknown-filter:POD",
    )
    UNKNOWN_FIELD = (
        "unknown-field",
        "the doctor does not know this field, so it cannot tell whether isolation depends on it",
        (
            "look it up in Envoy's API, find what sets it (`kubectl get envoyfilter -A`), or "
            "accept it: --accept unknown-field:POD"
        ),
    )
    UNKNOWN_CLUSTER = (
        "unknown-cluster",
        "requests that are sent there leave the mesh unchecked",
        "find the EnvoyFilter or bootstrap that adds it (`kubectl get envoyfilter -A`)",
    )
    LISTENER = (
        "listener",
        "connections may get past the filter chains in which the service is asked",
        _FOREIGN,
    )
    CHAIN = (
        "chain",
        "istiod makes no such filter chain, and it may take connections from one that asks",
        _FOREIGN,
    )
    TRUST = (
        "trust",
        "callers are let in whose identity is not proven by the mesh's own authority",
        "look for the Sidecar or EnvoyFilter that sets TLS here, and set PeerAuthentication STRICT",
    )
    UPGRADE = (
        "upgrade",
        "an upgraded connection has filters of its own, or carries what no filter reads",
        "remove the EnvoyFilter that sets upgrade_configs",
    )
    NORMALISATION = (
        "normalisation",
        "the service judges another path than the one that the app serves",
        "set meshConfig.pathNormalization to BASE or stricter, and remove what overrides it",
    )
    PEER_ADDRESS = (
        "peer-address",
        "callers can set headers that say who they are, and apps believe them",
        "look for proxyHeaders or gatewayTopology in meshConfig and annotations, and EnvoyFilters",
    )
    LOGGED = (
        "logged",
        "readers of the log see tokens; a token is of use at its own destination",
        "take the header out of meshConfig.accessLogFormat or the Telemetry object",
    )
    ECDS = (
        "ecds",
        "until the filter is delivered, requests pass without it or by a default",
        "write the filter into the EnvoyFilter instead of config_discovery",
    )
    ROUTE_CHOICE = (
        "route-choice",
        "the caller, and not the platform, chooses where requests go",
        "look for the EnvoyFilter or VirtualService that makes this route",
    )
    CLUSTER_TRUST = (
        "cluster-trust",
        "a workload outside the mesh can answer in this Service's place and read what is sent",
        "look for the DestinationRule or EnvoyFilter that changes TLS for this host",
    )
    CLUSTER_LEADS = (
        "cluster-leads",
        "requests go elsewhere than the cluster's name says, by which the service judges them",
        "look for the EnvoyFilter that changes this cluster",
    )
    ADMIN = (
        "admin",
        "all who reach the admin endpoint read secrets' names, change runtime, stop the proxy",
        (
            "let it listen on 127.0.0.1: take away the annotation "
            "sidecar.istio.io/bootstrapOverride and what else changes the bootstrap"
        ),
    )
    AGENT = (
        "agent",
        "what Istio's agent starts is not asked about, and here it leads past our filters",
        "remove the bootstrap override (annotation sidecar.istio.io/bootstrapOverride)",
    )
    RUNTIME = (
        "runtime",
        "Envoy's runtime can switch filters and checks off",
        "remove it from runtimeValues in the pod's ProxyConfig",
    )
    INCOMPLETE = (
        "incomplete",
        "the doctor cannot judge what it does not see",
        "dump all of it (`/config_dump`, no `mask` or `resource`) once the proxy is ready",
    )
    NO_POLICY = (
        "no-policy",
        "the hop is open to callers for whom nothing is asked as strictly",
        "apply the AuthorizationPolicy that ships with the filters of this hop",
    )
    ROUTE_OVERRIDE = (
        "route-override",
        "for this route the filter is off, or asks something else",
        "look for the EnvoyFilter or VirtualService that sets typed_per_filter_config",
    )
    ROUTE_HEADER = (
        "route-header",
        "a route changes the token after we have answered",
        "take the header out of the VirtualService",
    )
    REFUSED = (
        "refused",
        "the proxy refused what istiod sent; the older configuration goes on",
        "see istiod's log for the NACK, and the EnvoyFilter that it names",
    )
    CLUSTER_MISSING = (
        "cluster-missing",
        "the filters cannot reach the service: they fail as if it were down",
        (
            "let the `Sidecar` of this namespace import authz-system/*, and see that "
            "Service authz exists"
        ),
    )
    GATEWAY_CLUSTER_MISSING = (
        "gateway-cluster-missing",
        "the filters cannot reach the service: every request through this gateway is a 503",
        (
            "istiod sends a gateway what its routes use (PILOT_FILTER_GATEWAY_CLUSTER_CONFIG): "
            "apply the filters again, whose annotation envoyfilter.istio.io/referenced-services "
            "names the service, or before Istio 1.26 an extension provider that does "
            "(deploy/platform/istio/istiod-1.25-values.yaml); and see that Service authz exists"
        ),
    )
    CLUSTER_HTTP2 = (
        "cluster-http2",
        "gRPC needs HTTP/2: each question fails",
        "call the Service's port `grpc`, or give it appProtocol grpc",
    )
    CLUSTER_PLAINTEXT = (
        "cluster-plaintext",
        "anybody on the way can read tokens and answer in the service's place",
        "apply base/destinationrule.yaml, and look for another DestinationRule for this host",
    )
    CLUSTER_IDENTITY = (
        "cluster-identity",
        "another workload can answer in the service's place",
        "apply base/destinationrule.yaml: subjectAltNames must name the service, and nobody else",
    )
    CLUSTER_OUTLIER = (
        "cluster-outlier",
        "each request that is sent to a dead replica waits and fails",
        "apply base/destinationrule.yaml",
    )
    CLUSTER_TIMES = (
        "cluster-times",
        "connections to a dead replica take long, or live for ever and never find new ones",
        "apply base/destinationrule.yaml",
    )
    GATEWAY_PLAINTEXT = (
        "gateway-plaintext",
        "the local gateway does not know who calls: a stolen token counts",
        "apply base/local-gateway.yaml: its server must be HTTPS with tls mode ISTIO_MUTUAL",
    )
    NO_CAPTURE = (
        "no-capture",
        "what arrives does not pass the proxy",
        "use interception by iptables or CNI; no `captureMode: NONE`",
    )
    EXCLUDED_PORT = (
        "excluded-port",
        "these ports are reached past the proxy, by everybody",
        "take the annotation away; deploy/platform has an admission policy against it",
    )
    PLAINTEXT = (
        "plaintext",
        "a plaintext caller has no identity, and gets in wherever the namespace asks for none",
        "set PeerAuthentication to STRICT: components/strict-mtls",
    )
    COLD_START = (
        "cold-start",
        (
            "the activator probes a pod in plaintext first, takes our 403 for a sign that there is "
            "no mesh, and never tries another way: requests to what was scaled to zero hang"
        ),
        (
            "set PeerAuthentication to STRICT (components/strict-mtls), or mesh-compatibility-mode "
            "to enabled in Knative's ConfigMap config-network (deploy/platform/knative)"
        ),
    )
    HOP = (
        "hop",
        (
            "it passes everybody's events on by their path, and asks `verify`, which judges the "
            "hop and not where they go: its callers are denied, or a grant to its namespace lets "
            "each of them go everywhere"
        ),
        (
            "apply envoyfilters/components/eventing, and see that its labels fit; for another hop, "
            "write what components/eventing/sinks.yaml says for its labels"
        ),
    )
    WEBHOOK = (
        "webhook",
        (
            "the API server has no identity of the mesh and is denied here: what the webhook looks "
            "at cannot be made, or is made unseen where its failurePolicy is Ignore"
        ),
        (
            "write for this port what envoyfilters/base/webhooks.yaml has for Serving's, an "
            "EnvoyFilter and a PeerAuthentication; or give these pods no sidecar"
        ),
    )
    NO_PROXY = (
        "no-proxy",
        "a pod without a sidecar takes calls from everybody, unasked",
        (
            "label its namespace istio-injection=enabled and start it again, or shut it off"
            " with a NetworkPolicy"
        ),
    )
    AMBIENT = (
        "ambient",
        "ambient mode's ztunnel and waypoints have no filter of ours: nobody is asked",
        (
            "label the namespace istio.io/dataplane-mode=none and istio-injection=enabled, and "
            "start its pods again"
        ),
    )
    NEVER_VERIFIES = (
        "never-verifies",
        "its calls are signed, calls to it are not verified",
        (
            "see that its pods have a sidecar, and that verify is in them; give --metrics of every "
            "server, since each sees its own node's sidecars only"
        ),
    )
    UPSTREAM_UNREADABLE = (
        "upstream-unreadable",
        "the service cannot tell where requests go: they get no token, and shared hops deny them",
        (
            "the filters must send %UPSTREAM_CLUSTER_RAW%, see the service's log for what they"
            " send, then " + _APPLY
        ),
    )


@dataclass(frozen=True)
class Finding:
    """One hole."""

    workload: str
    """`namespace/pod`, or the namespace."""
    where: str
    what: str
    rule: Rule

    def row(self) -> dict[str, str]:
        """As the command line prints it."""
        return {
            "workload": self.workload,
            "where": self.where,
            "rule": self.rule.value,
            "what": self.what,
            "why": self.rule.why,
            "mend": self.rule.mend,
        }
