"""Holes planted into what a real istiod sent: each is found, by a rule that fits it.

The first lines are those of an expert reader who planted twenty and saw three found.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from authz.doctor import Rule
from tests.doctor.proxies import Bench, Json, chains, examined, managers

SIDECAR, KNATIVE, GATEWAY = "globex/plain", "globex/hello", "istio-system/gateway"
ACTIVATOR, BROKER = "knative-serving/activator", "knative-eventing/broker-ingress"
CHANNEL, FILTER = "knative-eventing/imc-dispatcher", "knative-eventing/broker-filter"
EVERYWHERE = (SIDECAR, KNATIVE, ACTIVATOR, BROKER, GATEWAY)
SIDECARS = (SIDECAR, ACTIVATOR, BROKER)

Plant = Callable[[Json], Any]
PLANTS: list[tuple[str, str, Rule, Plant]] = []

LUA = {
    "name": "somebody.elses",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"},
}
HTTP = "type.googleapis.com/envoy.extensions.filters.http"


def hole(rule: Rule, *pods: str) -> Callable[[Plant], Plant]:
    """Plant it into the dumps of these pods; it must be found by this rule."""

    def kept(plant: Plant) -> Plant:
        PLANTS.extend((plant.__name__, pod, rule, plant) for pod in pods)
        return plant

    return kept


# ---- looking into a dump as xDS delivers it ----


def sent(dump: Json, name: str) -> Json:
    """A dynamic listener."""
    for listener in dump["configs"][2]["dynamic_listeners"]:
        if listener["name"] == name:
            found: Json = listener["active_state"]["listener"]
            return found
    raise KeyError(name)


def arriving(dump: Json) -> Json:
    return sent(dump, "virtualInbound")


def ends_tls(dump: Json) -> list[Json]:
    """TLS contexts of all that arrives."""
    return [
        it["transport_socket"]["typed_config"] for it in chains(dump) if "transport_socket" in it
    ]


def inbound_managers(dump: Json) -> list[Json]:
    return [
        manager
        for manager in managers(dump)
        if "route_config" in manager and "virtual_hosts" in manager["route_config"]
    ]


def outbound_managers(dump: Json) -> list[Json]:
    return [manager for manager in managers(dump) if "rds" in manager]


def asking(dump: Json, name: str) -> Json:
    """The first manager with that filter."""
    return next(it for it in managers(dump) if any(f["name"] == name for f in it["http_filters"]))


def cluster(dump: Json, start: str) -> Json:
    every = dump["configs"][1]["dynamic_active_clusters"]
    return next(it["cluster"] for it in every if it["cluster"]["name"].startswith(start))


def route_configs(dump: Json) -> list[Json]:
    return [config["route_config"] for config in dump["configs"][3]["dynamic_route_configs"]]


def first_route(dump: Json) -> Json:
    """The first that leads to a cluster of istiod's."""
    for config in route_configs(dump):
        for host in config["virtual_hosts"]:
            for route in host["routes"]:
                if route.get("route", {}).get("cluster", "").startswith("outbound|"):
                    found: Json = route
                    return found
    raise KeyError


def bootstrap(dump: Json) -> Json:
    found: Json = dump["configs"][0]["bootstrap"]
    return found


def static(dump: Json) -> list[Json]:
    found: list[Json] = dump["configs"][2]["static_listeners"]
    return found


# ---- upgrades ----


@hole(Rule.UPGRADE, *EVERYWHERE)
def an_upgrade_has_filters_of_its_own(dump: Json) -> None:
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{HTTP}.router.v3.Router"},
    }
    for manager in managers(dump):
        manager["upgrade_configs"] = [{"upgrade_type": "websocket", "filters": [router]}]


@hole(Rule.UPGRADE, SIDECAR, GATEWAY)
def connect_is_taken(dump: Json) -> None:
    next(managers(dump))["upgrade_configs"].append({"upgrade_type": "CONNECT"})


@hole(Rule.UNKNOWN_FIELD, SIDECAR)
def extended_connect_is_taken(dump: Json) -> None:
    next(managers(dump))["http2_protocol_options"] = {"allow_connect": True}


# ---- callers' certificates ----


