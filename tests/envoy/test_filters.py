"""Every shipped filter gets a real request: what it asks, and what the answer may change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from authz import envoyfilters
from authz.domain.facts import Asked
from authz.domain.policy import Policy
from authz.envoyfilters import shipped
from authz.extauthz.request import facts_of
from authz.lab.recordings import ANY_OTHER
from authz.testing import workload
from tests.envoy.bench import (
    BROKER,
    CHANNEL,
    FILTER,
    JOB_SINK,
    LOCAL,
    PUBLIC,
    REQUEST_REPLY,
    SCRAPED,
    SIGN,
    TRANSIT,
    VERIFY,
    Door,
    Proxy,
    Workbench,
    seen_by_app,
    values,
)
from tests.envoy.chains import CHAINS, TOKEN, token_of
from tests.envoy.scripted import Question, allowing, always

BROKER_ROLE = "eventing.knative.dev/brokerRole"
METADATA = {
    "sign": {
        "x-authz-question": "sign",
        "x-authz-upstream": "outbound|80||plain.acme-web.svc.cluster.local",
    },
    "verify": {"x-authz-question": "verify", "x-authz-containers": "app"},
    "transit": {"x-authz-question": "transit", "x-authz-hop": "activator"},
    "local": {
        "x-authz-question": "transit",
        "x-authz-hop": "gateway",
        "x-authz-upstream": "outbound|80||hello-00001.acme-web.svc.cluster.local",
    },
    "broker": {"x-authz-question": "transit", "x-authz-hop": "broker"},
    "trigger": {"x-authz-question": "transit", "x-authz-hop": "trigger"},
    "channel": {"x-authz-question": "transit", "x-authz-hop": "channel"},
    "job_sink": {"x-authz-question": "transit", "x-authz-hop": "job-sink"},
    "request_reply": {"x-authz-question": "transit", "x-authz-hop": "request-reply"},
    "public": {
        "x-authz-question": "public",
        "x-authz-upstream": "outbound|80||hello-00001.acme-web.svc.cluster.local",
    },
}
READ = {
    "sign": {TOKEN, "kn-namespace", "x-request-id"},
    "verify": {TOKEN, "user-agent", "k-network-probe", "x-request-id", "content-length"},
    "transit": {
        TOKEN,
        "knative-serving-namespace",
        "knative-serving-revision",
        "user-agent",
        "k-network-probe",
        "x-request-id",
        "content-length",
    },
    "public": {"x-request-id"},
    "local": {TOKEN, "user-agent", "k-network-probe", "x-request-id"},
    "broker": {TOKEN, "user-agent", "k-network-probe", "x-request-id"},
    "trigger": {TOKEN, "user-agent", "k-network-probe", "x-request-id"},
    "channel": {TOKEN, "user-agent", "k-network-probe", "x-request-id"},
    "job_sink": {TOKEN, "user-agent", "k-network-probe", "x-request-id"},
    "request_reply": {TOKEN, "user-agent", "k-network-probe", "x-request-id"},
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

PROBE = ("k-network-probe", "probe")

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
    assert not http.headers
    sent = {(header.key, header.raw_value.decode()) for header in http.header_map.headers}
    expected = {it for it in SENT if it[0] in READ[name]}
    if name in {"public", "local"}:  # a gateway takes no request id from outside
        expected.remove(("x-request-id", "4711"))
        (own,) = {it for it in sent if it[0] == "x-request-id"}
        sent.remove(own)
        assert own[1] != "4711"
    assert sent == expected
    assert (http.method, http.path, http.host) == ("GET", "/path?query=1", CHAINS[name].host)


@pytest.mark.parametrize("name", ["verify", "transit"])
async def test_a_body_whose_length_is_announced_is_told(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name]) as proxy:
        await proxy.get([PROBE], body=b"body")
        await proxy.get([PROBE])
    with_body, without = (
        facts_of(
            question.request,
            workload("acme-web"),
            Asked(None),
            token_header=TOKEN,
            policy=Policy(),
        )
        for question in workbench.authz.questions
    )
    assert (with_body.method, without.method) == ("", "GET")


@every_filter
async def test_it_names_the_route_only_at_the_gateway(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(CHAINS[name]) as proxy:
        attributes = (await one_question(workbench, proxy)).request.attributes
    metadata = attributes.route_metadata_context.filter_metadata
    named = str(metadata["istio"]["config"]) if "istio" in metadata else ""
    route = "/apis/networking.istio.io/v1/namespaces/acme-web/virtual-service/hello-"
    assert named.startswith(route) if name in {"public", "local"} else not named


@every_filter
async def test_an_answer_can_set_no_other_header(workbench: Workbench, name: str) -> None:
    sets = {TOKEN: "ours", "x-other": "ours", "x-tenant-token-2": "ours", ":path": "/elsewhere"}
    async with workbench.proxy(CHAINS[name]) as proxy:
        workbench.authz.answer = always(allowing(sets=sets))
        response = await proxy.get(SENT)
    headers = seen_by_app(response)
    assert values(headers, token_of(name)) == ([] if name == "verify" else ["ours"])
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


def names(door: Door, others: Sequence[dict[str, Any]] = ()) -> list[str]:
    """Ours and theirs, as they stand among Istio's."""
    found = [it["name"] for it in door.http_filters(others=others)]
    mine = {"other"} | {it for it in found if it.startswith("tenant-authz.")}
    return [it.removeprefix("tenant-authz.") for it in found if it in mine]


