"""On loopback, a proxy is what is played, but for what is on the list."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from authz.envoyfilters import shipped
from authz.lab.harness.ports import Endpoint
from authz.lab.loopback import mesh
from authz.lab.recordings import ANY_OTHER, CannotPlay, Places, on_loopback, played
from authz.lab.recordings import worlds as recorded
from tests.lab.differences import GONE, Difference, differences
from tests.lab.secrets import SECRETS

Json = dict[str, Any]

POD, PORT = "acme-web/plain", 8000
OUT, IN, APP, THERE = (Endpoint(f"127.0.0.{it}", 1000 + it) for it in range(1, 5))
ELSEWHERE = Endpoint(mesh.WORLD.pods["acme-db/plain"].address, PORT)
PLACES = Places(
    listeners={"0.0.0.0_80": OUT},
    inbound={PORT: IN, ANY_OTHER: IN},
    apps={PORT: APP, ANY_OTHER: APP},
    endpoints={ELSEWHERE: THERE},
)


def in_a_pod() -> Json:
    sent = recorded.variant(mesh.WORLD, [*mesh.WORLD.documents, *shipped()])[POD]
    return played(sent, SECRETS)


def named(config: Json, kind: str) -> dict[str, Json]:
    return {it["name"]: it for it in config["static_resources"][kind]}


def of_chains(virtual: Json, port: int) -> list[Json]:
    chains = deepcopy(virtual["filter_chains"])
    return [
        it for it in chains if it["filter_chain_match"].pop("destination_port", ANY_OTHER) == port
    ]


def unlisted(before: Json, after: Json) -> list[Difference]:
    """Differences that are not on the list."""
    found: list[Difference] = []
    old, new = named(before, "listeners"), named(after, "listeners")
    assert new.keys() == {"0.0.0.0_80", "virtualInbound 8000", "virtualInbound 0"}
    bound = {"address": OUT.address, "bind_to_port": True}
    found += differences(old["0.0.0.0_80"] | bound, new["0.0.0.0_80"])
    virtual = old["virtualInbound"]
    for port in (PORT, ANY_OTHER):
        wanted = virtual | {
            "name": f"virtualInbound {port}",
            "address": IN.address,
            "bind_to_port": True,
            "filter_chains": of_chains(virtual, port),
            "listener_filters": [
                it for it in virtual["listener_filters"] if not it["name"].endswith("original_dst")
            ],
        }
        found += differences(wanted, new[f"virtualInbound {port}"])
    old, new = named(before, "clusters"), named(after, "clusters")
    inbound = f"inbound|{PORT}||", "InboundPassthroughCluster"
    for it in differences(old, new):
        name, field = it.path[0], it.path[1] if len(it.path) > 1 else ""
        if not (
            field == "load_assignment"
            or (name in inbound and field in {"type", "lb_policy"})
            or (name in inbound and field in {"upstream_bind_config", "cleanup_interval"})
            or (name == "PassthroughCluster" and field == "original_dst_lb_config")
        ):
            found.append(it)
    return found


def test_nothing_differs_but_what_is_listed() -> None:
    assert unlisted(in_a_pod(), on_loopback(in_a_pod(), PLACES)) == []


def http_filters(chain: Json) -> list[Json]:
    filters: list[Json] = chain["filters"][-1]["typed_config"]["http_filters"]
    return filters


@pytest.mark.parametrize(
    "plant",
    [
        lambda it: it["clusters"][0].pop("alt_stat_name"),
        lambda it: it["listeners"][0].pop("default_filter_chain"),
        lambda it: it["listeners"][1]["filter_chains"][0].pop("transport_socket"),
        lambda it: http_filters(it["listeners"][1]["filter_chains"][0]).reverse(),
        lambda it: it["listeners"][1]["filter_chains"].pop(),
        lambda it: it["listeners"][2]["listener_filters"].pop(),
        lambda it: it["clusters"].pop(),
    ],
)
def test_a_planted_difference_is_seen(plant: Callable[[Json], Any]) -> None:
    config = on_loopback(in_a_pod(), PLACES)
    plant(config["static_resources"])
    assert unlisted(in_a_pod(), config)


def test_endpoints_are_moved_with_what_is_said_of_them_and_others_are_none() -> None:
    clusters = named(on_loopback(in_a_pod(), PLACES), "clusters")

    def endpoints(name: str) -> list[Json]:
        (locality,) = clusters[name]["load_assignment"]["endpoints"]
        return list(locality["lb_endpoints"])

    (moved,) = endpoints("outbound|80||plain.acme-db.svc.cluster.local")
    assert moved["endpoint"]["address"] == THERE.address
    assert "envoy.transport_socket_match" in moved["metadata"]["filter_metadata"]
    assert endpoints("outbound|80||plain.globex.svc.cluster.local") == []
    (app,) = endpoints(f"inbound|{PORT}||")
    assert app["endpoint"]["address"] == APP.address


@pytest.mark.parametrize(
    ("places", "told"),
    [
        (Places(listeners={"0.0.0.0_1": OUT}), "has no listener 0.0.0.0_1"),
        (Places(inbound={1: IN}), "no filter chain for port 1"),
    ],
)
def test_what_is_not_there_is_an_error(places: Places, told: str) -> None:
    with pytest.raises(CannotPlay, match=told):
        on_loopback(in_a_pod(), places)


def test_the_list_of_differences_can_fail() -> None:
    assert [*differences({"a": 1}, {})] == [Difference(("a",), 1, GONE)]