@hole(Rule.TRUST, *SIDECARS)
def callers_need_no_certificate(dump: Json) -> None:
    for it in ends_tls(dump):
        it["require_client_certificate"] = False


@hole(Rule.TRUST, *SIDECARS)
def callers_need_no_certificate_as_by_default(dump: Json) -> None:
    ends_tls(dump)[0].pop("require_client_certificate")


@hole(Rule.TRUST, *SIDECARS)
def untrusted_certificates_are_accepted(dump: Json) -> None:
    validation = ends_tls(dump)[0]["common_tls_context"]["combined_validation_context"]
    validation["default_validation_context"]["trust_chain_verification"] = "ACCEPT_UNTRUSTED"


@hole(Rule.TRUST, SIDECAR, ACTIVATOR)
def callers_are_validated_by_another_secret(dump: Json) -> None:
    validation = ends_tls(dump)[0]["common_tls_context"]["combined_validation_context"]
    validation["validation_context_sds_secret_config"]["name"] = "kubernetes://mine-cacert"


@hole(Rule.TRUST, SIDECAR)
def roots_come_from_another_stream(dump: Json) -> None:
    validation = ends_tls(dump)[0]["common_tls_context"]["combined_validation_context"]
    source = validation["validation_context_sds_secret_config"]["sds_config"]["api_config_source"]
    source["grpc_services"] = [
        {"envoy_grpc": {"cluster_name": "outbound|80||a.b.svc.cluster.local"}}
    ]


@hole(Rule.TRUST, SIDECAR)
def callers_of_another_trust_domain(dump: Json) -> None:
    validation = ends_tls(dump)[0]["common_tls_context"]["combined_validation_context"]
    names = validation["default_validation_context"]["match_subject_alt_names"]
    names.append({"prefix": "spiffe://elsewhere.example/"})


@hole(Rule.TRUST, SIDECAR)
def callers_of_any_trust_domain(dump: Json) -> None:
    validation = ends_tls(dump)[0]["common_tls_context"]["combined_validation_context"]
    validation["default_validation_context"].clear()


@hole(Rule.TRUST, SIDECAR)
def callers_are_pinned_to_a_file(dump: Json) -> None:
    common = ends_tls(dump)[0]["common_tls_context"]
    del common["combined_validation_context"]
    common["validation_context"] = {"trusted_ca": {"filename": "/ca.pem"}}


@hole(Rule.TRUST, SIDECAR)
def tls_of_yesteryear(dump: Json) -> None:
    ends_tls(dump)[0]["common_tls_context"]["tls_params"]["tls_minimum_protocol_version"] = (
        "TLSv1_0"
    )


@hole(Rule.GATEWAY_PLAINTEXT, GATEWAY)
def the_local_gateway_needs_no_certificate(dump: Json) -> None:
    for it in ends_tls(dump):
        it["require_client_certificate"] = False


@hole(Rule.GATEWAY_PLAINTEXT, GATEWAY)
def the_local_gateway_takes_untrusted_certificates(dump: Json) -> None:
    [chain] = sent(dump, "0.0.0.0_8081")["filter_chains"]
    common = chain["transport_socket"]["typed_config"]["common_tls_context"]
    validation = common["combined_validation_context"]["default_validation_context"]
    validation["trust_chain_verification"] = "ACCEPT_UNTRUSTED"


@hole(Rule.GATEWAY_PLAINTEXT, GATEWAY)
def the_local_gateway_speaks_plaintext(dump: Json) -> None:
    del sent(dump, "0.0.0.0_8081")["filter_chains"][0]["transport_socket"]


# ---- the way to the service, and to tenants ----


@hole(Rule.CLUSTER_TRUST, SIDECAR, GATEWAY)
def whoever_answers_us_need_not_be_trusted(dump: Json) -> None:
    service = cluster(dump, "outbound|9000||authz")
    common = service["transport_socket"]["typed_config"]["common_tls_context"]
    validation = common["combined_validation_context"]["default_validation_context"]
    validation["trust_chain_verification"] = "ACCEPT_UNTRUSTED"


@hole(Rule.CLUSTER_TRUST, SIDECAR, GATEWAY)
def whoever_answers_us_is_validated_by_another_secret(dump: Json) -> None:
    service = cluster(dump, "outbound|9000||authz")
    common = service["transport_socket"]["typed_config"]["common_tls_context"]
    validation = common["combined_validation_context"]
    validation["validation_context_sds_secret_config"]["name"] = "mine"


