"""What tells a Check that a proxy passed on from one of the proxy's own: see `FORWARDED`."""

from __future__ import annotations

from typing import Final

import pytest

from authz.extauthz.request import FORWARDED, asked_of
from authz.lab.world.model import Json
from authz.observe.trace import trace_fields
from tests.envoy.bench import LOCAL, PUBLIC, SIGN, VERIFY, Workbench, managers, seen_by_app

DOORS: Final = pytest.mark.parametrize("name", ["sign", "verify", "public", "local"])
NAMED: Final = {"sign": SIGN, "verify": VERIFY, "public": PUBLIC, "local": LOCAL}
COLLECTOR: Final = "nowhere"
TRACERS: Final[dict[str, Json]] = {
    "envoy.tracers.zipkin": {
        "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
        "collector_cluster": COLLECTOR,
        "collector_endpoint": "/api/v2/spans",
        "collector_endpoint_version": "HTTP_JSON",
    },
    "envoy.tracers.opentelemetry": {
        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
        "grpc_service": {"envoy_grpc": {"cluster_name": COLLECTOR}},
        "service_name": "mesh",
    },
}


def traced(config: Json, tracer: str) -> None:
    """Every request is traced, as Istio's Telemetry can have it."""
    everything = {"value": 100.0}
    for manager in managers(config):
        manager["tracing"] = {
            "client_sampling": everything,
            "random_sampling": everything,
            "overall_sampling": everything,
            "spawn_upstream_span": True,
            "provider": {"name": tracer, "typed_config": TRACERS[tracer]},
        }
    config["static_resources"]["clusters"].append({"name": COLLECTOR, "type": "STATIC"})


@DOORS
@pytest.mark.parametrize("tracer", ["", *TRACERS])
async def test_no_check_of_envoy_s_own_looks_as_if_it_was_passed_on(
    workbench: Workbench, name: str, tracer: str
) -> None:
    def change(config: Json) -> None:
        if tracer:
            traced(config, tracer)

    sent = [(it, "client's") for it in sorted(FORWARDED)]
    async with workbench.proxy(NAMED[name], change=change) as proxy:
        assert (await proxy.get(sent)).status_code == 200
    (question,) = workbench.authz.questions
    told = {key for key, _ in question.metadata}
    assert not told & FORWARDED
    assert bool(told & {"x-b3-traceid", "traceparent"}) == bool(tracer)


@DOORS
async def test_what_a_proxy_passes_on_does(workbench: Workbench, name: str) -> None:
    async with workbench.proxy(NAMED[name]) as proxy:
        seen = {key for key, _ in seen_by_app(await proxy.get())}
    assert seen >= FORWARDED


@DOORS
async def test_a_check_is_of_the_trace_of_the_request(workbench: Workbench, name: str) -> None:
    """With W3C's propagation, as Istio's OpenTelemetry provider has it."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    sent = [("traceparent", f"00-{trace}-00f067aa0ba902b7-01")]
    async with workbench.proxy(
        NAMED[name], change=lambda config: traced(config, "envoy.tracers.opentelemetry")
    ) as proxy:
        assert (await proxy.get(sent)).status_code == 200
    (question,) = workbench.authz.questions
    asked = asked_of(None, question.metadata)
    assert trace_fields(asked.trace)["trace_id"] == trace
