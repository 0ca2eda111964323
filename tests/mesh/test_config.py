"""Names, order and matches, as istiod 1.30 gives them; no Envoy is started but to validate."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from authz import envoyfilters
from authz.lab.box.istio import authorization, cluster
from authz.lab.box.istio.istiod import Istiod
from authz.lab.box.istio.objects import Objects, imported
from authz.lab.box.istio.routes import Routes
from authz.lab.box.istio.world import Json, Service, World
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority

DEPLOY = Path(__file__).parents[2] / "deploy"
STRICT = {"transport_protocol": "tls"}
SIDECAR_HTTP = ["istio-http/1.0", "istio-http/1.1", "istio-h2"]
WORLD = cluster.standard()


class Bench:
    """Configurations for one world and one set of objects."""

    def __init__(self, directory: Path, world: World = WORLD) -> None:
        self.world = world
        self.authority = Authority(directory / "certs")
        self.public = self.authority.issue(world.pods["outside/server"].identity)

    def config(self, pod: str, *documents: Json, routes: Routes | None = None) -> Json:
        objects = Objects([*self.world.documents, *documents])
        istiod = Istiod(self.world, objects, self.public, routes or Routes())
        config = istiod.config(self.world.pods[pod], self.public)
        return istiod.routes.written_into(config)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def named(items: list[Json], name: str) -> Json:
    [found] = [it for it in items if it["name"] == name]
    return found


def listeners(config: Json) -> list[Json]:
    return list(config["static_resources"]["listeners"])


def clusters(config: Json) -> list[Json]:
    return list(config["static_resources"]["clusters"])


def hcm(chain: Json) -> Json:
    manager: Json = chain["filters"][-1]["typed_config"]
    assert manager["@type"].endswith("HttpConnectionManager")
    return manager


def domains(config: Json, port: int = 80) -> dict[str, Json]:
    manager = hcm(named(listeners(config), f"0.0.0.0_{port}")["filter_chains"][0])
    return {
        domain: host
        for host in manager["route_config"]["virtual_hosts"]
        for domain in host["domains"]
    }


def target(host: Json) -> str:
    return str(host["routes"][-1]["route"]["cluster"])


# ---- inbound ----


def chains(config: Json) -> list[tuple[str, Json]]:
    inbound = named(listeners(config), "virtualInbound")
    return [(it["name"], it["filter_chain_match"]) for it in inbound["filter_chains"]]


def test_the_inbound_chains_of_a_revisions_pod(bench: Bench) -> None:
    config = bench.config("acme-db/hello")
    inbound = named(listeners(config), "virtualInbound")
    assert inbound["address"]["socket_address"]["port_value"] == 15006
    assert inbound["traffic_direction"] == "INBOUND"
    assert [it["name"].rpartition(".")[2] for it in inbound["listener_filters"]] == [
        "original_dst",
        "tls_inspector",
        "http_inspector",
    ]
    assert chains(config) == [
        ("virtualInbound-blackhole", {"destination_port": 15006}),
        ("virtualInbound-catchall-http", {**STRICT, "application_protocols": SIDECAR_HTTP}),
        ("virtualInbound", STRICT),
        *((f"0.0.0.0_{port}", {**STRICT, "destination_port": port}) for port in (8012, 8013)),
        *((f"0.0.0.0_{port}", {**STRICT, "destination_port": port}) for port in (9090, 9091)),
    ]


def test_an_inbound_chain(bench: Bench) -> None:
    inbound = named(listeners(bench.config("acme-db/hello")), "virtualInbound")
    chain = named(inbound["filter_chains"], "0.0.0.0_8012")
    manager = hcm(chain)
    assert manager["stat_prefix"] == "inbound_0.0.0.0_8012;"
    assert manager["forward_client_cert_details"] == "APPEND_FORWARD"
    assert manager["route_config"]["name"] == "inbound|8012||"
    [host] = manager["route_config"]["virtual_hosts"]
    assert (host["domains"], target(host)) == (["*"], "inbound|8012||")
    assert [it["name"].rpartition(".")[2] for it in manager["http_filters"]] == [
        "grpc_stats",
        "fault",
        "cors",
        "router",
    ]
    context = chain["transport_socket"]["typed_config"]
    assert context["require_client_certificate"]
    validation = context["common_tls_context"]["validation_context"]
    assert validation["match_typed_subject_alt_names"][0]["matcher"] == {
        "prefix": "spiffe://cluster.local/"
    }


def test_the_tcp_chain_for_unlisted_ports_is_not_http(bench: Bench) -> None:
    inbound = named(listeners(bench.config("acme-db/plain")), "virtualInbound")
    chain = named(inbound["filter_chains"], "virtualInbound")
    assert [it["name"] for it in chain["filters"]] == ["envoy.filters.network.tcp_proxy"]
    assert chain["filters"][0]["typed_config"]["cluster"] == "InboundPassthroughCluster"


def test_permissive_adds_chains_for_plaintext(bench: Bench) -> None:
    names = chains(bench.config("knative-serving/activator"))
    of_port = [match for name, match in names if name == "0.0.0.0_8012"]
    assert [match["transport_protocol"] for match in of_port] == ["tls", "raw_buffer"]
    assert [name for name, _ in names].count("virtualInbound") == 3
    assert [name for name, _ in names].count("virtualInbound-catchall-http") == 2


def test_the_nearest_peer_authentication_counts(bench: Bench) -> None:
    def policy(name: str, namespace: str, **spec: Any) -> Json:
        metadata = {"name": name, "namespace": namespace}
        return {"kind": "PeerAuthentication", "metadata": metadata, "spec": spec}

    pod = WORLD.pods["acme-db/plain"]
    own = policy("own", "acme-db", mtls={"mode": "PERMISSIVE"})
    ports = policy(
        "ports",
        "acme-db",
        selector={"matchLabels": {"app": "plain"}},
        portLevelMtls={8000: {"mode": "DISABLE"}},
    )
    assert Objects(WORLD.documents).mutual_tls(pod) == "STRICT"
    assert Objects([*WORLD.documents, own]).mutual_tls(pod, 8000) == "PERMISSIVE"
    both = Objects([*WORLD.documents, own, ports])
    assert (both.mutual_tls(pod, 8000), both.mutual_tls(pod, 1)) == ("DISABLE", "PERMISSIVE")
    assert Objects([]).mutual_tls(pod) == "PERMISSIVE"


def test_the_clusters_towards_the_own_app(bench: Bench) -> None:
    config = bench.config("acme-db/hello")
    for name in ("inbound|8012||", "InboundPassthroughCluster"):
        found = named(clusters(config), name)
        assert found["type"] == "ORIGINAL_DST"
        assert found["upstream_bind_config"]["source_address"]["address"] == "127.0.0.6"


# ---- outbound ----


def test_the_outbound_listeners(bench: Bench) -> None:
    config = bench.config("globex/hello")
    virtual = named(listeners(config), "virtualOutbound")
    assert virtual["use_original_dst"]
    assert virtual["address"]["socket_address"]["port_value"] == 15001
    assert [it["name"] for it in virtual["filter_chains"]] == [
        "virtualOutbound-blackhole",
        "virtualOutbound-catchall-tcp",
    ]
    http = named(listeners(config), "0.0.0.0_80")
    assert not http["bind_to_port"]
    assert http["default_filter_chain"]["name"] == "PassthroughFilterChain"
    assert hcm(http["filter_chains"][0])["stat_prefix"] == "outbound_0.0.0.0_80;"
    assert hcm(http["filter_chains"][0])["route_config"]["name"] == "80"
    tcp = WORLD.service("plain-tcp", "acme-db")
    assert named(listeners(config), f"{tcp.address}_7000")


@pytest.mark.parametrize("form", ["", ".svc", ".svc.cluster.local"])
def test_a_knative_service_is_routed_to_its_revision_with_its_headers(
    bench: Bench, form: str
) -> None:
    host = domains(bench.config("globex/hello"))[f"hello.acme-db{form}"]
    assert target(host) == "outbound|80||hello-00001.acme-db.svc.cluster.local"
    added = {
        it["header"]["key"]: it["header"]["value"]
        for it in host["routes"][-1]["request_headers_to_add"]
    }
    assert added == {
        "Knative-Serving-Revision": "hello-00001",
        "Knative-Serving-Namespace": "acme-db",
    }
    config = host["routes"][-1]["metadata"]["filter_metadata"]["istio"]["config"]
    assert "/namespaces/acme-db/virtual-service/" in config


def test_a_plain_service_has_every_form_of_its_name(bench: Bench) -> None:
    service = WORLD.service("plain", "acme-db")
    for form in (
        "plain.acme-db",
        "plain.acme-db.svc",
        service.host,
        f"{service.host}.",
        service.address,
    ):
        assert target(domains(bench.config("globex/hello"))[form]) == f"outbound|80||{service.host}"
    assert "plain" in domains(bench.config("acme-db/hello"))
    assert target(domains(bench.config("globex/hello"))["plain"]).endswith(
        "plain.globex.svc.cluster.local"
    )


def test_what_nobody_has_passes_through(bench: Bench) -> None:
    assert target(domains(bench.config("globex/hello"))["*"]) == "PassthroughCluster"


def test_an_external_name_is_an_alias_of_what_it_leads_to(tmp_path: Path) -> None:
    alias = Service("mallory", "friend", "", external_name="plain.acme-db.svc.cluster.local")
    world = World(WORLD.pods, (*WORLD.services, alias), WORLD.virtual_services, WORLD.documents)
    found = domains(Bench(tmp_path, world).config("mallory/hello"))
    assert target(found["friend.mallory"]) == "outbound|80||plain.acme-db.svc.cluster.local"
    assert target(found["friend"]) == "outbound|80||plain.acme-db.svc.cluster.local"


def test_behind_a_sidecar_object_a_foreign_knative_service_goes_by_the_local_gateway(
    bench: Bench,
) -> None:
    sidecar = {
        "kind": "Sidecar",
        "metadata": {"name": "default", "namespace": "istio-system"},
        "spec": {"egress": [{"hosts": ["./*", "istio-system/*"]}]},
    }
    found = domains(bench.config("globex/hello", sidecar))
    assert "plain.acme-db" not in found
    assert target(found["hello.globex"]).endswith("hello-00001.globex.svc.cluster.local")
    gateway = "outbound|80||knative-local-gateway.istio-system.svc.cluster.local"
    assert target(found["hello.acme-db"]) == gateway
    assert not imported(["./*"], "globex", "acme-db", "x")
    assert domains(bench.config("globex/hello"))["plain.acme-db"]


def test_what_scopes_sidecars_leaves_each_hop_what_it_sends_to(bench: Bench) -> None:
    def shown(pod: str, folder: Path) -> set[str]:
        objects = [it for file in sorted(folder.glob("*.yaml")) for it in YAML().load_all(file)]
        scopes = [it for it in objects if it.get("kind") == "Sidecar"]
        assert scopes
        return {it["name"] for it in clusters(bench.config(pod, *scopes))}

    scope = envoyfilters.directory() / "components/sidecar-scope"
    tenants = "outbound|80||plain.acme-db.svc.cluster.local"
    broker = "outbound|80||broker-ingress.knative-eventing.svc.cluster.local"
    for folder in (scope, DEPLOY / "platform/istio"):
        assert tenants in shown("knative-serving/activator", folder)
        assert tenants not in shown("globex/hello", folder)
        assert broker in shown("globex/hello", folder)
    for folder in (scope, DEPLOY / "platform/eventing"):
        assert tenants in shown("knative-eventing/imc-dispatcher", folder)


def test_a_cluster_of_the_mesh(bench: Bench) -> None:
    name = "outbound|80||hello-00001.acme-db.svc.cluster.local"
    context = named(clusters(bench.config("globex/hello")), name)["transport_socket"][
        "typed_config"
    ]
    assert context["sni"] == "outbound_.80_._.hello-00001.acme-db.svc.cluster.local"
    common = context["common_tls_context"]
    assert common["alpn_protocols"][0] == "istio-http/1.1"
    [peer] = common["validation_context"]["match_typed_subject_alt_names"]
    assert peer["matcher"] == {"exact": "spiffe://cluster.local/ns/acme-db/sa/default"}


def test_where_there_is_no_sidecar_there_is_no_tls_but_by_a_rule(bench: Bench) -> None:
    name = "outbound|80||knative-local-gateway.istio-system.svc.cluster.local"
    assert "transport_socket" not in named(clusters(bench.config("globex/hello")), name)
    with_ours = clusters(bench.config("globex/hello", *envoyfilters.shipped()))
    assert "transport_socket" in named(with_ours, name)
    authz = named(with_ours, "outbound|9000||authz.authz-system.svc.cluster.local")
    [peer] = authz["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"][
        "match_typed_subject_alt_names"
    ]
    assert peer["matcher"] == {"exact": "spiffe://cluster.local/ns/authz-system/sa/authz"}


# ---- the gateway ----


def test_the_gateways_listeners(bench: Bench) -> None:
    config = bench.config("istio-system/gateway", *envoyfilters.shipped())
    assert [it["name"] for it in listeners(config)] == [
        "0.0.0.0_8080",
        "0.0.0.0_8443",
        "0.0.0.0_8081",
    ]
    for listener in listeners(config):
        manager = hcm(listener["filter_chains"][0])
        assert manager["forward_client_cert_details"] == "SANITIZE_SET"
        assert manager["use_remote_address"]
    local = named(listeners(config), "0.0.0.0_8081")["filter_chains"][0]
    assert local["transport_socket"]["typed_config"]["require_client_certificate"]
    assert (
        hcm(local)["route_config"]["name"]
        == "https.8081.https.knative-local-gateway.knative-serving"
    )
    plain = named(listeners(bench.config("istio-system/gateway")), "0.0.0.0_8081")
    assert "transport_socket" not in plain["filter_chains"][0]


def test_what_is_private_is_on_the_local_listener_only(bench: Bench) -> None:
    config = bench.config("istio-system/gateway")
    public, local = (
        {
            domain
            for host in hcm(named(listeners(config), name)["filter_chains"][0])["route_config"][
                "virtual_hosts"
            ]
            for domain in host["domains"]
        }
        for name in ("0.0.0.0_8080", "0.0.0.0_8081")
    )
    assert "hello.acme-web.example.com" in public
    assert not any("acme-db" in domain for domain in public)
    assert {"hello.acme-db", "hello.acme-db.svc.cluster.local"} <= local


# ---- AuthorizationPolicy ----


def rule(action: str, **fields: Any) -> Json:
    metadata = {"name": "p", "namespace": "acme-db"}
    return {
        "kind": "AuthorizationPolicy",
        "metadata": metadata,
        "spec": {"action": action, "rules": [fields]},
    }


def test_authorization_policies_become_rbac_filters_of_http_and_tcp(bench: Bench) -> None:
    source = {"source": {"notPrincipals": ["cluster.local/ns/acme-web/sa/*"]}}
    deny = rule("DENY", **{"from": [source]}, to=[{"operation": {"ports": ["8012"]}}])
    inbound = named(listeners(bench.config("acme-db/hello", deny)), "virtualInbound")
    http = hcm(named(inbound["filter_chains"], "0.0.0.0_8012"))["http_filters"][0]
    tcp = named(inbound["filter_chains"], "virtualInbound")["filters"][0]
    for found in (http, tcp):
        [policy] = found["typed_config"]["rules"]["policies"].values()
        assert "spiffe://cluster.local/ns/acme-web/sa/" in json.dumps(policy["principals"])
        assert "not_id" in json.dumps(policy["principals"])
        assert "8012" in json.dumps(policy["permissions"])
    assert (http["name"], tcp["name"]) == (
        "envoy.filters.http.rbac",
        "envoy.filters.network.rbac",
    )


def test_on_tcp_an_allow_rule_with_paths_is_none_and_a_deny_rule_counts_without_them() -> None:
    pod = WORLD.pods["acme-db/hello"]
    operation = {"operation": {"paths": ["/x"], "ports": ["1"]}}
    [allow] = authorization.filters(Objects([rule("ALLOW", to=[operation])]), pod, "network")
    assert allow["typed_config"]["rules"]["policies"] == {}
    [deny] = authorization.filters(Objects([rule("DENY", to=[operation])]), pod, "network")
    assert "url_path" not in json.dumps(deny)
    assert '"destination_port": 1' in json.dumps(deny)


# ---- real Envoys take it ----


@pytest.mark.envoy
@pytest.mark.parametrize(
    "pod", ["acme-db/hello", "knative-serving/activator", "istio-system/gateway"]
)
@pytest.mark.parametrize("overlay", ["", "shadow", "break-glass"])
def test_envoy_accepts_it_with_everything_that_ships(
    bench: Bench, tmp_path: Path, pod: str, overlay: str
) -> None:
    who = WORLD.pods[pod]
    assert who.proxy != "none"
    documents = envoyfilters.shipped(overlay)
    routes = Routes()
    objects = Objects([*WORLD.documents, *documents])
    made = Istiod(WORLD, objects, bench.public, routes).config(who, bench.public)
    proxy = envoyfilters.Proxy(who.proxy, who.namespace, who.labels)
    config = routes.written_into(envoyfilters.Patches.of(documents).applied(proxy, made))
    file = tmp_path / "envoy.json"
    file.write_text(json.dumps(config))
    argv = [
        str(envoy.binary()),
        "--mode",
        "validate",
        "--config-path",
        str(file),
        "--log-level",
        "error",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
