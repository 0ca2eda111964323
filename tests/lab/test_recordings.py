"""What istiod sent is written down for every world that is played, and is of today's worlds."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.demo.istio import cluster
from authz.lab import objects, recordings
from authz.lab.controlplane.versions import ISTIODS
from authz.lab.recordings import COMMAND, KINDS, Book, NotRecorded, Sent
from authz.lab.variants import variants

VARIANTS = {it.name: it for it in variants()}
ALL = [(istio, name) for istio in ISTIODS for name in VARIANTS]


@pytest.mark.parametrize(("istio", "name"), ALL)
def test_a_variant_is_recorded_as_its_world_is_today(istio: str, name: str) -> None:
    wanted = VARIANTS[name]
    found = {it.name: it for it in recordings.book(istio)}
    assert name in found, f"run {COMMAND}"
    rendered = objects.rendered(wanted.world, wanted.documents)
    assert found[name].objects == objects.digest(rendered), f"its world has changed: run {COMMAND}"
    assert (found[name].filters, found[name].stock) == (wanted.filters, wanted.stock)
    proxies = {it.id for it in wanted.world.pods.values() if it.proxy != "none"}
    assert found[name].proxies.keys() == proxies


@pytest.mark.parametrize("istio", ISTIODS)
def test_there_is_nothing_in_a_file_but_what_is_played(istio: str) -> None:
    book = recordings.book(istio)
    assert {it.name for it in book} == VARIANTS.keys(), f"run {COMMAND}"
    used = {
        name
        for it in book
        for proxy in it.proxies.values()
        for kind in KINDS
        for name in proxy[kind]
    }
    assert used == {name for it in book for name in it.resources}
    assert recordings.file_of(istio).stat().st_size < 500_000
    assert (book.about["istio"], book.about["module"]) == (istio, ISTIODS[istio])


@pytest.mark.parametrize("istio", ISTIODS)
def test_every_proxy_was_sent_all_that_its_listeners_refer_to(istio: str) -> None:
    for it in recordings.book(istio):
        for pod in it.proxies:
            sent = it.sent(pod)
            assert {"BlackHoleCluster"} <= {cluster["name"] for cluster in sent.clusters}
            served = {cluster["name"] for cluster in sent.clusters if cluster.get("type") == "EDS"}
            assert served == {endpoints["cluster_name"] for endpoints in sent.endpoints}
            assert sent.listeners
            assert sent.node["metadata"]["NAMESPACE"] == pod.split("/")[0]


def test_a_world_is_found_by_its_objects_and_not_by_its_name() -> None:
    shipped = VARIANTS["globex"].documents
    world = cluster.standard(("globex",))
    found = recordings.find(objects.rendered(world, shipped))
    assert found.name == "globex"
    assert recordings.find(objects.rendered(world, reversed(shipped))).name == "globex"


def test_a_world_that_was_not_recorded_is_an_error_with_the_command() -> None:
    rendered = objects.rendered(cluster.standard(("initech",)))
    with pytest.raises(NotRecorded, match=COMMAND):
        recordings.find(rendered)
    known = objects.rendered(cluster.standard(("globex",)), VARIANTS["globex"].documents)
    with pytest.raises(NotRecorded, match="with the shipped filters"):
        recordings.find(known, filters=True)


def test_of_two_documents_with_one_name_the_later_counts() -> None:
    world = cluster.standard(("globex",))
    documents = VARIANTS["globex"].documents
    gateway = next(it for it in documents if it["kind"] == "Gateway")
    changed = {**gateway, "spec": {**gateway["spec"], "selector": {"other": "one"}}}
    first = objects.digest(objects.rendered(world, documents))
    assert objects.digest(objects.rendered(world, [changed, *documents])) == first
    assert objects.digest(objects.rendered(world, [*documents, changed])) != first


def test_envoy_filters_are_no_part_of_a_world() -> None:
    world = cluster.standard(("globex",))
    documents = VARIANTS["globex"].documents
    fewer = [it for it in documents if it["kind"] != "EnvoyFilter"]
    assert objects.rendered(world, documents) == objects.rendered(world, fewer)


def test_the_same_recordings_give_the_same_bytes(tmp_path: Path) -> None:
    sent = Sent(
        {"id": "a"}, [{"name": "b"}, {"name": "a"}], [{"name": "l"}], [], [{"cluster_name": "a"}]
    )
    files = []
    for name, clusters in (("one", sent.clusters), ("two", sent.clusters[::-1])):
        book = Book({"istio": "1.0"}, {}, {})
        told = Sent(sent.node, clusters, sent.listeners, sent.routes, sent.endpoints)
        book.add("world", "digest", {"a/b": told, "a/c": told}, filters=False, stock=False)
        book.write(tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1]
    [read] = Book.read(tmp_path / "one")
    assert read.sent("a/c").clusters == [{"name": "a"}, {"name": "b"}]
    assert len(read.resources) == 4


def test_what_was_read_can_be_changed_without_harm() -> None:
    recording = recordings.find(
        objects.rendered(cluster.standard(("globex",)), VARIANTS["globex"].documents)
    )
    first = recording.sent("globex/plain")
    first.clusters[0]["name"] = "changed"
    assert recording.sent("globex/plain").clusters[0]["name"] != "changed"
