"""What stands around the proxies: each is told where it takes from them, and only there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from authz.doctor import Expected, Rule
from authz.envoyfilters import shipped
from tests.command import Run
from tests.doctor.clusters import answer, pod, put
from tests.doctor.proxies import PLAINTEXT, Bench, Json, examined
from tests.kube_double import ApiDouble

WEBHOOK, NET_ISTIO = "knative-serving/webhook", "knative-serving/net-istio-webhook"
PLAIN = "globex/plain"


def without(name: str) -> Iterator[Json]:
    """What ships, but for the EnvoyFilter of a name."""
    for it in shipped():
        if (it["kind"], it["metadata"]["name"]) != ("EnvoyFilter", name):
            yield it


# ---- hops by path ----

HOPS = {
    "broker-ingress": "tenant-authz-broker",
    "broker-filter": "tenant-authz-filter",
    "imc-dispatcher": "tenant-authz-channel",
    "job-sink": "tenant-authz-job-sink",
    "request-reply": "tenant-authz-request-reply",
}


@pytest.mark.parametrize(("name", "envoy_filter"), HOPS.items())
def test_a_hop_by_path_for_which_no_filter_asks(bench: Bench, name: str, envoy_filter: str) -> None:
    documents = [*without(envoy_filter)]
    assert len(documents) < len([*shipped()])
    dump = bench.dump(f"knative-eventing/{name}", documents, dynamic=True)
    found = examined(dump, Expected(documents, plaintext=PLAINTEXT))
    assert [it.rule for it in found] == [Rule.HOP]
    assert examined(bench.dump(f"knative-eventing/{name}", dynamic=True)) == []


def test_kafka_s_receivers_are_hops_that_nobody_knows(bench: Bench) -> None:
    dump = bench.dump("knative-eventing/pingsource", dynamic=True)
    labels = dump["configs"][0]["bootstrap"]["node"]["metadata"]["LABELS"]
    labels["app"] = "kafka-broker-receiver"
    [found] = examined(dump)
    assert (found.rule, "app=kafka-broker-receiver" in found.what) == (Rule.HOP, True)


# ---- whom the API server calls ----


def hooks(api: ApiDouble, name: str, service: str, port: Any = None, **more: Any) -> None:
    reference = {"namespace": "knative-serving", "name": service} | (port or {})
    hook = {"name": f"{name}.example", "clientConfig": {"service": reference}, **more}
    made = {"metadata": {"name": name}, "webhooks": [hook]}
    api.put("validatingwebhookconfigurations", made)


def serves(api: ApiDouble, bench: Bench, name: str, target: Any = 8443) -> None:
    """A pod of a webhook, and its Service."""
    metadata = bench.dump(name, dynamic=True)["configs"][0]["bootstrap"]["node"]["metadata"]
    ports = [{"name": "https-webhook", "containerPort": 8443}]
    made = pod(name, "istio-proxy", {"name": "webhook", "ports": ports}, labels=metadata["LABELS"])
    api.put("pods", made)
    namespace, _, short = name.partition("/")
    spec = {"selector": {"app": short}, "ports": [{"port": 443, "targetPort": target}]}
    api.put("services", {"metadata": {"namespace": namespace, "name": short}, "spec": spec})


@pytest.mark.parametrize("target", [8443, "https-webhook"])
def test_webhooks_that_are_let_be(
    run: Run, api: ApiDouble, bench: Bench, target: int | str
) -> None:
    for name in (WEBHOOK, NET_ISTIO):
        put(api, bench, name)
        serves(api, bench, name, target)
        hooks(api, name.partition("/")[2], name.partition("/")[2])
    hooks(api, "outside", "absent")
    api.put("mutatingwebhookconfigurations", {"metadata": {"name": "none"}})
    by_url = {"metadata": {"name": "url"}, "webhooks": [{"name": "u", "clientConfig": {"url": ""}}]}
    api.put("mutatingwebhookconfigurations", by_url)
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["findings"], len(ran.json["examined"])) == (0, [], 2)


@pytest.mark.parametrize(
    "called", ["validating", "another port", "conversion", "aggregated", "a name"]
)
def test_a_webhook_that_is_denied(
    run: Run, api: ApiDouble, bench: Bench, tmp_path: Any, called: str
) -> None:
    target = "https-webhook" if called == "a name" else 8443
    serves(api, bench, NET_ISTIO, target)
    documents = [*without("tenant-authz-webhook-net-istio")]
    dump = bench.dump(NET_ISTIO, documents, dynamic=True)
    api.ports["knative-serving", "net-istio-webhook", 15000] = answer(dump)
    (tmp_path / "mine.json").write_text(json.dumps({"kind": "List", "items": documents}))
    if called in {"validating", "a name"}:
        hooks(api, "one", "net-istio-webhook", failurePolicy="Ignore")
    elif called == "another port":
        hooks(api, "one", "net-istio-webhook", {"port": 443})
    elif called == "conversion":
        service = {"namespace": "knative-serving", "name": "net-istio-webhook"}
        conversion = {"webhook": {"clientConfig": {"service": service}}}
        definition = {"metadata": {"name": "kinds"}, "spec": {"conversion": conversion}}
        api.put("customresourcedefinitions", definition)
    else:
        aggregated = {"namespace": "knative-serving", "name": "net-istio-webhook", "port": 443}
        api.put("apiservices", {"metadata": {"name": "v1"}, "spec": {"service": aggregated}})
    ran = run("doctor", "--cluster", "--filters", str(tmp_path / "mine.json"), "--json")
    found = {(it["workload"], it["where"], it["rule"]) for it in ran.json["findings"]}
    assert found == {(NET_ISTIO, "port 8443", "webhook")}
    assert ran.code == 1


def test_a_sidecar_s_port_that_nobody_let_be(run: Run, api: ApiDouble, bench: Bench) -> None:
    """As of an operator's own webhook, whose port is of a pod like any other."""
    put(api, bench, PLAIN)
    api.put("pods", pod(PLAIN, "istio-proxy", labels={"app": "plain"}))
    spec = {"selector": {"app": "plain"}, "ports": [{"port": 443, "targetPort": 8000}]}
    metadata = {"namespace": "globex", "name": "plain"}
    api.put("services", {"metadata": metadata, "spec": spec})
    api.put("services", {"metadata": {**metadata, "name": "headless"}, "spec": {"ports": []}})
    for name in ("plain", "headless"):
        hook = {"name": name, "clientConfig": {"service": {**metadata, "name": name}}}
        made = {"metadata": {"name": name}, "webhooks": [hook]}
        api.put("validatingwebhookconfigurations", made)
    ran = run("doctor", "--cluster", "--json")
    [found] = ran.json["findings"]
    assert (found["workload"], found["where"], found["rule"]) == (PLAIN, "port 8000", "webhook")
    assert "failurePolicy Fail" in found["what"]