def gateway(port: int, istio: str = "ingressgateway") -> Door:
    """The gateway with its public listener at another port."""
    return replace(
        PUBLIC, port=port, proxy=envoyfilters.Proxy("gateway", "istio-system", {"istio": istio})
    )


@pytest.mark.parametrize("door", [TRANSIT, replace(TRANSIT, at=8013), FILTER, CHANNEL])
def test_a_hop_asks_transit_in_place_of_verify(door: Door) -> None:
    assert names(door) == ["transit"]
    assert names(BROKER) == names(REQUEST_REPLY) == ["transit", "carry"]
    assert names(JOB_SINK) == ["transit"]


@pytest.mark.parametrize("door", [TRANSIT, BROKER, FILTER, CHANNEL, JOB_SINK, REQUEST_REPLY])
def test_a_hop_s_other_ports_ask_verify(door: Door) -> None:
    assert names(replace(door, at=ANY_OTHER)) == ["verify", "strip"]


async def test_the_local_gateway_says_who_calls(workbench: Workbench) -> None:
    caller = workload("globex", "thief")
    async with workbench.proxy(LOCAL) as proxy:
        await proxy.get(SENT, cert=workbench.certificate(caller))
    (question,) = workbench.authz.questions
    assert question.request.attributes.source.principal == str(caller)


def test_an_app_never_sees_a_token_whoever_answers() -> None:
    assert names(VERIFY) == ["verify", "strip"]
    assert names(SCRAPED) == ["scrape", "verify", "strip"]


@pytest.mark.parametrize("port", [80, 443, 8443])
def test_the_gateway_asks_the_same_on_every_public_port(port: int) -> None:
    assert gateway(port).http_filters() == PUBLIC.http_filters()
    assert names(gateway(port)) == ["strip", "public"]


def test_other_envoy_filters_do_not_come_between() -> None:
    """Nobody touches a request before verify, or its token between sign and the router."""

    def other(context: str, operation: str, anchor: str | None) -> dict[str, Any]:
        manager: dict[str, Any] = {"name": "envoy.filters.network.http_connection_manager"}
        if anchor is not None:
            manager["subFilter"] = {"name": anchor}
        match = {"context": context, "listener": {"filterChain": {"filter": manager}}}
        patch = {"operation": operation, "value": {"name": "other"}}
        return {
            "kind": "EnvoyFilter",
            "metadata": {"name": "zzz", "namespace": "istio-system"},
            "spec": {"configPatches": [{"applyTo": "HTTP_FILTER", "match": match, "patch": patch}]},
        }

    theirs = [
        other("SIDECAR_INBOUND", "INSERT_FIRST", None),
        other("SIDECAR_OUTBOUND", "INSERT_BEFORE", "envoy.filters.http.router"),
        other("GATEWAY", "INSERT_BEFORE", "envoy.filters.http.router"),
    ]
    assert names(VERIFY, theirs) == ["verify", "strip", "other"]
    assert names(TRANSIT, theirs) == ["transit", "other"]
    assert names(SIGN, theirs) == ["other", "sign"]
    assert names(PUBLIC, theirs) == ["other", "strip", "public"]
    assert names(LOCAL, theirs) == ["other", "transit"]


def test_a_token_passes_only_where_its_presenter_is_looked_at() -> None:
    assert names(LOCAL) == ["transit"]
    for port in (8082, 8444, 15443):  # nobody's, and Knative's local gateway with TLS of its own
        assert names(gateway(port)) == ["strip"]


def test_other_gateways_are_left_alone() -> None:
    for port in (80, 443, 8080, 8081, 8443):
        assert names(gateway(port, istio="egressgateway")) == []


@pytest.mark.parametrize("door", [SIGN, VERIFY, SCRAPED, TRANSIT])
def test_nothing_asks_in_our_own_namespace(door: Door) -> None:
    ours = envoyfilters.Proxy("sidecar", "authz-system", {"app": "authz"})
    assert names(replace(door, proxy=ours)) == []


def test_the_brokers_filter_takes_events_from_the_channel_alone() -> None:
    (policy,) = [it for it in shipped() if it["kind"] == "AuthorizationPolicy"]
    assert policy["spec"]["selector"]["matchLabels"] == {BROKER_ROLE: "filter"}


def test_every_filter_and_its_statistics_have_names_of_their_own() -> None:
    added = [it["patch"]["value"] for it in patches() if it["patch"]["operation"][:6] == "INSERT"]
    kinds: dict[str, set[str]] = {}
    for it in added:
        assert it["name"].startswith("tenant-authz.")
        kinds.setdefault(it["name"], set()).add(it["typed_config"]["@type"])
    assert all(len(types) == 1 for types in kinds.values())
    prefixes = {"sign", "verify", "transit", "public", "local", "broker", "trigger"}
    prefixes |= {"channel", "tcp", "job_sink", "request_reply"}
    found = {it["typed_config"].get("stat_prefix") for it in added} - {None}
    assert found == {f"tenant_authz_{prefix}" for prefix in prefixes}
