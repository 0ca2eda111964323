"""What is played is what istiod sent, but for what is on the list; and that is seen to be so."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from authz.envoyfilters import Patches, shipped
from authz.lab.harness import envoy
from authz.lab.harness.certs import Authority
from authz.lab.recordings import CannotPlay, Recordings, Sent, playing, versions
from authz.lab.recordings import worlds as recorded
from authz.testing import workload
from tests.lab.differences import GONE, Difference, differences
from tests.lab.secrets import SECRETS

Json = dict[str, Any]

VARIANT = "paths"
SIDECAR, GATEWAY = "acme-web/hello", "istio-system/gateway"
KINDS = ("listeners", "clusters")
ISTIOS = {"istio.metadata_exchange", "istio.stats", "istio.alpn"}


def sent(pod: str, variant: str = VARIANT, istio: str = "") -> Sent:
    (found,) = (it for it in Recordings.of(istio).variants if it.name == variant)
    return found[pod]


def played(proxy: Sent) -> Json:
    return playing.played(proxy, SECRETS)


def unlisted(proxy: Sent, config: Json) -> Iterator[Difference]:
    """Differences that are not on the list, which is written here once more."""
    resources = config["static_resources"]
    assert resources.keys() == {"listeners", "clusters", "secrets"}
    assert config.keys() == {"node", "static_resources"}
    assert config["node"] == proxy.node
    routes = {route["name"]: route for route in proxy.routes}
    endpoints = {endpoint["cluster_name"]: endpoint for endpoint in proxy.endpoints}
    lists = alpn_lists(proxy)
    listed: dict[str, Callable[[Any, Any], bool]] = {
        "rds": lambda _, after: bool(after == GONE),
        "route_config": lambda before, after: before == GONE and after == routes[after["name"]],
        "sds_config": lambda _, after: bool(after == GONE),
        "type": lambda before, after: bool((before, after) == ("EDS", "STATIC")),
        "eds_cluster_config": lambda _, after: bool(after == GONE),
        "load_assignment": lambda before, after: (
            before == GONE and after == endpoints[after["cluster_name"]]
        ),
        "alpn_protocols": lambda before, after: (tuple(before), tuple(after)) in lists,
        "order": lambda before, after: [it for it in before if it not in ISTIOS] == after,
        **dict.fromkeys(ISTIOS, lambda _, after: bool(after == GONE)),
    }
    for kind in KINDS:
        for it in differences(list(getattr(proxy, kind)), resources[kind], (kind,)):
            known = listed.get(str(it.path[-1]))
            if known is None or not known(it.before, it.after):
                yield it


def alpn_lists(proxy: Sent) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What `istio.alpn` may make of which list, as far as it is in there at all."""
    if "istio.alpn" not in json.dumps(proxy.listeners):
        return set()
    mesh = "istio-peer-exchange", "istio"
    return {
        (mesh, ("istio-http/1.1", "istio", "http/1.1")),
        ((*mesh, "h2"), ("istio-h2", "istio", "h2")),
    }


@pytest.mark.timeout(600)
@pytest.mark.parametrize("istio", versions())
def test_nothing_differs_from_what_istiod_sent_but_what_is_listed(istio: str) -> None:
    """In none of the worlds; many proxies are the same in several."""
    proxies = {
        str(variant._proxies[pod]): (variant, pod)
        for variant in Recordings.of(istio).variants
        for pod in variant
    }
    for variant, pod in proxies.values():
        proxy = variant[pod]
        assert [*unlisted(proxy, played(proxy))] == [], (variant.name, pod)


def test_what_was_sent_stays_as_it_is() -> None:
    proxy = sent(GATEWAY)
    before = json.dumps([proxy.listeners, proxy.clusters, proxy.routes, proxy.endpoints])
    played(proxy)
    after = json.dumps([proxy.listeners, proxy.clusters, proxy.routes, proxy.endpoints])
    assert after == before


# ---- the test above can fail ----


def _named(items: list[Json], name: str) -> Json:
    (found,) = (item for item in items if item["name"] == name)
    return found


def _listener(config: Json, name: str = "0.0.0.0_80") -> Json:
    return _named(config["static_resources"]["listeners"], name)