@hole(Rule.CLUSTER_IDENTITY, SIDECAR, GATEWAY)
def somebody_else_answers(dump: Json) -> None:
    service = cluster(dump, "outbound|9000||authz")
    common = service["transport_socket"]["typed_config"]["common_tls_context"]
    validation = common["combined_validation_context"]["default_validation_context"]
    validation["match_subject_alt_names"] = [{"exact": "spiffe://cluster.local/ns/mallory/sa/x"}]


@hole(Rule.CLUSTER_LEADS, SIDECAR, ACTIVATOR)
def the_service_has_other_endpoints(dump: Json) -> None:
    service = cluster(dump, "outbound|9000||authz")
    service["eds_cluster_config"]["service_name"] = "outbound|9000||authz.mallory.svc.cluster.local"


@hole(Rule.CLUSTER_PLAINTEXT, ACTIVATOR, GATEWAY, SIDECAR)
def plaintext_to_tenants(dump: Json) -> None:
    cluster(dump, "outbound|80||hello-00001.globex")["transport_socket_matches"].pop(0)


@hole(Rule.CLUSTER_PLAINTEXT, ACTIVATOR, GATEWAY)
def plaintext_to_tenants_first(dump: Json) -> None:
    cluster(dump, "outbound|80||hello-00001.globex")["transport_socket_matches"].reverse()


@hole(Rule.CLUSTER_PLAINTEXT, ACTIVATOR)
def no_tls_to_tenants_at_all(dump: Json) -> None:
    cluster(dump, "outbound|80||hello-00001.globex").pop("transport_socket_matches")


@hole(Rule.CLUSTER_TRUST, ACTIVATOR)
def tenants_need_not_be_of_the_mesh(dump: Json) -> None:
    match = cluster(dump, "outbound|80||hello-00001.globex")["transport_socket_matches"][0]
    common = match["transport_socket"]["typed_config"]["common_tls_context"]
    validation = common["combined_validation_context"]["default_validation_context"]
    validation["match_subject_alt_names"] = [{"prefix": "spiffe://"}]


@hole(Rule.CLUSTER_LEADS, SIDECAR, ACTIVATOR, GATEWAY)
def a_cluster_leads_where_a_header_says(dump: Json) -> None:
    it = cluster(dump, "outbound|80||hello-00001.globex")
    it["original_dst_lb_config"] = {"use_http_header": True}


@hole(Rule.CLUSTER_LEADS, SIDECAR)
def passthrough_leads_where_a_header_says(dump: Json) -> None:
    cluster(dump, "PassthroughCluster")["original_dst_lb_config"] = {"use_http_header": True}


@hole(Rule.CLUSTER_LEADS, SIDECAR)
def the_app_is_elsewhere(dump: Json) -> None:
    it = cluster(dump, "inbound|8000||")
    it["type"] = "STATIC"
    address = {"socket_address": {"address": "10.244.15.4", "port_value": 8000}}
    lb = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    it["load_assignment"] = {"cluster_name": "x", "endpoints": lb}


@hole(Rule.UNKNOWN_FIELD, ACTIVATOR)
def a_cluster_has_http_filters_of_its_own(dump: Json) -> None:
    it = cluster(dump, "outbound|80||hello-00001.globex")
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    it["typed_extension_protocol_options"] = {
        options: {"@type": f"type.googleapis.com/{options}", "http_filters": [LUA]}
    }


@hole(Rule.UNKNOWN_CLUSTER, SIDECAR, GATEWAY)
def a_cluster_of_somebody(dump: Json) -> None:
    made = {"cluster": {"name": "exit", "type": "STRICT_DNS"}}
    dump["configs"][1]["dynamic_active_clusters"].append(made)


# ---- filters between ours and the app ----


@hole(Rule.UNKNOWN_FILTER, *EVERYWHERE)
def a_filter_before_the_router_rewrites_what_we_judged(dump: Json) -> None:
    for manager in managers(dump):
        manager["http_filters"].insert(len(manager["http_filters"]) - 1, deepcopy(LUA))