# ---- other objects ----


def test_a_copy_of_our_filters_that_sends_the_name_for_statistics(
    run: Run, api: ApiDouble, bench: Bench
) -> None:
    put(api, bench, PLAIN)
    for it in shipped():
        if it["kind"] == "EnvoyFilter":
            api.put("envoyfilters", it)
    assert run("doctor", "--cluster").code == 0
    [sign] = [it for it in shipped() if it["metadata"]["name"] == "tenant-authz-sign"]
    copy = json.loads(json.dumps(sign).replace("%UPSTREAM_CLUSTER_RAW%", "%UPSTREAM_CLUSTER%"))
    copy["metadata"] |= {"namespace": "globex", "name": "mine"}
    api.put("envoyfilters", copy)
    ran = run("doctor", "--cluster", "--json")
    assert [(finding["workload"], finding["rule"]) for finding in ran.json["findings"]] == [
        ("globex/mine", "upstream")
    ]


@pytest.mark.parametrize(
    ("data", "noted"),
    [(None, False), ({}, True), ({"target-burst-capacity": "-1"}, False)],
)
def test_whether_the_activator_is_always_in_the_path_is_noted(
    run: Run, api: ApiDouble, bench: Bench, data: Json | None, noted: bool
) -> None:
    put(api, bench, PLAIN)
    if data is not None:
        place = {"namespace": "knative-serving", "name": "config-autoscaler"}
        api.put("configmaps", {"metadata": place, "data": data})
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, bool(ran.json["notes"])) == (0, noted)


KINDS = (
    *("validatingwebhookconfigurations", "mutatingwebhookconfigurations", "apiservices"),
    *("customresourcedefinitions", "services", "envoyfilters", "namespaces"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_what_may_not_be_looked_at_is_told_and_no_evidence(
    run: Run, api: ApiDouble, bench: Bench, kind: str
) -> None:
    put(api, bench, PLAIN)
    api.refused[kind] = 403
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["findings"]) == (3, [])
    assert kind in ran.json["unreadable"][0]
    api.refused[kind] = 404  # a kind that is not installed
    assert run("doctor", "--cluster").code == 0


def test_of_one_namespace_nothing_around_it_is_asked(
    run: Run, api: ApiDouble, bench: Bench
) -> None:
    put(api, bench, PLAIN)
    api.refused |= dict.fromkeys(KINDS[:-1], 403)
    assert run("doctor", "--cluster", "--namespace", "globex").code == 0