def _cluster(config: Json, name: str = "outbound|80||plain.acme-db.svc.cluster.local") -> Json:
    return _named(config["static_resources"]["clusters"], name)


def _manager(config: Json) -> Json:
    manager: Json = _listener(config)["filter_chains"][0]["filters"][-1]["typed_config"]
    return manager


def _inbound(config: Json) -> Json:
    chains = _listener(config, "virtualInbound")["filter_chains"]
    return next(it for it in chains if it["filter_chain_match"].get("destination_port") == 8012)


def _swap_filters(config: Json) -> None:
    filters = _manager(config)["http_filters"]
    filters[0], filters[1] = filters[1], filters[0]


def _tls(config: Json) -> Json:
    matches = _cluster(config)["transport_socket_matches"]
    context: Json = matches[0]["transport_socket"]["typed_config"]
    return context


PLANTED: dict[str, Callable[[Json], Any]] = {
    "no name for statistics": lambda it: _cluster(it).pop("alt_stat_name"),
    "another one": lambda it: _cluster(it).update(alt_stat_name="x"),
    "no TLS": lambda it: _cluster(it).pop("transport_socket_matches"),
    "other peers": lambda it: _tls(it)["common_tls_context"]["combined_validation_context"].pop(
        "default_validation_context"
    ),
    "another SNI": lambda it: _tls(it).update(sni="x"),
    "an ALPN of one's own": lambda it: _tls(it)["common_tls_context"].update(alpn_protocols=["h2"]),
    "no endpoints": lambda it: _cluster(it)["load_assignment"].pop("endpoints"),
    "a cluster less": lambda it: it["static_resources"]["clusters"].remove(_cluster(it)),
    "a listener less": lambda it: it["static_resources"]["listeners"].remove(_listener(it)),
    "filters in another order": _swap_filters,
    "a filter less": lambda it: _manager(it)["http_filters"].pop(0),
    "a filter more": lambda it: _manager(it)["http_filters"].insert(0, {"name": "x"}),
    "no upgrades": lambda it: _manager(it).pop("upgrade_configs"),
    "a path as it came": lambda it: _manager(it).update(normalize_path=False),
    "a route less": lambda it: _manager(it)["route_config"]["virtual_hosts"].pop(),
    "another match": lambda it: _inbound(it)["filter_chain_match"].pop("transport_protocol"),
    "no client certificate": lambda it: _inbound(it)["transport_socket"]["typed_config"].pop(
        "require_client_certificate"
    ),
    "a chain less": lambda it: _listener(it, "virtualInbound")["filter_chains"].pop(),
    "no listener filter": lambda it: _listener(it, "virtualInbound")["listener_filters"].pop(),
    "bound": lambda it: _listener(it).pop("bind_to_port"),
}


@pytest.mark.parametrize("plant", PLANTED.values(), ids=PLANTED)
def test_a_planted_difference_is_seen(plant: Callable[[Json], Any]) -> None:
    proxy = sent(SIDECAR)
    config = deepcopy(played(proxy))
    plant(config)
    assert [*unlisted(proxy, config)]


def test_names_for_statistics_are_on_every_cluster() -> None:
    """They are what Envoy prints for %UPSTREAM_CLUSTER%; without them a filter could ask by it."""
    for istio in versions():
        for variant in Recordings.of(istio).variants:
            for proxy in variant.values():
                assert all(cluster["alt_stat_name"].endswith(";") for cluster in proxy.clusters)


# ---- what stands for what ----


def test_the_endpoints_are_the_boxs_own_pods() -> None:
    clusters = played(sent(SIDECAR))["static_resources"]["clusters"]
    found = {it["name"]: it.get("load_assignment", {}).get("endpoints", []) for it in clusters}
    (locality,) = found["outbound|80||plain.acme-db.svc.cluster.local"]
    (endpoint,) = locality["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {
        "address": recorded_world().pods["acme-db/plain"].address,
        "port_value": 8000,
    }
    assert endpoint["metadata"]["filter_metadata"]["envoy.transport_socket_match"] == {
        "tlsMode": "istio"
    }


