"""Each hole is found, by the right rule, and a sound proxy has none."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from authz.doctor import Expected, Rule
from authz.envoyfilters import Proxy, shipped
from authz.lab.box.istio.box import without
from authz.lab.world import attacked as worlds
from tests.doctor.proxies import (
    PLAINTEXT,
    WORLD,
    Bench,
    Json,
    chains,
    examined,
    listener,
    listeners,
    lists,
    managers,
    named,
    service_cluster,
)

SIDECAR, GATEWAY = "globex/plain", "istio-system/gateway"
KNATIVE, ACTIVATOR = "globex/hello", "knative-serving/activator"
EXTAUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
PROXIES = [name for name, pod in WORLD.pods.items() if pod.proxy != "none"]


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("pod", PROXIES)
def test_a_sound_proxy_has_no_finding(bench: Bench, pod: str, dynamic: bool) -> None:
    assert examined(bench.dump(pod, dynamic=dynamic)) == []


@pytest.mark.parametrize("overlay", ["shadow", "break-glass", "reuse"])
@pytest.mark.parametrize("pod", [SIDECAR, GATEWAY, ACTIVATOR])
def test_an_overlay_is_sound_where_it_is_the_one_that_is_meant(
    bench: Bench, pod: str, overlay: str
) -> None:
    expected = Expected(shipped(overlay), plaintext=PLAINTEXT)
    assert examined(bench.dump(pod, shipped(overlay)), expected) == []


@pytest.mark.parametrize("pod", [SIDECAR, ACTIVATOR])
def test_a_script_that_is_another_one_is_found(bench: Bench, pod: str) -> None:
    documents = deepcopy(list(shipped("reuse")))
    for document in documents:
        if document["metadata"]["name"].startswith("tenant-authz-reuse"):
            for patch in document["spec"]["configPatches"]:
                source = patch["patch"].get("value", {})
                source = source.get("typed_config", {}).get("default_source_code")
                if source:
                    text = source["inline_string"].replace("now >= kept.ends", "false")
                    source["inline_string"] = text.replace("domain ~= DOMAIN", "false")
    expected = Expected(shipped("reuse"), plaintext=PLAINTEXT)
    assert examined(bench.dump(pod, documents), expected)


def test_older_proxies_lack_early_data_and_are_sound(bench: Bench) -> None:
    assert examined(bench.dump(SIDECAR, version="1.28.2")) == []
    newer = bench.dump(SIDECAR, version="1.28.2")
    newer["configs"][0]["bootstrap"]["node"]["metadata"]["ISTIO_VERSION"] = "1.30.0"
    assert {it.rule for it in examined(newer)} == {Rule.EARLY_CONNECT}


# ---- what is not installed ----


@pytest.mark.parametrize(
    ("missing", "pod", "rules"),
    [
        ("tenant-authz-sign", SIDECAR, {Rule.SIGN_MISSING}),
        ("tenant-authz-verify", SIDECAR, {Rule.VERIFY_MISSING, Rule.STRIP_MISSING}),
        ("tenant-authz-tcp", SIDECAR, {Rule.TCP_MISSING, Rule.EARLY_CONNECT}),
        ("tenant-authz-scrape", KNATIVE, {Rule.SCRAPE_MISSING}),
        ("tenant-authz-public", GATEWAY, {Rule.PUBLIC_MISSING, Rule.STRIP_MISSING}),
        ("tenant-authz-transit", ACTIVATOR, {Rule.TRANSIT_MISSING, Rule.UNEXPECTED}),
        (
            "tenant-authz-broker",
            "knative-eventing/broker-ingress",
            {Rule.TRANSIT_MISSING, Rule.CARRY_MISSING, Rule.UNEXPECTED},
        ),
        (
            "tenant-authz-channel",
            "knative-eventing/imc-dispatcher",
            {Rule.TRANSIT_MISSING, Rule.UNEXPECTED},
        ),
        ("tenant-authz-carry", "knative-eventing/broker-ingress", {Rule.CARRY_MISSING}),
        (
            "tenant-authz-filter",
            "knative-eventing/broker-filter",
            {Rule.TRANSIT_MISSING, Rule.UNEXPECTED, Rule.NO_POLICY},
        ),
        ("tenant-authz-none", "authz-system/authz", {Rule.UNEXPECTED}),
        ("tenant-authz-webhook", "knative-serving/webhook", {Rule.UNEXPECTED}),
    ],
)
def test_a_filter_that_is_not_installed(
    bench: Bench, missing: str, pod: str, rules: set[Rule]
) -> None:
    kinds = {"EnvoyFilter", "AuthorizationPolicy"}
    documents = [
        it for it in shipped() if it["metadata"]["name"] != missing or it["kind"] not in kinds
    ]
    assert len(documents) < len(shipped())
    found = examined(bench.dump(pod, documents))
    assert {it.rule for it in found} == rules
    assert all(it.workload == pod for it in found)


def test_the_local_gateway_without_its_question(bench: Bench) -> None:
    found = examined(bench.dump(GATEWAY, without("tenant-authz-local-gateway")(shipped())))
    assert {it.rule for it in found} == {Rule.TRANSIT_MISSING, Rule.UNEXPECTED}
    assert all("8081" in it.where for it in found)
    assert "istio-system/tenant-authz-local-gateway" in str(found)


def test_the_local_gateway_in_plaintext(bench: Bench) -> None:
    documents = [it for it in shipped() if it["kind"] != "Gateway"]
    [found] = examined(bench.dump(GATEWAY, documents))
    assert found.rule is Rule.GATEWAY_PLAINTEXT
    assert "8081" in found.where


def test_a_hop_without_the_policy_that_says_who_may_call_it(bench: Bench) -> None:
    documents = [it for it in shipped() if it["kind"] != "AuthorizationPolicy"]
    found = examined(bench.dump("knative-eventing/broker-filter", documents))
    assert {it.rule for it in found} == {Rule.NO_POLICY}
    assert "imc-dispatcher" in found[0].what
    assert any("8080" in it.where for it in found)


@pytest.mark.parametrize(
    ("overlay", "pod", "rules"),
    [
        ("shadow", SIDECAR, {Rule.FAILS_OPEN}),
        ("shadow", GATEWAY, {Rule.FAILS_OPEN}),
        ("shadow", ACTIVATOR, {Rule.FAILS_OPEN}),
        ("break-glass", SIDECAR, {Rule.SWITCHED_OFF}),
        ("break-glass", GATEWAY, {Rule.SWITCHED_OFF}),
        ("break-glass", ACTIVATOR, {Rule.SWITCHED_OFF}),
    ],
)
def test_another_overlay(bench: Bench, overlay: str, pod: str, rules: set[Rule]) -> None:
    assert {it.rule for it in examined(bench.dump(pod, shipped(overlay)))} == rules


def _foreign(context: str, operation: str, before: str | None = None) -> Json:
    inner = {"name": "envoy.filters.network.http_connection_manager"}
    if before:
        inner["subFilter"] = {"name": before}  # type: ignore[assignment]
    value = {
        "name": "somebody.elses",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"},
    }
    return {
        "kind": "EnvoyFilter",
        "metadata": {"name": "somebody", "namespace": "istio-system"},
        "spec": {
            "priority": 50,
            "configPatches": [
                {
                    "applyTo": "HTTP_FILTER",
                    "match": {"context": context, "listener": {"filterChain": {"filter": inner}}},
                    "patch": {"operation": operation, "value": value},
                }
            ],
        },
    }


@pytest.mark.parametrize(
    ("foreign", "pod"),
    [
        (_foreign("SIDECAR_INBOUND", "INSERT_FIRST"), SIDECAR),
        (_foreign("SIDECAR_OUTBOUND", "INSERT_BEFORE", "envoy.filters.http.router"), SIDECAR),
        (_foreign("GATEWAY", "INSERT_BEFORE", "envoy.filters.http.router"), GATEWAY),
        (_foreign("SIDECAR_INBOUND", "INSERT_FIRST"), ACTIVATOR),
    ],
)
def test_somebody_elses_filter_on_the_wrong_side_of_ours(
    bench: Bench, foreign: Json, pod: str
) -> None:
    found = examined(bench.dump(pod, [*shipped(), foreign]))
    assert {it.rule for it in found} == {Rule.ORDER, Rule.UNKNOWN_FILTER}
    early = deepcopy(foreign)
    early["spec"]["priority"] = 0
    found = examined(bench.dump(pod, [*shipped(), early]))
    assert {it.rule for it in found} == {Rule.UNKNOWN_FILTER}
    assert all("unknown filter somebody.elses (Lua)" in it.what for it in found)


# ---- fields ----

Broken = Callable[[Json], Any]


def _typed(name: str, change: Callable[[Json], Any]) -> Broken:
    def broken(dump: Json) -> None:
        for it in named(dump, name):
            change(it["typed_config"])

    return broken


def _metadata(key: str, value: str) -> Callable[[Json], Any]:
    def change(typed: Json) -> None:
        for it in typed["grpc_service"]["initial_metadata"]:
            if it["key"] == key:
                it["value"] = value

    return change


def _again(typed: Json) -> None:
    typed["grpc_service"]["initial_metadata"].append({"key": "x-authz-question", "value": "tcp"})


def _envoy_grpc(name: str) -> Callable[[Json], Any]:
    return lambda typed: typed["grpc_service"]["envoy_grpc"].update(cluster_name=name)


SIGN, VERIFY, TCP = "tenant-authz.sign", "tenant-authz.verify", "tenant-authz.tcp"
STRIP, PUBLIC, SCRAPE = "tenant-authz.strip", "tenant-authz.public", "tenant-authz.scrape"


@pytest.mark.parametrize(
    ("broken", "pod", "rule", "said"),
    [
        (
            _typed(VERIFY, lambda it: it.update(failure_mode_allow=True)),
            SIDECAR,
            Rule.FAILS_OPEN,
            "failure_mode_allow is True, must be not set",
        ),
        (
            _typed(TCP, lambda it: it.update(failure_mode_allow=True)),
            SIDECAR,
            Rule.FAILS_OPEN,
            "failure_mode_allow",
        ),
        (
            _typed(SIGN, lambda it: it.pop("failure_mode_allow")),
            SIDECAR,
            Rule.FIELD,
            "failure_mode_allow is not set, must be True",
        ),
        (
            _typed(VERIFY, _metadata("x-authz-question", "sign")),
            SIDECAR,
            Rule.QUESTION,
            "x-authz-question is sign, must be verify",
        ),
        (_typed(VERIFY, _again), SIDECAR, Rule.QUESTION, "verify, tcp"),
        (
            _typed(SIGN, _metadata("x-authz-upstream", "%REQ(:AUTHORITY)%")),
            SIDECAR,
            Rule.UPSTREAM,
            "must be %UPSTREAM_CLUSTER_RAW%",
        ),
        (
            _typed(PUBLIC, lambda it: it["grpc_service"]["initial_metadata"].pop()),
            GATEWAY,
            Rule.UPSTREAM,
            "x-authz-upstream is not set",
        ),
        (
            _typed("tenant-authz.transit", _metadata("x-authz-hop", "broker")),
            ACTIVATOR,
            Rule.QUESTION,
            "x-authz-hop is broker, must be activator",
        ),
        (
            _typed(SIGN, lambda it: it.pop("decoder_header_mutation_rules")),
            SIDECAR,
            Rule.MUTATION,
            "disallow_all is not set",
        ),
        (
            _typed(
                SIGN,
                lambda it: it["decoder_header_mutation_rules"]["allow_expression"].update(
                    regex=".*"
                ),
            ),
            SIDECAR,
            Rule.MUTATION,
            "regex is .*",
        ),
        (
            _typed(VERIFY, lambda it: it["allowed_headers"]["patterns"].pop(0)),
            SIDECAR,
            Rule.ALLOWED_HEADERS,
            "x-tenant-token is not set",
        ),
        (
            _typed(VERIFY, lambda it: it.pop("allowed_headers")),
            SIDECAR,
            Rule.ALLOWED_HEADERS,
            "x-tenant-token",
        ),
        (
            _typed(VERIFY, lambda it: it["allowed_headers"]["patterns"].append({"prefix": "auth"})),
            SIDECAR,
            Rule.ALLOWED_HEADERS,
            "auth",
        ),
        (
            _typed(VERIFY, lambda it: it.pop("encode_raw_headers")),
            SIDECAR,
            Rule.RAW_HEADERS,
            "encode_raw_headers",
        ),
        (
            _typed(VERIFY, lambda it: it["grpc_service"].update(timeout="600s")),
            SIDECAR,
            Rule.TIMEOUT,
            "timeout is 600s, must be 1s",
        ),
        (
            _typed(SIGN, _envoy_grpc("outbound|9000||evil.mallory.svc.cluster.local")),
            SIDECAR,
            Rule.WRONG_CLUSTER,
            "evil.mallory",
        ),
        (
            _typed(VERIFY, lambda it: it.pop("status_on_error")),
            SIDECAR,
            Rule.STATUS_ON_ERROR,
            "ServiceUnavailable",
        ),
        (
            _typed(STRIP, lambda it: it["request_rules"][0].pop("remove")),
            SIDECAR,
            Rule.STRIP_RULE,
            "remove is not set, must be True",
        ),
        (
            _typed(
                SCRAPE,
                lambda it: it["shadow_rules"]["policies"]["scrape"].update(
                    principals=[{"any": True}]
                ),
            ),
            KNATIVE,
            Rule.SCRAPE_RULE,
            "any is True",
        ),
        (
            _typed(SCRAPE, lambda it: it["shadow_rules"].update(action="DENY")),
            KNATIVE,
            Rule.SCRAPE_RULE,
            "action is DENY",
        ),
        (
            lambda dump: [it.update(disabled=True) for it in named(dump, VERIFY)],
            SIDECAR,
            Rule.SWITCHED_OFF,
            "disabled is True",
        ),
        (
            _typed(VERIFY, lambda it: it.update(filter_enabled={"default_value": {}})),
            SIDECAR,
            Rule.SWITCHED_OFF,
            "filter_enabled",
        ),
        (
            _typed(VERIFY, lambda it: it.update({"@type": EXTAUTHZ.replace("ext_authz", "lua")})),
            SIDECAR,
            Rule.FIELD,
            "@type",
        ),
        (
            _typed(VERIFY, lambda it: it.update(clear_route_cache=True)),
            SIDECAR,
            Rule.FIELD,
            "clear_route_cache is True",
        ),
        (
            _typed(
                "envoy.filters.network.tcp_proxy", lambda it: it.pop("upstream_connect_mode", None)
            ),
            SIDECAR,
            Rule.EARLY_CONNECT,
            "must be ON_DOWNSTREAM_DATA",
        ),
    ],
)
def test_a_field_that_is_wrong(
    bench: Bench, broken: Broken, pod: str, rule: Rule, said: str
) -> None:
    dump = bench.dump(pod)
    broken(dump)
    found = examined(dump)
    assert {it.rule for it in found} == {rule}
    assert said in found[0].what


def test_how_envoy_writes_the_same_is_the_same(bench: Bench) -> None:
    dump = bench.dump(KNATIVE)
    for it in named(dump, SIGN):
        it["typed_config"]["grpc_service"]["timeout"] = "0.250s"
        it["typed_config"]["allowed_headers"]["patterns"].reverse()
    for it in named(dump, VERIFY):
        it["typed_config"].pop("failure_mode_allow")
    for it in named(dump, SCRAPE):
        it["typed_config"]["shadow_rules"].pop("action")  # the first of its enum
    assert examined(dump) == []


# ---- places ----


def _one(dump: Json, name: str) -> None:
    """Take it out of one chain only, the first."""
    several = [it for it in lists(dump) if any(one["name"] == name for one in it)]
    first = several[0]
    first[:] = [it for it in first if it["name"] != name]


@pytest.mark.parametrize(
    ("name", "rule"),
    [(SIGN, Rule.SIGN_MISSING), (VERIFY, Rule.VERIFY_MISSING), (TCP, Rule.TCP_MISSING)],
)
def test_one_chain_of_many(bench: Bench, name: str, rule: Rule) -> None:
    dump = bench.dump(SIDECAR)
    _one(dump, name)
    [found] = examined(dump)
    assert found.rule is rule
    assert name in found.what


def test_a_filter_that_is_there_twice(bench: Bench) -> None:
    dump = bench.dump(SIDECAR)
    for several in lists(dump):
        if several[0]["name"] == VERIFY:
            several.insert(0, deepcopy(several[0]))
    assert {it.rule for it in examined(dump)} == {Rule.REPEATED}


def test_verify_behind_strip(bench: Bench) -> None:
    dump = bench.dump(SIDECAR)
    for several in lists(dump):
        if several[0]["name"] == VERIFY:
            several[0], several[1] = several[1], several[0]
    found = examined(dump)
    assert {it.rule for it in found} == {Rule.ORDER}
    assert "must be tenant-authz.verify, tenant-authz.strip" in found[0].what


@pytest.mark.parametrize(
    ("name", "rule"),
    [("somebody.elses", Rule.UNCOVERED), ("envoy.filters.network.redis_proxy", Rule.TCP_MISSING)],
)
def test_a_chain_of_another_kind_with_nobody_of_ours(bench: Bench, name: str, rule: Rule) -> None:
    dump = bench.dump(SIDECAR)
    chain = listener(dump, "virtualInbound")["filter_chains"][-1]
    chain["filters"] = [{"name": name, "typed_config": {"@type": "x"}}]
    assert {it.rule for it in examined(dump)} == {rule, Rule.UNKNOWN_FILTER}


def test_http_that_leaves_by_a_manager_without_a_router(bench: Bench) -> None:
    dump = bench.dump(SIDECAR)
    [manager, *_] = [
        it for it in managers(dump) if any(f["name"] == SIGN for f in it["http_filters"])
    ]
    manager["http_filters"] = [{"name": "somebody.elses", "typed_config": {"@type": "x"}}]
    assert {it.rule for it in examined(dump)} == {Rule.UNCOVERED, Rule.UNKNOWN_FILTER}


def test_a_listener_that_is_not_istiods(bench: Bench) -> None:
    dump = bench.dump(SIDECAR)
    mine = deepcopy(listener(dump, "virtualInbound"))
    del mine["traffic_direction"]
    mine["name"] = "mine"
    dump["configs"][2]["static_listeners"].append({"listener": mine})
    assert {it.rule for it in examined(dump)} == {Rule.UNCOVERED}


def test_a_port_of_the_gateway_that_nobody_named(bench: Bench) -> None:
    dump = bench.dump(GATEWAY)
    extra = deepcopy(listener(dump, "0.0.0.0_8080"))
    extra["name"] = "0.0.0.0_9443"
    extra["address"]["socket_address"]["port_value"] = 9443
    filters = extra["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    filters[:] = [it for it in filters if it["name"] != PUBLIC]
    dump["configs"][2]["static_listeners"].append({"listener": extra})
    [found] = examined(dump)
    assert (found.rule, "9443" in found.what) == (Rule.NOT_ASKED_PORT, True)


# ---- the way to the service ----


def _tls(dump: Json) -> Json:
    found: Json = service_cluster(dump)["transport_socket"]["typed_config"]["common_tls_context"]
    return found


def _sans(*names: str) -> Broken:
    def broken(dump: Json) -> None:
        matchers = [{"exact": name} for name in names]
        validation = _tls(dump)["combined_validation_context"]["default_validation_context"]
        validation["match_subject_alt_names"] = matchers

    return broken


def _auto_mutual_tls(dump: Json) -> None:
    """As istiod does where no DestinationRule says otherwise: plaintext to who has no sidecar."""
    cluster = service_cluster(dump)
    mutual = {"name": "tlsMode-istio", "transport_socket": cluster.pop("transport_socket")}
    raw = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
    }
    plain = {"name": "tlsMode-disabled", "transport_socket": {"typed_config": raw}}
    cluster["transport_socket_matches"] = [mutual, plain]


OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (
            lambda dump: service_cluster(dump)["typed_extension_protocol_options"].clear(),
            {Rule.CLUSTER_HTTP2, Rule.CLUSTER_TIMES},
        ),
        (lambda dump: service_cluster(dump).pop("transport_socket"), Rule.CLUSTER_PLAINTEXT),
        (_auto_mutual_tls, Rule.CLUSTER_PLAINTEXT),
        (lambda dump: _tls(dump).pop("tls_certificate_sds_secret_configs"), Rule.CLUSTER_TRUST),
        (_sans(), Rule.CLUSTER_IDENTITY),
        (_sans("spiffe://cluster.local/ns/mallory/sa/default"), Rule.CLUSTER_IDENTITY),
        (
            _sans(
                "spiffe://cluster.local/ns/authz-system/sa/authz",
                "spiffe://cluster.local/ns/mallory/sa/default",
            ),
            Rule.CLUSTER_IDENTITY,
        ),
        (lambda dump: service_cluster(dump).pop("outlier_detection"), Rule.CLUSTER_OUTLIER),
        (
            lambda dump: service_cluster(dump)["outlier_detection"].update(consecutive_5xx=0),
            Rule.CLUSTER_OUTLIER,
        ),
        (lambda dump: service_cluster(dump).update(connect_timeout="10s"), Rule.CLUSTER_TIMES),
        (
            lambda dump: service_cluster(dump)["typed_extension_protocol_options"][OPTIONS].pop(
                "common_http_protocol_options"
            ),
            Rule.CLUSTER_TIMES,
        ),
    ],
)
@pytest.mark.parametrize("pod", [SIDECAR, GATEWAY])
def test_the_way_to_the_service(
    bench: Bench, broken: Broken, pod: str, rule: Rule | set[Rule]
) -> None:
    dump = bench.dump(pod)
    broken(dump)
    wanted = rule if isinstance(rule, set) else {rule}
    assert {it.rule for it in examined(dump)} == wanted


def test_a_sidecar_object_that_hides_the_service(bench: Bench) -> None:
    [found] = examined(bench.dump(SIDECAR, [*shipped(), worlds.HIDES_THE_SERVICE]))
    assert (found.rule, "authz.authz-system" in found.where) == (Rule.CLUSTER_MISSING, True)


def test_no_way_to_the_service_and_advice_that_fits(bench: Bench) -> None:
    rules = {SIDECAR: Rule.CLUSTER_MISSING, GATEWAY: Rule.GATEWAY_CLUSTER_MISSING}
    for pod, rule in rules.items():
        dump = bench.dump(pod)
        service_cluster(dump).update(name="other")
        found = examined(dump)
        assert {it.rule for it in found} == {rule, Rule.UNKNOWN_CLUSTER}
        assert ("Sidecar" in rule.mend) == (pod == SIDECAR)


def test_no_destination_rule_at_all(bench: Bench) -> None:
    documents = [it for it in shipped() if it["kind"] != "DestinationRule"]
    rules = {it.rule for it in examined(bench.dump(SIDECAR, documents))}
    assert {Rule.CLUSTER_OUTLIER, Rule.CLUSTER_TIMES} <= rules


# ---- ways past the proxy ----


def test_a_namespace_that_takes_plaintext(bench: Bench) -> None:
    dump = bench.dump(SIDECAR, [*shipped(), worlds.mutual_tls("globex", "PERMISSIVE")])
    found = examined(dump)
    assert {it.rule for it in found} == {Rule.PLAINTEXT}
    assert any("port 8000" in it.where for it in found)
    on_purpose = Expected(shipped(), plaintext=["globex"])
    assert examined(dump, on_purpose) == []


def test_a_port_that_takes_plaintext_on_purpose(bench: Bench) -> None:
    dump = bench.dump("knative-serving/webhook")
    bare = [it for it in shipped() if it["kind"] != "PeerAuthentication"]
    for documents, told in ((shipped(), False), (bare, True)):
        found = examined(dump, Expected(documents))
        assert {it.rule for it in found} == {Rule.PLAINTEXT}
        assert any("port 8443" in it.where for it in found) is told


@pytest.mark.parametrize(
    ("annotations", "rule"),
    [
        ({"traffic.sidecar.istio.io/excludeInboundPorts": "9999"}, Rule.EXCLUDED_PORT),
        ({"traffic.sidecar.istio.io/excludeInboundPorts": "15020, 9999"}, Rule.EXCLUDED_PORT),
        ({"traffic.sidecar.istio.io/includeInboundPorts": "8080"}, Rule.EXCLUDED_PORT),
        ({"traffic.sidecar.istio.io/includeInboundPorts": "15020"}, Rule.EXCLUDED_PORT),
        ({"traffic.sidecar.istio.io/includeInboundPorts": ""}, Rule.EXCLUDED_PORT),
        ({"traffic.sidecar.istio.io/excludeInterfaces": "eth1"}, Rule.EXCLUDED_PORT),
        ({"sidecar.istio.io/interceptionMode": "NONE"}, Rule.NO_CAPTURE),
        ({"istio.io/reroute-virtual-interfaces": "eth0"}, Rule.EXCLUDED_PORT),
        ({"traffic.sidecar.istio.io/kubevirtInterfaces": "eth0"}, Rule.EXCLUDED_PORT),
        ({"istio.io/reroute-virtual-interfaces": ""}, None),
        ({"traffic.sidecar.istio.io/includeInboundPorts": "*"}, None),
        ({"traffic.sidecar.istio.io/excludeInboundPorts": ""}, None),
        ({"traffic.sidecar.istio.io/excludeInboundPorts": "15020"}, None),  # the injector's own
    ],
)
def test_annotations_that_lead_past_the_proxy(
    bench: Bench, annotations: dict[str, str], rule: Rule | None
) -> None:
    dump = bench.dump(SIDECAR)
    dump["configs"][0]["bootstrap"]["node"]["metadata"]["ANNOTATIONS"] = annotations
    assert [it.rule for it in examined(dump)] == ([rule] if rule else [])


def test_our_own_pods_behind_a_sidecar_keep_their_side_port_out_of_it(bench: Bench) -> None:
    dump = bench.dump("authz-system/authz")
    side_port = {"traffic.sidecar.istio.io/excludeInboundPorts": "9001"}  # overlays/xfcc
    dump["configs"][0]["bootstrap"]["node"]["metadata"]["ANNOTATIONS"] = side_port
    assert examined(dump) == []


@pytest.mark.parametrize(("mode", "hangs"), [("", True), ("auto", True), ("enabled", False)])
def test_a_knative_pod_that_takes_plaintext_misleads_the_activator(
    bench: Bench, mode: str, hangs: bool
) -> None:
    documents = [*shipped(), worlds.mutual_tls("globex", "PERMISSIVE")]
    expected = Expected(documents, plaintext=["globex"], mesh_mode=mode)
    found = examined(bench.dump(KNATIVE, documents), expected)
    assert [it.rule for it in found] == ([Rule.COLD_START] if hangs else [])
    assert all(str([8012, 8013]) in it.what for it in found)
    assert examined(bench.dump(SIDECAR, documents), expected) == []
    assert examined(bench.dump(KNATIVE), Expected(shipped(), mesh_mode=mode)) == []


def test_a_proxy_that_captures_nothing(bench: Bench) -> None:
    dump = bench.dump(SIDECAR)
    dump["configs"][0]["bootstrap"]["node"]["metadata"]["INTERCEPTION_MODE"] = "NONE"
    static = dump["configs"][2]["static_listeners"]
    static[:] = [it for it in static if it["listener"]["name"] != "virtualInbound"]
    assert [it.rule for it in examined(dump)] == [Rule.NO_CAPTURE, Rule.NO_CAPTURE]


def test_a_listener_that_forgets_which_port_was_called(bench: Bench) -> None:
    dump = bench.dump(SIDECAR)
    del listener(dump, "virtualInbound")["listener_filters"][0]
    assert [it.rule for it in examined(dump)] == [Rule.NO_CAPTURE]


# ---- routes ----


def _route(dump: Json) -> Json:
    configs = [manager["route_config"] for manager in managers(dump) if "route_config" in manager]
    found: Json = configs[-1]["virtual_hosts"][0]
    return found


def test_a_route_that_switches_our_filter_off(bench: Bench) -> None:
    dump = bench.dump(SIDECAR)
    off = {"@type": f"{EXTAUTHZ}PerRoute", "disabled": True}
    _route(dump)["routes"][0]["typed_per_filter_config"] = {VERIFY: off, "other": {}}
    found = examined(dump)
    assert {it.rule for it in found} >= {Rule.ROUTE_OVERRIDE, Rule.UNKNOWN_FILTER}
    assert VERIFY in str(found)


@pytest.mark.parametrize(
    "change",
    [
        {"request_headers_to_add": [{"header": {"key": "X-Tenant-Token", "value": "mine"}}]},
        {"request_headers_to_remove": ["x-tenant-token"]},
    ],
)
def test_a_route_that_changes_the_token(bench: Bench, change: Json) -> None:
    dump = bench.dump(SIDECAR)
    _route(dump).update(change)
    assert [it.rule for it in examined(dump)] == [Rule.ROUTE_HEADER]


# ---- as xDS delivers it ----


def test_holes_are_found_in_what_xds_delivers(bench: Bench) -> None:
    documents = without("tenant-authz-sign")(shipped())
    static = examined(bench.dump(SIDECAR, documents))
    found = examined(bench.dump(SIDECAR, documents, dynamic=True))
    assert found == static != []


def test_a_route_of_rds(bench: Bench) -> None:
    dump = bench.dump(SIDECAR, dynamic=True)
    config = dump["configs"][3]["dynamic_route_configs"][0]["route_config"]
    config["virtual_hosts"][0]["typed_per_filter_config"] = {SIGN: {}}
    [found] = examined(dump)
    assert (found.rule, config["name"] in found.where) == (Rule.ROUTE_OVERRIDE, True)


def test_a_listener_that_the_proxy_refused(bench: Bench) -> None:
    dump = bench.dump(SIDECAR, dynamic=True)
    state = {"details": "Unknown field in tenant-authz.sign"}
    dump["configs"][2]["dynamic_listeners"][0]["error_state"] = state
    [found] = examined(dump)
    assert (found.rule, found.what) == (Rule.REFUSED, state["details"])


def test_a_listener_that_never_came_into_force(bench: Bench) -> None:
    dump = bench.dump(SIDECAR, dynamic=True)
    it = next(
        it for it in dump["configs"][2]["dynamic_listeners"] if it["name"] == "virtualInbound"
    )
    it["warming_state"] = it.pop("active_state")
    assert {it.rule for it in examined(dump)} == {Rule.REFUSED, Rule.NO_CAPTURE}


def _by_ecds(dump: Json, change: Callable[[Json], Any]) -> Json:
    delivered = {}
    for it in named(dump, VERIFY):
        delivered[VERIFY] = it.pop("typed_config")
        it["config_discovery"] = {"config_source": {"ads": {}}}
    change(delivered[VERIFY])
    filters = [
        {"ecds_filter": {"name": name, "typed_config": typed}} for name, typed in delivered.items()
    ]
    kind = "type.googleapis.com/envoy.admin.v3.EcdsConfigDump"
    dump["configs"].append({"@type": kind, "ecds_filters": filters})
    return dump


def test_filters_that_ecds_delivers_are_read(bench: Bench) -> None:
    assert examined(_by_ecds(bench.dump(SIDECAR, dynamic=True), lambda typed: typed)) == []
    fails_open = _by_ecds(
        bench.dump(SIDECAR, dynamic=True), lambda typed: typed.update(failure_mode_allow=True)
    )
    assert {it.rule for it in examined(fails_open)} == {Rule.FAILS_OPEN}


def test_every_rule_says_why_and_how(bench: Bench) -> None:
    for rule in Rule:
        assert rule.why
        assert rule.mend
        assert "\n" not in rule.why
    assert Proxy("sidecar", "a", {}).istio_version == "1.30.0"
    assert list(chains(bench.dump(SIDECAR)))
    assert listeners(bench.dump(SIDECAR))
