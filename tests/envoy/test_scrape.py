"""Port 9090: the autoscaler and Prometheus read /metrics without asking, and nobody else does."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from authz.domain.identity import SpiffeId
from authz.testing import workload
from tests.envoy.bench import SCRAPED, VERIFY, Door, Proxy, Workbench, seen_by_app, values
from tests.envoy.scripted import always, denying

AUTOSCALER = workload("knative-serving", "controller")
PROMETHEUS = workload("monitoring", "prometheus")


class Scrapes:
    def __init__(self, workbench: Workbench) -> None:
        self.workbench = workbench
        workbench.authz.answer = always(denying("x-word", "not-allowed", "no"))

    @asynccontextmanager
    async def proxy(self, door: Door = SCRAPED, overlay: str = "") -> AsyncIterator[Proxy]:
        async with self.workbench.proxy(door, overlay) as proxy:
            yield proxy


@pytest.fixture
def scrapes(workbench: Workbench) -> Scrapes:
    return Scrapes(workbench)


@pytest.mark.parametrize("who", [AUTOSCALER, PROMETHEUS])
@pytest.mark.parametrize("path", ["/metrics", "/metrics?format=protobuf"])
async def test_the_platform_s_scrapes_do_not_need_us(
    scrapes: Scrapes, who: SpiffeId, path: str
) -> None:
    cert = scrapes.workbench.certificate(who)
    async with scrapes.proxy() as proxy:
        await scrapes.workbench.authz.stop()
        headers = seen_by_app(await proxy.get([("x-tenant-token", "t")], path=path, cert=cert))
    assert scrapes.workbench.authz.questions == []
    assert values(headers, "x-tenant-token") == []


@pytest.mark.parametrize(
    ("namespace", "account", "path"),
    [
        ("globex", "default", "/metrics"),
        ("knative-serving", "activator", "/metrics"),
        ("knative-serving", "controller-2", "/metrics"),
        ("knative-serving", "controller", "/"),
        ("knative-serving", "controller", "/metrics/"),
        ("knative-serving", "controller", "/metrics/../admin"),
        ("knative-serving", "controller", "/METRICS"),
        ("monitoring", "default", "/metrics"),
    ],
)
async def test_everybody_else_is_asked_about(
    scrapes: Scrapes, namespace: str, account: str, path: str
) -> None:
    cert = scrapes.workbench.certificate(workload(namespace, account))
    async with scrapes.proxy() as proxy:
        assert (await proxy.get(path=path, cert=cert)).status_code == 403
    assert len(scrapes.workbench.authz.questions) == 1


async def test_another_trust_domain_does_not_get_a_connection(scrapes: Scrapes) -> None:
    cert = scrapes.workbench.certificate(workload("knative-serving", "controller", "other.local"))
    async with scrapes.proxy() as proxy:
        # httpx lets the alert through as it is where it comes after the handshake, as in TLS 1.3.
        with pytest.raises((httpx.HTTPError, ssl.SSLError)):
            await proxy.get(path="/metrics", cert=cert)


async def test_on_other_ports_they_are_asked_about(scrapes: Scrapes) -> None:
    cert = scrapes.workbench.certificate(AUTOSCALER)
    async with scrapes.proxy(VERIFY) as proxy:
        assert (await proxy.get(path="/metrics", cert=cert)).status_code == 403


async def test_without_us_nobody_else_gets_in(scrapes: Scrapes) -> None:
    cert = scrapes.workbench.certificate(workload("globex"))
    async with scrapes.proxy() as proxy:
        await scrapes.workbench.authz.stop()
        status = (await proxy.get(path="/metrics", cert=cert)).status_code
    assert status in {403, 503}


async def test_break_glass_switches_it_off_here_too(scrapes: Scrapes) -> None:
    cert = scrapes.workbench.certificate(workload("globex"))
    async with scrapes.proxy(overlay="break-glass") as proxy:
        assert (await proxy.get(path="/", cert=cert)).status_code == 200
    assert scrapes.workbench.authz.questions == []


async def test_verify_stays_on_if_the_native_filter_is_missing(scrapes: Scrapes) -> None:
    """Its condition is that the filter said `allowed`, not that it did not say `denied`."""
    cert = scrapes.workbench.certificate(AUTOSCALER)
    async with scrapes.workbench.proxy(SCRAPED, without="tenant-authz.scrape") as proxy:
        assert (await proxy.get(path="/metrics", cert=cert)).status_code == 403
