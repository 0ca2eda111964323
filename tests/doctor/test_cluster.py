"""`authz doctor --cluster`: all proxies by way of an API server."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from authz.doctor import Expected, Report, Source, remote
from authz.envoyfilters import shipped
from authz.lab.world import attacked as worlds
from tests.command import Run
from tests.doctor.clusters import answer, pod, put
from tests.doctor.proxies import PLAINTEXT, Bench, Json
from tests.kube_double import ApiDouble, frame, hang_up, raw

PLAIN, HELLO, GATEWAY = "globex/plain", "globex/hello", "istio-system/gateway"
AGENT_ALONE = {"inject.istio.io/templates": "grpc-agent"}


def test_every_proxy_of_a_cluster(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, PLAIN, HELLO, GATEWAY)
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(ran.json["examined"]) == sorted([PLAIN, HELLO, GATEWAY])
    assert ran.json["findings"] == ran.json["unreadable"] == []
    assert sum(ran.json["versions"].values()) == 3
    assert ran.json["revisions"] == {"default": 3}
    forwarded = [request for request in api.requests if request.name.endswith("/portforward")]
    assert [it.params for it in forwarded] == [{"ports": "15000"}] * 3
    assert {it.verb for it in api.requests} == {"list", "create"}


def test_a_hole_in_one_of_them(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, PLAIN, HELLO)
    dump = bench.dump(HELLO, dynamic=True)
    dump["configs"][2]["dynamic_listeners"].pop()
    api.ports["globex", "hello", 15000] = answer(dump)
    ran = run("doctor", "--cluster", "--json")
    assert ran.code == 1
    assert {finding["workload"] for finding in ran.json["findings"]} == {HELLO}


def test_pods_that_have_no_envoy_end_or_are_not_ready(
    run: Run, api: ApiDouble, bench: Bench
) -> None:
    put(api, bench, PLAIN)
    api.put("pods", pod("authz-system/authz-1", "authz", "istio-proxy", annotations=AGENT_ALONE))
    api.put("pods", pod("acme/ended", "app") | {"status": {"phase": "Succeeded"}})
    api.put("pods", pod("acme/new", "app", "istio-proxy") | {"status": {"phase": "Pending"}})
    crashed = {"name": "istio-proxy", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    status = {"phase": "Running", "containerStatuses": [crashed]}
    api.put("pods", pod("acme/crashed", "app", "istio-proxy") | {"status": status})
    tunnel = {"name": "istio-proxy", "args": ["proxy", "ztunnel"]}
    api.put("pods", pod("istio-system/ztunnel", tunnel))
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["examined"], ran.json["findings"]) == (0, [PLAIN], [])
    assert ran.json["skipped"] == {
        "authz-system/authz-1": "its sidecar is Istio's agent without an Envoy",
        "acme/new": "it is pending",
        "acme/crashed": "its proxy does not run: waiting, CrashLoopBackOff",
        "istio-system/ztunnel": "it is ambient's ztunnel, in which no filter of ours can be",
    }


def test_a_pod_that_ends_while_it_is_asked(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, PLAIN, HELLO)

    async def vanish(writer: Any) -> None:
        await api._delete(("pods", "globex", "hello"))
        await hang_up(writer)

    api.ports["globex", "hello", 15000] = vanish
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["examined"]) == (0, [PLAIN])
    assert ran.json["skipped"] == {HELLO: "it ended meanwhile"}


def test_what_nobody_asks_is_told(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, PLAIN)
    api.put("namespaces", {"metadata": {"name": "calm", "labels": {MODE: "ambient"}}})
    api.put("pods", pod("acme/bare", "app"))
    api.put("pods", pod("acme/agent", "app", "istio-proxy", annotations=AGENT_ALONE))
    api.put("pods", pod("calm/app", "app"))
    api.put("pods", pod("calm/not", "app", labels={MODE: "none"}))
    api.put("pods", pod("acme/one", "app", labels={MODE: "ambient"}))
    way = {"name": "istio-proxy", "args": ["proxy", "waypoint", "--domain", "x"]}
    api.put("pods", pod("calm/way", way))
    ran = run("doctor", "--cluster", "--json")
    assert ran.code == 1
    assert {finding["workload"]: finding["rule"] for finding in ran.json["findings"]} == {
        "acme/bare": "no-proxy",
        "acme/agent": "no-proxy",
        "calm": "ambient",
        "calm/app": "ambient",
        "calm/not": "no-proxy",
        "calm/way": "ambient",
        "acme/one": "ambient",
    }


MODE = "istio.io/dataplane-mode"


def test_only_some_namespaces(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, PLAIN, GATEWAY)
    api.put("pods", pod("acme/bare", "app"))
    ran = run("doctor", "--cluster", "--namespace", "globex", "--json")
    assert (ran.code, ran.json["examined"]) == (0, [PLAIN])
    assert {request.namespace for request in api.requests if request.plural == "pods"} == {"globex"}
    nobody = run("doctor", "--cluster", "--namespace", "acne")
    assert (nobody.code, "no proxy was examined" in nobody.err) == (3, True)


def test_a_native_sidecar(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, PLAIN)
    native = pod(PLAIN, "app")
    native["spec"]["initContainers"] = [{"name": "istio-init"}, {"name": "istio-proxy"}]
    status = {"name": "istio-proxy", "state": {"running": {"startedAt": "x"}}}
    native["status"] |= {"initContainerStatuses": [status]}
    api.put("pods", native)
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["examined"], ran.json["skipped"]) == (0, [PLAIN], {})


def test_annotations_count_as_the_api_server_has_them(
    run: Run, api: ApiDouble, bench: Bench
) -> None:
    """A tenant may let its proxy say what it likes, or nothing."""
    past = {"traffic.sidecar.istio.io/excludeInboundPorts": "8080"}
    put(api, bench, PLAIN)
    api.put("pods", pod(PLAIN, "istio-proxy", annotations=past))
    api.put("pods", pod(HELLO, "istio-proxy", annotations=past))
    api.put("pods", pod("authz-system/authz", "istio-proxy", annotations=past))
    dump = bench.dump(PLAIN, dynamic=True)
    dump["configs"][0]["bootstrap"]["node"]["metadata"]["ANNOTATIONS"] = past
    for said in (bench.dump(PLAIN, dynamic=True), dump):
        api.ports["globex", "plain", 15000] = answer(said)
        ran = run("doctor", "--cluster", "--json")
        assert [(finding["workload"], finding["rule"]) for finding in ran.json["findings"]] == [
            (HELLO, "excluded-port"),
            (PLAIN, "excluded-port"),
        ]


def test_an_admin_port_of_ones_own(run: Run, api: ApiDouble, bench: Bench) -> None:
    env = [{"name": "PROXY_CONFIG", "value": '{"proxyAdminPort": 15999}'}]
    api.put("pods", pod(PLAIN, {"name": "istio-proxy", "env": env}))
    api.ports["globex", "plain", 15999] = answer(bench.dump(PLAIN, dynamic=True))
    assert run("doctor", "--cluster").code == 0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "says: error forwarding port 15000"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "answers 404"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", "cut off"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "has no `configs`"),
        (b"no HTTP", "cut off or is no HTTP"),
        (b"", "closed the connection"),
        (raw(frame(b"\0HTTP/1.1 200 OK\r\n\r\n", 3)), "closed the connection"),
        (hang_up, "the connection"),
    ],
)
def test_a_proxy_that_cannot_be_read(
    run: Run, api: ApiDouble, bench: Bench, said: Any, told: str
) -> None:
    put(api, bench, PLAIN, HELLO)
    del api.ports["globex", "hello", 15000]
    if said is not None:
        api.ports["globex", "hello", 15000] = said
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["examined"]) == (3, [PLAIN])
    [problem] = ran.json["unreadable"]
    assert HELLO in problem
    assert told in problem


def test_what_nobody_expected_is_told_and_nobody_waits(
    run: Run, api: ApiDouble, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(api, bench, PLAIN, HELLO)

    async def broken(*_: object, **__: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(remote, "get_from_pod", broken)
    with pytest.raises(ZeroDivisionError):
        run("doctor", "--cluster")


def test_a_proxy_that_says_it_is_another(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, PLAIN)
    api.put("pods", pod("mallory/evil", "istio-proxy"))
    api.ports["mallory", "evil", 15000] = api.ports["globex", "plain", 15000]
    ran = run("doctor", "--cluster", "--json")
    assert (ran.code, ran.json["examined"]) == (3, [PLAIN])
    assert ran.json["unreadable"] == [f"mallory/evil: its proxy says that it is {PLAIN}'s"]


def test_what_is_forbidden_is_told_with_the_right_that_is_missing(
    run: Run, api: ApiDouble, bench: Bench
) -> None:
    put(api, bench, PLAIN)
    api.forbidden = {"create"}
    ran = run("doctor", "--cluster")
    assert ran.code == 3
    assert 'resources: ["pods/portforward"]' in ran.err
    api.forbidden = {"list"}
    assert run("doctor", "--cluster").code == 3


@pytest.mark.parametrize(
    ("data", "told"),
    [({"mesh-compatibility-mode": "enabled"}, ""), ({}, "mode is auto"), (None, "is not known")],
)
def test_what_knative_knows_of_the_mesh_counts(
    run: Run, bench: Bench, api: ApiDouble, data: Json | None, told: str
) -> None:
    api.put("pods", pod(HELLO, "istio-proxy"))
    dump = bench.dump(HELLO, [*shipped(), worlds.mutual_tls("globex", "PERMISSIVE")], dynamic=True)
    api.ports["globex", "hello", 15000] = answer(dump)
    if data is not None:
        place = {"namespace": "knative-serving", "name": "config-network"}
        api.put("configmaps", {"metadata": place, "data": data})
    ran = run("doctor", "--cluster", "--plaintext", "globex", "--json")
    found = [finding["what"] for finding in ran.json["findings"] if finding["rule"] == "cold-start"]
    assert [told in it for it in found] == ([True] if told else [])


def test_a_proxy_costs_a_few_times_what_its_json_costs(bench: Bench) -> None:
    """So a thousand of them take less than a minute of the processor's time."""
    text = json.dumps(bench.dump(PLAIN, dynamic=True))
    report, expected = Report(), Expected(shipped(), plaintext=PLAINTEXT)
    report.look(Source(PLAIN, lambda: text), expected)  # shapes are made once

    def of(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    gc.disable()
    try:
        parsing = min(of(lambda: json.loads(text)) for _ in range(5))
    finally:
        gc.enable()
    looking = min(of(lambda: report.look(Source(PLAIN, lambda: text), expected)) for _ in range(5))
    assert looking < 12 * parsing  # it was 4 to 5 times as much


def test_progress_is_told_by_hundreds(run: Run, api: ApiDouble, bench: Bench) -> None:
    put(api, bench, GATEWAY)
    said = api.ports["istio-system", "gateway", 15000]
    api.put_many("pods", [pod(f"many/{number}", "istio-proxy") for number in range(100)])
    for number in range(100):
        api.ports["many", str(number), 15000] = said
    ran = run("doctor", "--cluster", "--json")
    assert "100 of 101 proxies examined" in ran.err
    assert len(ran.json["unreadable"]) == 100  # each says that it is the gateway