@hole(Rule.UNKNOWN_FILTER, SIDECAR, ACTIVATOR)
def a_network_filter_before_ours(dump: Json) -> None:
    for chain in arriving(dump)["filter_chains"]:
        chain["filters"].insert(0, {"name": "mongo", "typed_config": {"@type": "x.MongoProxy"}})


@hole(Rule.SCRAPE_RULE, SIDECAR)
def somebody_else_says_that_a_scrape_is_allowed(dump: Json) -> None:
    rbac = {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{HTTP}.rbac.v3.RBAC",
            "shadow_rules": {"policies": {}},
            "shadow_rules_stat_prefix": "tenant_authz_",
        },
    }
    for manager in inbound_managers(dump):
        manager["http_filters"].insert(-1, deepcopy(rbac))


@hole(Rule.UNKNOWN_FIELD, *EVERYWHERE)
def headers_are_changed_before_ours(dump: Json) -> None:
    change = {"name": "envoy.http.early_header_mutation.header_mutation"}
    for manager in managers(dump):
        manager["early_header_mutation_extensions"] = [change]


@hole(Rule.NORMALISATION, *EVERYWHERE)
def paths_are_not_normalised(dump: Json) -> None:
    for manager in managers(dump):
        manager["normalize_path"] = False


@hole(Rule.NORMALISATION, BROKER, CHANNEL)
def paths_are_not_normalised_at_a_hop_by_default(dump: Json) -> None:
    for manager in inbound_managers(dump):
        del manager["normalize_path"]


@hole(Rule.PEER_ADDRESS, SIDECAR)
def callers_say_who_they_are(dump: Json) -> None:
    for manager in inbound_managers(dump):
        manager["forward_client_cert_details"] = "ALWAYS_FORWARD_ONLY"


@hole(Rule.UNKNOWN_FIELD, SIDECAR)
def callers_say_where_they_are(dump: Json) -> None:
    for manager in inbound_managers(dump):
        manager["original_ip_detection_extensions"] = [{"name": "custom_header"}]


@hole(Rule.LOGGED, SIDECAR)
def tokens_are_logged(dump: Json) -> None:
    log = {"name": "file", "typed_config": {"log_format": {"text_format": "%REQ(X-Tenant-Token)%"}}}
    next(managers(dump))["access_log"] = [log]


# ---- chains and listeners ----


@hole(Rule.LISTENER, SIDECAR, ACTIVATOR)
def a_static_listener_leads_to_the_app(dump: Json) -> None:
    made = deepcopy(arriving(dump))
    made["address"]["socket_address"]["port_value"] = 9999
    static(dump).append({"listener": made})


@hole(Rule.AGENT, SIDECAR, GATEWAY)
def the_agent_s_listener_leads_to_the_app(dump: Json) -> None:
    [chain] = static(dump)[1]["listener"]["filter_chains"]
    [host] = chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"]
    host["routes"].append({"match": {"prefix": "/"}, "route": {"cluster": "inbound|8000||"}})


@hole(Rule.AGENT, SIDECAR)
def the_agent_s_listener_is_a_tcp_proxy_to_the_app(dump: Json) -> None:
    proxy = {"@type": "a.TcpProxy", "cluster": "inbound|8000||"}
    static(dump)[0]["listener"]["filter_chains"][0]["filters"] = [
        {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}
    ]


