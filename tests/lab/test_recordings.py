"""What istiod sent is written down for every world that is played, and is of today's worlds."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.envoyfilters import shipped
from authz.lab.controlplane.versions import ETCD, ISTIODS, KUBERNETES
from authz.lab.recordings.reading import COMMAND, KINDS, NotRecorded, Recordings, Sent, digest
from authz.lab.recordings.writing import Writer, file_of
from authz.lab.world import cluster, objects
from authz.lab.world.variants import variants

PAGE = Path(__file__).parents[1] / "README.md"
VARIANTS = {variant.name: variant for variant in variants()}
STANDARD = cluster.standard()


@pytest.mark.parametrize("istio", ISTIODS)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_recorded_as_its_world_is_today(istio: str, name: str) -> None:
    wanted = VARIANTS[name]
    recorded = {it.name: it for it in Recordings.of(istio).variants}
    assert name in recorded, f"run {COMMAND}"
    found = recorded[name]
    today = digest(objects.rendered(wanted.world, wanted.documents))
    assert found.objects == today, f"its world has changed: run {COMMAND}"
    assert (found.filters, found.stock) == (wanted.filters, wanted.stock)
    assert found.keys() == {pod.id for pod in wanted.world.pods.values() if pod.proxy != "none"}


@pytest.mark.parametrize("istio", ISTIODS)
def test_there_is_nothing_in_a_file_but_what_is_played(istio: str) -> None:
    recordings = Recordings.of(istio)
    assert [it.name for it in recordings.variants] == sorted(VARIANTS), f"run {COMMAND}"
    assert file_of(istio).stat().st_size < 500_000
    about = recordings.about
    assert (about["istio"], about["module"]) == (istio, ISTIODS[istio])
    assert (about["kubernetes"], about["etcd"]) == (KUBERNETES, ETCD)
    lines = PAGE.read_text().splitlines()
    assert f"| etcd | {ETCD} | `go.etcd.io/etcd/server/v3` |" in lines
    assert f"| kube-apiserver | {KUBERNETES} | `k8s.io/kubernetes` |" in lines
    assert any(f"called {istio} |" in line and ISTIODS[istio] in line for line in lines)


@pytest.mark.parametrize("istio", ISTIODS)
def test_what_istios_agent_starts_envoy_with_is_recorded(istio: str) -> None:
    for kind in ("sidecar", "router"):
        bootstrap = Recordings.of(istio).bootstraps[kind]
        static = bootstrap["static_resources"]
        assert {it["name"] for it in static["clusters"]} >= {"xds-grpc", "sds-grpc"}
        ports = {it["address"]["socket_address"]["port_value"] for it in static["listeners"]}
        assert ports == {15021, 15090}
        assert "node" not in bootstrap


@pytest.mark.parametrize("istio", ISTIODS)
def test_every_proxy_was_sent_all_that_belongs_together(istio: str) -> None:
    for variant in Recordings.of(istio).variants:
        for pod, sent in variant.items():
            served = {it["name"] for it in sent.clusters if it.get("type") == "EDS"}
            assert served == {endpoint["cluster_name"] for endpoint in sent.endpoints}
            assert sent.listeners
            assert sent.pod == pod


def test_a_world_is_found_by_its_objects_in_any_order() -> None:
    found = Recordings.of().find(objects.rendered(STANDARD, shipped()))
    assert found.name == "standard"
    again = objects.rendered(STANDARD, reversed(shipped()))
    assert Recordings.of().find(reversed(again)) == found


def test_a_world_that_was_not_recorded_is_an_error_with_the_command() -> None:
    with pytest.raises(NotRecorded, match=COMMAND):
        Recordings.of().find(objects.rendered(STANDARD))
    with pytest.raises(NotRecorded, match="with the shipped EnvoyFilters"):
        Recordings.of().find(objects.rendered(STANDARD, shipped()), filters=True)


def test_of_two_documents_with_one_name_the_later_counts() -> None:
    gateway = next(it for it in shipped() if it["kind"] == "Gateway")
    changed = {**gateway, "spec": {**gateway["spec"], "selector": {"other": "one"}}}
    first = digest(objects.rendered(STANDARD, shipped()))
    assert digest(objects.rendered(STANDARD, [changed, *shipped()])) == first
    assert digest(objects.rendered(STANDARD, [*shipped(), changed])) != first


def test_envoy_filters_are_no_part_of_a_world() -> None:
    fewer = [it for it in shipped() if it["kind"] != "EnvoyFilter"]
    assert objects.rendered(STANDARD, shipped()) == objects.rendered(STANDARD, fewer)


def test_the_same_recordings_give_the_same_bytes(tmp_path: Path) -> None:
    clusters = ({"name": "b"}, {"name": "a"})
    files: list[Path] = []
    for order in (clusters, clusters[::-1]):
        writer = Writer({"istio": "1.0"}, {})
        sent = Sent({"id": "a"}, order, ({"name": "l"},), (), ({"cluster_name": "a"},))
        writer.add("world", [], {"a/b": sent, "a/c": sent}, filters=False, stock=False)
        file = tmp_path / str(len(files))
        writer.write(file)
        files.append(file)
    assert files[0].read_bytes() == files[1].read_bytes()
    [read] = Recordings.read(files[0]).variants
    assert read["a/c"].clusters == ({"name": "a"}, {"name": "b"})
    assert len(writer.content["resources"]) == 4
    assert set(writer.content["variants"]["world"]["proxies"]["a/b"]) == {"node", *KINDS}
