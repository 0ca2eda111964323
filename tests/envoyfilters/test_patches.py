"""The patch engine: each of istiod's rules that it follows."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from authz.envoyfilters import CannotPatch, Patches, Proxy, shipped
from tests.envoyfilters.configs import (
    MANAGER,
    TCP,
    Json,
    config,
    http_chain,
    listener,
    named,
    tcp_chain,
)

SIDECAR = Proxy("sidecar", "acme", {"app": "web", "tier": "front"}, "1.30.2")
GATEWAY = Proxy("gateway", "istio-system", {"istio": "ingressgateway"})


def envoy_filter(
    *patches: Json,
    name: str = "one",
    namespace: str = "istio-system",
    labels: dict[str, str] | None = None,
    priority: int | None = None,
) -> Json:
    spec: Json = {"configPatches": list(patches)}
    if labels is not None:
        spec["workloadSelector"] = {"labels": labels}
    if priority is not None:
        spec["priority"] = priority
    metadata = {"name": name, "namespace": namespace}
    return {"kind": "EnvoyFilter", "metadata": metadata, "spec": spec}


def patch(
    operation: str,
    value: Json | None = None,
    *,
    to: str = "HTTP_FILTER",
    context: str = "ANY",
    version: str | None = None,
    cluster: Json | None = None,
    port: int | None = None,
    listener: str | None = None,
    network_filter: str | None = None,
    http_filter: str | None = None,
    **chain: Any,
) -> Json:
    match: Json = {"context": context}
    if version is not None:
        match["proxy"] = {"proxyVersion": version}
    if cluster is not None:
        match["cluster"] = cluster
    if http_filter is not None:
        chain["filter"] = {"name": MANAGER, "subFilter": {"name": http_filter}}
    elif network_filter is not None:
        chain["filter"] = {"name": network_filter}
    found: Json = {"name": listener, "portNumber": port, "filterChain": chain}
    if found := {key: it for key, it in found.items() if it}:
        match["listener"] = found
    done: Json = {"operation": operation} | ({} if value is None else {"value": value})
    return {"applyTo": to, "match": match, "patch": done}


def apply(envoy_filters: Any, proxy: Proxy, found: Json) -> Json:
    if isinstance(envoy_filters, dict):
        envoy_filters = [envoy_filters]
    applied: Json = Patches.of(envoy_filters).applied(proxy, found)["static_resources"]
    return applied


def http_names(resources: Json, at: int = 0, chain: int = 0) -> list[str]:
    (manager,) = resources["listeners"][at]["filter_chains"][chain]["filters"]
    return [it["name"] for it in manager["typed_config"]["http_filters"]]


def on_http(*patches: Json, proxy: Proxy = SIDECAR, **how: Any) -> list[str]:
    """What becomes of the filters a, b and router."""
    found = config(listener("virtualInbound", http_chain("a", "b", "router")))
    return http_names(apply(envoy_filter(*patches, **how), proxy, found))


NEW = named("new")


@pytest.mark.parametrize(
    ("operation", "anchor", "expected"),
    [
        ("INSERT_FIRST", None, ["new", "a", "b", "router"]),
        ("INSERT_FIRST", "b", ["new", "a", "b", "router"]),
        ("INSERT_BEFORE", "b", ["a", "new", "b", "router"]),
        ("INSERT_BEFORE", None, ["new", "a", "b", "router"]),
        ("INSERT_AFTER", "a", ["a", "new", "b", "router"]),
        ("INSERT_AFTER", None, ["a", "b", "router", "new"]),
        ("ADD", "a", ["a", "b", "router", "new"]),
        ("REPLACE", "a", ["new", "b", "router"]),
        ("REPLACE", None, ["a", "b", "router"]),
        ("REMOVE", "a", ["b", "router"]),
        ("REMOVE", None, ["a", "b", "router"]),
        ("INSERT_BEFORE", "missing", ["a", "b", "router"]),
        ("INSERT_AFTER", "missing", ["a", "b", "router"]),
        ("REPLACE", "missing", ["a", "b", "router"]),
        ("REMOVE", "missing", ["a", "b", "router"]),
    ],
)
def test_each_operation_on_http_filters(
    operation: str, anchor: str | None, expected: list[str]
) -> None:
    assert on_http(patch(operation, NEW, http_filter=anchor)) == expected


@pytest.mark.parametrize(
    ("operation", "anchor", "expected"),
    [
        ("INSERT_FIRST", None, ["new", TCP]),
        ("INSERT_BEFORE", TCP, ["new", TCP]),
        ("INSERT_AFTER", TCP, [TCP, "new"]),
        ("ADD", None, [TCP, "new"]),
        ("REPLACE", TCP, ["new"]),
        ("REMOVE", TCP, []),
        ("REMOVE", None, [TCP]),
        ("INSERT_BEFORE", MANAGER, [TCP]),
    ],
)
def test_each_operation_on_network_filters(
    operation: str, anchor: str | None, expected: list[str]
) -> None:
    asked = envoy_filter(patch(operation, NEW, to="NETWORK_FILTER", network_filter=anchor))
    found = config(listener("virtualInbound", tcp_chain()))
    (chain,) = apply(asked, SIDECAR, found)["listeners"][0]["filter_chains"]
    assert [it["name"] for it in chain["filters"]] == expected


def test_what_is_given_stays_as_it_is() -> None:
    found = config(listener("virtualInbound", http_chain("router")))
    before = deepcopy(found)
    asked = envoy_filter(
        patch("INSERT_FIRST", NEW), patch("MERGE", named("x", y=1), http_filter="router")
    )
    applied = apply(asked, SIDECAR, found)
    http_filters = applied["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    http_filters["http_filters"][0]["typed_config"]["z"] = 1
    assert found == before
    assert "z" not in NEW["typed_config"]


@pytest.mark.parametrize(
    ("context", "hit"),
    [
        ("ANY", ["in", "out"]),
        ("SIDECAR_INBOUND", ["in"]),
        ("SIDECAR_OUTBOUND", ["out"]),
        ("GATEWAY", []),
    ],
)
def test_context_is_the_listeners_direction(context: str, hit: list[str]) -> None:
    found = config(
        listener("in", http_chain("router")),
        listener("out", http_chain("router"), direction="OUTBOUND"),
        listener("not istiod's", http_chain("router"), direction=""),
    )
    applied = apply(envoy_filter(patch("INSERT_FIRST", NEW, context=context)), SIDECAR, found)
    changed = [
        it["name"] for i, it in enumerate(applied["listeners"]) if "new" in names(applied, i)
    ]
    assert changed == hit


def names(applied: Json, at: int) -> list[str]:
    return http_names(applied, at)


@pytest.mark.parametrize(
    ("context", "hit"), [("ANY", True), ("GATEWAY", True), ("SIDECAR_INBOUND", False)]
)
def test_a_gateways_listeners_have_one_context(context: str, hit: bool) -> None:
    found = config(listener("0.0.0.0_8080", http_chain("router"), direction=""))
    applied = apply(envoy_filter(patch("INSERT_FIRST", NEW, context=context)), GATEWAY, found)
    assert ("new" in http_names(applied)) is hit


@pytest.mark.parametrize(
    ("version", "hit"),
    [("^1\\.30\\.", True), ("^1\\.29", False), ("30", True), ("^1\\.(29|3[0-9])\\.", True)],
)
def test_the_proxys_version_is_searched_for(version: str, hit: bool) -> None:
    assert ("new" in on_http(patch("INSERT_FIRST", NEW, version=version))) is hit


@pytest.mark.parametrize(
    ("namespace", "labels", "hit"),
    [
        ("istio-system", None, True),
        ("istio-system", {"app": "web"}, True),
        ("istio-system", {"app": "web", "tier": "back"}, False),
        ("acme", None, True),
        ("acme", {"app": "other"}, False),
        ("globex", None, False),
    ],
)
def test_the_root_and_the_workloads_own_namespace_count(
    namespace: str, labels: dict[str, str] | None, hit: bool
) -> None:
    asked = on_http(patch("INSERT_FIRST", NEW), namespace=namespace, labels=labels)
    assert ("new" in asked) is hit


def test_another_root_namespace() -> None:
    asked = [envoy_filter(patch("INSERT_FIRST", NEW), namespace="mesh-root")]
    found = config(listener("virtualInbound", http_chain("router")))
    for root, hit in (("mesh-root", True), ("istio-system", False)):
        applied = Patches.of(asked, root).applied(SIDECAR, found)
        assert ("new" in http_names(applied["static_resources"])) is hit


def test_order_is_priority_then_root_first_then_name() -> None:
    def first(name: str, **rest: Any) -> Json:
        return envoy_filter(patch("INSERT_FIRST", named(name)), name=name, **rest)

    asked = [
        first("root-b"),
        first("late", priority=1),
        first("own", namespace="acme"),
        first("early", namespace="acme", priority=-1),
        first("root-a"),
    ]
    found = config(listener("virtualInbound", http_chain("router")))
    expected = ["late", "own", "root-b", "root-a", "early", "router"]
    assert http_names(apply(asked, SIDECAR, found)) == expected
    assert http_names(apply(asked[::-1], SIDECAR, found)) == expected


def test_a_removal_works_only_after_the_insertion() -> None:
    insert, remove = patch("INSERT_FIRST", NEW), patch("REMOVE", http_filter="new")
    assert on_http(insert, remove) == ["a", "b", "router"]
    assert on_http(remove, insert) == ["new", "a", "b", "router"]


def test_merges_come_after_everything_that_inserts() -> None:
    found = config(listener("virtualInbound", http_chain("router")))
    asked = [
        envoy_filter(patch("MERGE", named("new", more=2), http_filter="new")),
        envoy_filter(patch("INSERT_FIRST", named("new", some=1)), name="two", priority=9),
    ]
    applied = apply(asked, SIDECAR, found)
    manager = applied["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["http_filters"][0] == named("new", some=1, more=2)


def test_ports_of_the_virtual_listener_are_those_of_its_chains() -> None:
    chains = [
        http_chain("router", name="0.0.0.0_9090", filter_chain_match={"destination_port": 9090}),
        http_chain("router", name="0.0.0.0_8012", filter_chain_match={"destination_port": 8012}),
        http_chain("router", name="virtualInbound-catchall-http"),
    ]
    for match in ({"port": 9090}, {"destinationPort": 9090}, {"name": "0.0.0.0_9090"}):
        asked = envoy_filter(patch("INSERT_FIRST", NEW, **match))
        applied = apply(asked, SIDECAR, config(listener("virtualInbound", *chains)))
        assert ["new" in http_names(applied, 0, at) for at in range(3)] == [True, False, False]
    applied = apply(
        envoy_filter(patch("INSERT_FIRST", NEW, port=15006)),
        SIDECAR,
        config(listener("virtualInbound", *chains)),
    )
    assert not any("new" in http_names(applied, 0, at) for at in range(3))


def test_ports_of_other_listeners_are_their_own() -> None:
    found = config(
        listener("0.0.0.0_8080", http_chain("router"), port=8080, direction=""),
        listener("0.0.0.0_8081", http_chain("router"), port=8081, direction=""),
    )
    applied = apply(envoy_filter(patch("INSERT_FIRST", NEW, port=8081)), GATEWAY, found)
    assert ["new" in http_names(applied, at) for at in range(2)] == [False, True]
    applied = apply(
        envoy_filter(patch("INSERT_FIRST", NEW, listener="0.0.0.0_8080")), GATEWAY, found
    )
    assert ["new" in http_names(applied, at) for at in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"transportProtocol": "tls"}, True),
        ({"transportProtocol": "raw_buffer"}, False),
        ({"applicationProtocols": "istio-h2"}, True),
        ({"applicationProtocols": "istio-h2,istio-http/1.1"}, True),
        ({"applicationProtocols": "istio-h2,h2"}, False),
        ({"network_filter": MANAGER}, True),
        ({"network_filter": TCP}, False),
        ({"destinationPort": 80}, False),
        ({"name": "other"}, False),
    ],
)
def test_filter_chains_are_matched_by_what_they_match(match: Json, hit: bool) -> None:
    found = {"transport_protocol": "tls", "application_protocols": ["istio-http/1.1", "istio-h2"]}
    chain = http_chain("router", name="virtualInbound-catchall-http", filter_chain_match=found)
    asked = envoy_filter(patch("INSERT_FIRST", NEW, **match))
    applied = apply(asked, SIDECAR, config(listener("virtualInbound", chain)))
    assert ("new" in http_names(applied)) is hit


def test_http_filters_of_raw_tcp_chains_there_are_none() -> None:
    found = config(listener("virtualInbound", tcp_chain(), http_chain("router")))
    applied = apply(envoy_filter(patch("INSERT_FIRST", NEW)), SIDECAR, found)
    assert applied["listeners"][0]["filter_chains"][0] == tcp_chain()
    assert http_names(applied, 0, 1) == ["new", "router"]


def test_merge_is_protobufs() -> None:
    target = named("f", kept=1, changed="a", several=["x"], message={"a": 1, "b": 2})
    target["typed_config"]["any"] = {"@type": "one", "a": 1}
    found = config(listener("virtualInbound", http_chain()))
    manager = found["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    manager["typed_config"]["http_filters"] = [target]
    value = named("", changed="b", several=["y"], message={"b": 3}, any={"@type": "two", "b": 2})
    value["typed_config"]["@type"] = "another"
    del value["name"]
    applied = apply(envoy_filter(patch("MERGE", value, http_filter="f")), SIDECAR, found)
    manager = applied["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["http_filters"] == [
        {
            "name": "f",
            "typed_config": {
                "@type": "type",  # istiod keeps the filter's own
                "kept": 1,
                "changed": "b",
                "several": ["x", "y"],
                "message": {"a": 1, "b": 3},
                "any": {"@type": "two", "b": 2},
            },
        }
    ]


@pytest.mark.parametrize("value", [False, 0, "", []])
def test_a_merge_that_json_cannot_tell_is_refused(value: Any) -> None:
    with pytest.raises(CannotPatch, match="may or may not overwrite"):
        on_http(patch("MERGE", named("a", flag=value), http_filter="a"))


def test_a_merge_of_two_kinds_of_value_is_refused() -> None:
    with pytest.raises(CannotPatch, match="does not fit"):
        on_http(patch("MERGE", {"typed_config": {"@type": "x"}, "name": {"a": 1}}, to="LISTENER"))


def test_filter_chains_are_merged_removed_and_added() -> None:
    found = config(listener("virtualInbound", tcp_chain(name="a"), tcp_chain(name="b")))
    asked = envoy_filter(
        patch("REMOVE", to="FILTER_CHAIN", name="a"),
        patch("MERGE", {"metadata": {"x": 1}}, to="FILTER_CHAIN", name="b"),
        patch("ADD", tcp_chain(name="c"), to="FILTER_CHAIN"),
        patch("INSERT_FIRST", NEW, to="NETWORK_FILTER"),  # not on what this filter adds
    )
    chains = apply(asked, SIDECAR, found)["listeners"][0]["filter_chains"]
    assert [chain["name"] for chain in chains] == ["b", "c"]
    assert chains[0]["metadata"] == {"x": 1}
    assert chains[0]["filters"][0]["name"] == "new"
    assert chains[1] == tcp_chain(name="c")


def test_listeners_are_merged_removed_and_added() -> None:
    found = config(listener("a"), listener("b"), listener("c"))
    asked = envoy_filter(
        patch("REMOVE", to="LISTENER", listener="a"),
        patch("MERGE", {"stat_prefix": "x"}, to="LISTENER", listener="b"),
        patch("ADD", {"name": "any"}, to="LISTENER"),
        patch("ADD", {"name": "in"}, to="LISTENER", context="SIDECAR_INBOUND"),
        patch("ADD", {"name": "gateway"}, to="LISTENER", context="GATEWAY"),
    )
    listeners = apply(asked, SIDECAR, found)["listeners"]
    assert [it["name"] for it in listeners] == ["b", "c", "any", "in"]
    assert listeners[0]["stat_prefix"] == "x"


def test_the_default_filter_chain_is_patched_too() -> None:
    found = config(listener("a") | {"default_filter_chain": tcp_chain()})
    asked = envoy_filter(patch("INSERT_FIRST", NEW, to="NETWORK_FILTER"))
    (patched,) = apply(asked, SIDECAR, found)["listeners"]
    assert [it["name"] for it in patched["default_filter_chain"]["filters"]] == ["new", TCP]
    (patched,) = apply(envoy_filter(patch("REMOVE", to="FILTER_CHAIN")), SIDECAR, found)[
        "listeners"
    ]
    assert "default_filter_chain" not in patched


AUTHZ = "outbound|9000||authz.authz-system.svc.cluster.local"


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({}, True),
        ({"name": AUTHZ}, True),
        ({"name": "other"}, False),
        ({"service": "authz.authz-system.svc.cluster.local"}, True),
        ({"service": "authz.authz-system.svc.cluster.local", "portNumber": 9000}, True),
        ({"portNumber": 9001}, False),
        ({"subset": "v1"}, False),
    ],
)
def test_clusters_are_matched_by_name_or_its_parts(match: Json, hit: bool) -> None:
    asked = envoy_filter(
        patch("MERGE", {"x": 1}, to="CLUSTER", context="SIDECAR_OUTBOUND", cluster=match)
    )
    (cluster,) = apply(asked, SIDECAR, config(clusters=({"name": AUTHZ},)))["clusters"]
    assert ("x" in cluster) is hit


def test_clusters_are_removed_and_added_each_in_its_context() -> None:
    found = config(clusters=({"name": "inbound|80||"}, {"name": "PassthroughCluster"}))
    asked = envoy_filter(
        patch("REMOVE", to="CLUSTER", context="SIDECAR_INBOUND"),
        patch("ADD", {"name": "new"}, to="CLUSTER"),
        patch("ADD", {"name": "gateway"}, to="CLUSTER", context="GATEWAY"),
    )
    clusters = apply(asked, SIDECAR, found)["clusters"]
    assert [cluster["name"] for cluster in clusters] == ["PassthroughCluster", "new"]


def test_transport_sockets_are_merged_and_then_nothing_else_is() -> None:
    cluster = {"name": "c", "transport_socket": named("tls", a=1)}
    value = {"lb_policy": "RANDOM", "transport_socket": named("tls", b=2)}
    asked = envoy_filter(patch("MERGE", value, to="CLUSTER"))
    (merged,) = apply(asked, SIDECAR, config(clusters=(cluster,)))["clusters"]
    assert merged == {"name": "c", "transport_socket": named("tls", a=1, b=2)}


@pytest.mark.parametrize(
    "change",
    [
        {"applyTo": "VIRTUAL_HOST"},
        {"applyTo": "CLUSTER", "patch": {"operation": "INSERT_FIRST"}},
        {"patch": {"operation": "MERGE_AND_REPLACE_LIST"}},
        {"patch": {"operation": "ADD", "filterClass": "AUTHZ"}},
        {"match": {"context": "WAYPOINT"}},
        {"match": {"routeConfiguration": {}}},
        {"match": {"proxy": {"metadata": {"a": "b"}}}},
        {"match": {"listener": {"listenerFilter": "x"}}},
        {"match": {"listener": {"filterChain": {"sni": "x"}}}},
        {"match": {"listener": {"filterChain": {"filter": {"subFilter": {"type": "x"}}}}}},
        {"match": {"cluster": {"domain": "x"}}},
    ],
)
def test_what_it_does_not_know_is_an_error(change: Json) -> None:
    with pytest.raises(CannotPatch, match="EnvoyFilter istio-system/one"):
        Patches.of([envoy_filter(patch("INSERT_FIRST", NEW) | change)])


def test_selection_by_target_is_an_error() -> None:
    asked = envoy_filter()
    asked["spec"]["targetRefs"] = []
    with pytest.raises(CannotPatch, match="targetRefs"):
        Patches.of([asked])


def test_other_documents_are_left_out() -> None:
    documents = [{"kind": "DestinationRule", "metadata": {}, "spec": {}}]
    found = config(listener("a"))
    assert Patches.of(documents).applied(SIDECAR, found) == found


def test_an_unknown_overlay_is_told() -> None:
    with pytest.raises(CannotPatch, match="no overlay 'typo'"):
        shipped("typo")
