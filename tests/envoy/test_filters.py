"""Every shipped filter gets a real request: what it asks, and what the answer may change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from authz.demo.patches import shipped
from tests.envoy.bench import (
    PUBLIC,
    SIGN,
    TRANSIT,
    VERIFY,
    Proxy,
    Workbench,
    gateway,
    seen_by_app,
    values,
)
from tests.envoy.scripted import Question, allowing, always

TOKEN = "x-tenant-token"
CHAINS = {"sign": SIGN, "verify": VERIFY, "transit": TRANSIT, "public": PUBLIC}
METADATA = {
    "sign": {
        "x-authz-question": "sign",
        "x-authz-upstream": "outbound|80||app.acme-web.svc.cluster.local",
    },
    "verify": {"x-authz-question": "verify"},
    "transit": {"x-authz-question": "transit", "x-authz-hop": "activator"},
    "public": {
        "x-authz-question": "public",
        "x-authz-upstream": "outbound|80||app.acme-web.svc.cluster.local",
    },
}
READ = {
    "sign": {TOKEN, "kn-namespace", "x-request-id"},
    "verify": {TOKEN, "user-agent", "k-network-probe", "x-request-id"},
    "transit": {
        TOKEN,
        "knative-serving-namespace",
        "knative-serving-revision",
        "user-agent",
        "k-network-probe",
        "x-request-id",
    },
    "public": {"x-request-id"},
}

SENT = [
    (TOKEN, "first"),
    (TOKEN, "second"),
    ("kn-namespace", "acme-web"),
    ("knative-serving-namespace", "acme-web"),
    ("knative-serving-revision", "app"),
    ("user-agent", "curl"),
    ("k-network-probe", "probe"),
    ("x-request-id", "4711"),
    ("authorization", "Bearer secret"),
    ("cookie", "session=secret"),
    ("x-other", "client's"),
    ("x-authz-question", "public"),
    ("x-authz-upstream", "outbound|80||app.victim.svc.cluster.local"),
    ("x-authz-hop", "gateway"),
]

every_filter = pytest.mark.parametrize("name", CHAINS)


async def one_question(workbench: Workbench, proxy: Proxy) -> Question:
    assert (await proxy.get(SENT)).status_code == 200
    (question,) = workbench.authz.questions
    return question


@every_filter
async def test_it_asks_its_question_and_the_client_has_no_say(
    workbench: Workbench, name: str
) -> None:
    async with workbench.proxy(CHAINS[name]) as proxy:
        question = await one_question(workbench, proxy)
    ours = [(key, value) for key, value in question.metadata if key.startswith("x-authz-")]
    assert sorted(ours) == sorted(METADATA[name].items())


@every_filter
async def test_it_sends_only_the_headers_that_are_read(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name]) as proxy:
        http = (await one_question(workbench, proxy)).request.attributes.request.http
        host = str(proxy.address)
    assert not http.headers
    sent = [(it.key, it.raw_value.decode()) for it in http.header_map.headers]
    assert sorted(sent) == sorted(it for it in SENT if it[0] in READ[name])
    assert (http.method, http.path, http.host) == ("GET", "/path?query=1", host)


@every_filter
async def test_it_names_the_route_only_at_the_gateway(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name]) as proxy:
        attributes = (await one_question(workbench, proxy)).request.attributes
    metadata = attributes.route_metadata_context.filter_metadata
    named = metadata["istio"]["config"] if "istio" in metadata else None
    route = "/apis/networking.istio.io/v1alpha3/namespaces/acme-web/virtual-service/app-ingress"
    assert named == (route if name == "public" else None)


@every_filter
async def test_an_answer_can_set_no_other_header(workbench: Workbench, name: str) -> None:
    sets = {TOKEN: "ours", "x-other": "ours", "x-tenant-token-2": "ours", ":path": "/elsewhere"}
    async with workbench.proxy(CHAINS[name]) as proxy:
        workbench.authz.answer = always(allowing(sets=sets))
        response = await proxy.get(SENT)
    headers = seen_by_app(response)
    assert values(headers, TOKEN) == ["ours"]
    assert values(headers, "x-other") == ["client's"]
    assert values(headers, "x-tenant-token-2") == []
    assert response.json()["path"] == "/path?query=1"


@every_filter
async def test_an_answer_can_remove_no_other_header(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name]) as proxy:
        workbench.authz.answer = always(allowing(removes=[TOKEN, "x-other", "authorization"]))
        headers = seen_by_app(await proxy.get(SENT))
    assert values(headers, TOKEN) == []
    assert values(headers, "x-other") == ["client's"]
    assert values(headers, "authorization") == ["Bearer secret"]


@every_filter
async def test_without_the_service_only_sign_lets_through(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name]) as proxy:
        await workbench.authz.stop()
        response = await proxy.get(SENT)
    assert response.status_code == (200 if name == "sign" else 503)


def patches() -> Iterator[dict[str, Any]]:
    for document in shipped():
        if document["kind"] == "EnvoyFilter":
            yield from document["spec"]["configPatches"]


def test_the_activator_asks_transit_in_place_of_verify() -> None:
    assert [it["name"] for it in TRANSIT.http_filters()] == ["tenant-authz.transit"]


@pytest.mark.parametrize("port", [80, 443, 8443])
def test_the_gateway_asks_the_same_on_every_public_port(port: int) -> None:
    assert gateway(port).http_filters() == PUBLIC.http_filters() != []


def test_other_gateways_and_the_local_listener_are_left_alone() -> None:
    for door in (gateway(8080, istio="egressgateway"), gateway(8081)):
        assert door.http_filters() == []


def test_every_filter_and_its_statistics_have_a_name_of_their_own() -> None:
    added = [it["patch"]["value"] for it in patches() if "value" in it["patch"]]
    named = {it["name"]: it["typed_config"]["stat_prefix"] for it in added}
    assert sorted(named) == [
        "tenant-authz.public",
        "tenant-authz.sign",
        "tenant-authz.transit",
        "tenant-authz.verify",
    ]
    assert len(set(named.values())) == len(named)