@hole(Rule.AGENT, SIDECAR)
def the_agent_s_cluster_leads_to_the_app(dump: Json) -> None:
    for it in dump["configs"][1]["static_clusters"]:
        if it["cluster"]["name"] == "agent":
            text = it["cluster"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
            text["endpoint"]["address"]["socket_address"]["address"] = "10.244.13.4"


@hole(Rule.NO_CAPTURE, *SIDECARS)
def whom_a_connection_is_for_is_what_the_caller_says(dump: Json) -> None:
    proxied = {"@type": "type.googleapis.com/envoy.proxy_protocol.v3.ProxyProtocol"}
    arriving(dump)["listener_filters"].insert(1, {"name": "proxy", "typed_config": proxied})


@hole(Rule.NO_CAPTURE, SIDECAR)
def whom_a_connection_is_for_is_lost(dump: Json) -> None:
    del arriving(dump)["listener_filters"][0]


@hole(Rule.LISTENER, SIDECAR)
def an_internal_listener(dump: Json) -> None:
    made = {"name": "inside", "internal_listener": {}, "filter_chains": []}
    made["traffic_direction"] = "OUTBOUND"
    state = {"name": "inside", "active_state": {"listener": made}}
    dump["configs"][2]["dynamic_listeners"].append(state)


@hole(Rule.LISTENER, SIDECAR)
def an_outbound_listener_is_bound(dump: Json) -> None:
    sent(dump, "0.0.0.0_8080")["bind_to_port"] = True


@hole(Rule.CHAIN, SIDECAR, ACTIVATOR)
def a_chain_by_server_name(dump: Json) -> None:
    match = arriving(dump)["filter_chains"][1]["filter_chain_match"]
    match["server_names"] = ["x.example"]


@hole(Rule.CHAIN, SIDECAR)
def a_chain_by_who_calls(dump: Json) -> None:
    match = arriving(dump)["filter_chains"][1]["filter_chain_match"]
    match["source_prefix_ranges"] = [{"address_prefix": "10.0.0.0", "prefix_len": 8}]


@hole(Rule.CHAIN, SIDECAR)
def a_default_chain(dump: Json) -> None:
    arriving(dump)["default_filter_chain"] = deepcopy(arriving(dump)["filter_chains"][0])


@hole(Rule.ROUTE_CHOICE, SIDECAR)
def a_chain_leads_to_another_port(dump: Json) -> None:
    for it in inbound_managers(dump):
        it["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = "inbound|7000||"


@hole(Rule.ECDS, *SIDECARS, GATEWAY)
def a_filter_has_a_default_until_it_is_delivered(dump: Json) -> None:
    for manager in managers(dump):
        for one in manager["http_filters"]:
            if one["name"].startswith("tenant-authz."):
                router = {"@type": f"{HTTP}.router.v3.Router"}
                one["config_discovery"] = {"config_source": {"ads": {}}, "default_config": router}


@hole(Rule.ECDS, SIDECAR)
def a_filter_that_is_never_delivered(dump: Json) -> None:
    for manager in managers(dump):
        for one in manager["http_filters"]:
            if one["name"] == "istio.stats":
                del one["typed_config"]
                one["config_discovery"] = {"config_source": {"ads": {}}}


# ---- the admin endpoint, and what else the agent starts ----


@hole(Rule.ADMIN, *EVERYWHERE)
def the_admin_port_is_on_all_addresses(dump: Json) -> None:
    bootstrap(dump)["admin"]["address"]["socket_address"]["address"] = "0.0.0.0"  # noqa: S104 - that is the hole


@hole(Rule.RUNTIME, SIDECAR)
def runtime_is_loaded_from_elsewhere(dump: Json) -> None:
    layer = {"name": "rtds", "rtds_layer": {"name": "x"}}
    bootstrap(dump)["layered_runtime"]["layers"].append(layer)


@hole(Rule.RUNTIME, SIDECAR)
def runtime_reads_requests_otherwise(dump: Json) -> None:
    layers = bootstrap(dump)["layered_runtime"]["layers"]
    layers[0]["static_layer"]["envoy.reloadable_features.uhv_allow_malformed_url_encoding"] = True


@hole(Rule.AGENT, SIDECAR)
def configuration_comes_from_elsewhere(dump: Json) -> None:
    stream = bootstrap(dump)["dynamic_resources"]["ads_config"]["grpc_services"]
    stream[0]["envoy_grpc"]["cluster_name"] = "outbound|80||a.mallory.svc.cluster.local"


# ---- routes ----


@hole(Rule.ROUTE_CHOICE, SIDECAR, ACTIVATOR, GATEWAY)
def the_caller_names_the_cluster(dump: Json) -> None:
    action = first_route(dump)["route"]
    del action["cluster"]
    action["cluster_header"] = "x-where"


@hole(Rule.ROUTE_CHOICE, GATEWAY)
def a_header_chooses_the_route_at_a_hop(dump: Json) -> None:
    present = {"name": "x-other", "present_match": True}
    first_route(dump)["match"].setdefault("headers", []).append(present)


@hole(Rule.ROUTE_CHOICE, ACTIVATOR, BROKER)
def a_header_chooses_the_route_into_a_hop(dump: Json) -> None:
    for manager in inbound_managers(dump):
        route = manager["route_config"]["virtual_hosts"][0]["routes"][0]
        route["match"]["headers"] = [{"name": "x-other", "present_match": True}]


@hole(Rule.ROUTE_CHOICE, BROKER)
def a_route_rewrites_the_path_into_a_hop(dump: Json) -> None:
    for manager in inbound_managers(dump):
        route = manager["route_config"]["virtual_hosts"][0]["routes"][0]
        route["route"]["prefix_rewrite"] = "/acme-web/"


@hole(Rule.ROUTE_OVERRIDE, SIDECAR, ACTIVATOR)
def a_route_switches_verify_off(dump: Json) -> None:
    off = {"@type": f"{HTTP}.ext_authz.v3.ExtAuthzPerRoute", "disabled": True}
    names = ("tenant-authz.verify", "tenant-authz.transit")
    for manager in inbound_managers(dump):
        host = manager["route_config"]["virtual_hosts"][0]
        host["typed_per_filter_config"] = dict.fromkeys(names, off)


@hole(Rule.ROUTE_HEADER, GATEWAY)
def a_destination_among_several_gets_a_token(dump: Json) -> None:
    route = first_route(dump)
    name = route["route"].pop("cluster")
    header = {"header": {"key": "x-tenant-token", "value": "mine"}}
    several = [{"name": name, "weight": 1, "request_headers_to_add": [header]}]
    route["route"]["weighted_clusters"] = {"clusters": several}


# ---- what is not there ----


@hole(Rule.INCOMPLETE, *EVERYWHERE)
def no_routes(dump: Json) -> None:
    del dump["configs"][3]


@hole(Rule.INCOMPLETE, *EVERYWHERE)
def no_listeners(dump: Json) -> None:
    dump["configs"][2]["dynamic_listeners"] = []


@hole(Rule.INCOMPLETE, SIDECAR)
def nothing_captures_what_leaves(dump: Json) -> None:
    several = dump["configs"][2]["dynamic_listeners"]
    several[:] = [it for it in several if it["name"] != "virtualOutbound"]


@hole(Rule.NO_CAPTURE, SIDECAR)
def nothing_captures_what_arrives(dump: Json) -> None:
    several = dump["configs"][2]["dynamic_listeners"]
    several[:] = [it for it in several if it["name"] != "virtualInbound"]


@hole(Rule.INCOMPLETE, GATEWAY)
def scoped_routes(dump: Json) -> None:
    kind = "type.googleapis.com/envoy.admin.v3.ScopedRoutesConfigDump"
    dump["configs"].append({"@type": kind, "dynamic_scoped_route_configs": [{"name": "x"}]})


# ---- policies of hops ----


@hole(Rule.NO_POLICY, FILTER)
def a_policy_lets_in_one_more(dump: Json) -> None:
    for manager in inbound_managers(dump):
        for one in manager["http_filters"]:
            if one["name"] == "envoy.filters.http.rbac" and "rules" in one["typed_config"]:
                policies = one["typed_config"]["rules"]["policies"]
                policies["ns[knative-eventing]-policy[mine]-rule[0]"] = {
                    "permissions": [{"any": True}],
                    "principals": [{"any": True}],
                }


@hole(Rule.NO_POLICY, FILTER)
def a_policy_lets_in_everybody(dump: Json) -> None:
    for manager in inbound_managers(dump):
        for one in manager["http_filters"]:
            if one["name"] == "envoy.filters.http.rbac" and "rules" in one["typed_config"]:
                for policy in one["typed_config"]["rules"]["policies"].values():
                    policy["principals"].append({"any": True})


@pytest.mark.parametrize(
    ("pod", "rule", "plant"), [pytest.param(*it[1:], id=f"{it[0]}-{it[1]}") for it in PLANTS]
)
def test_a_planted_hole_is_found(bench: Bench, pod: str, rule: Rule, plant: Plant) -> None:
    dump = bench.dump(pod, dynamic=True)
    before = deepcopy(dump)
    plant(dump)
    assert dump != before, "nothing was planted"
    assert rule in {it.rule for it in examined(dump)}


def test_there_are_many_of_many_kinds() -> None:
    assert len(PLANTS) >= 60
    assert len({plant[0] for plant in PLANTS}) >= 25