def recorded_world() -> Any:
    from authz.lab.world import paths as world  # noqa: PLC0415

    return world.world()


def test_what_http_goes_by_says_so_by_alpn_and_nothing_else_does() -> None:
    config = played(sent(SIDECAR))

    def alpn(name: str) -> list[str]:
        cluster = _cluster(config, name)
        matches = [it["transport_socket"] for it in cluster.get("transport_socket_matches", ())]
        socket = (matches or [cluster["transport_socket"]])[0]
        found: list[str] = socket["typed_config"]["common_tls_context"]["alpn_protocols"]
        return found

    web = "outbound|{}||hello-00001.acme-db.svc.cluster.local"
    assert alpn(web.format(80)) == ["istio-http/1.1", "istio", "http/1.1"]
    assert alpn(web.format(81)) == ["istio-h2", "istio", "h2"]
    tcp = "outbound|7000||plain-tcp.acme-db.svc.cluster.local"
    assert alpn(tcp) == ["istio-peer-exchange", "istio"]


def test_a_cluster_that_says_so_keeps_its_alpn() -> None:
    proxy = sent(SIDECAR)
    name = "outbound|80||plain.acme-db.svc.cluster.local"
    clusters = deepcopy(list(proxy.clusters))
    _named(clusters, name)["metadata"]["filter_metadata"]["istio"]["alpn_override"] = "false"
    config = played(replace(proxy, clusters=tuple(clusters)))
    assert _tls(config)["common_tls_context"]["alpn_protocols"] == ["istio-peer-exchange", "istio"]


def test_secrets_are_files_of_their_names() -> None:
    secrets = {it["name"]: it for it in played(sent(GATEWAY))["static_resources"]["secrets"]}
    assert secrets.keys() == SECRETS.keys()
    assert secrets["ROOTCA"]["validation_context"]["trusted_ca"] == {"filename": "/ca"}
    assert secrets["default"]["tls_certificate"]["private_key"] == {"filename": "/key"}


# ---- what cannot be played ----


def test_a_secret_without_files_is_an_error() -> None:
    with pytest.raises(CannotPlay, match=r"istio-system/gateway: .*kubernetes://public"):
        playing.played(sent(GATEWAY), {k: v for k, v in SECRETS.items() if "public" not in k})


def _with_filter(added: Json) -> Sent:
    proxy = sent(SIDECAR)
    listeners = deepcopy(list(proxy.listeners))
    listener = _named(listeners, "0.0.0.0_80")
    listener["filter_chains"][0]["filters"][-1]["typed_config"]["http_filters"].insert(0, added)
    return replace(proxy, listeners=tuple(listeners))


@pytest.mark.parametrize(
    "added",
    [
        {
            "name": "istio.new",
            "typed_config": {
                "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                "type_url": "type.googleapis.com/io.istio.http.new.Config",
            },
        },
        {"name": "istio.new", "typed_config": {"@type": "type.googleapis.com/istio.new.Config"}},
    ],
)
def test_a_filter_that_upstream_lacks_and_the_list_too_is_an_error(added: Json) -> None:
    with pytest.raises(CannotPlay, match=r"acme-web/hello: listener 0\.0\.0\.0_80: .*not upstream"):
        played(_with_filter(added))


def test_what_was_not_recorded_is_an_error() -> None:
    proxy = sent(SIDECAR)
    for lacking in (replace(proxy, routes=()), replace(proxy, endpoints=())):
        with pytest.raises(CannotPlay, match="not recorded"):
            played(lacking)


# ---- Envoys take it ----


@pytest.mark.envoy
@pytest.mark.parametrize("pod", [SIDECAR, GATEWAY, "knative-serving/activator"])
@pytest.mark.parametrize("overlay", ["enforce", "reuse", "shadow", "break-glass"])
@pytest.mark.parametrize("istio", versions())
def test_envoy_takes_it_with_everything_that_ships(
    tmp_path: Path, pod: str, overlay: str, istio: str
) -> None:
    certificate = Authority(tmp_path / "certs").issue(workload("a"))
    proxy = sent(pod, istio=istio).patched(Patches.of(shipped(overlay)))
    config = playing.played(proxy, recorded.secrets(certificate, certificate))
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
