"""A cluster's name for statistics changes nothing.

istiod gives one to each cluster: the cluster's name and `;`, or what an operator's
`meshConfig.outboundClusterStatName` makes of it. Envoy prints it for %UPSTREAM_CLUSTER%.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from authz.lab.loopback import mesh, server
from authz.lab.world.model import DOMAIN, Json

pytestmark = pytest.mark.envoy

NAMES = {
    "istiod's": "{};",
    "an operator's": "outbound_for_statistics",
    "an operator's, who names another tenant": "outbound|80||app.mallory.svc.cluster.local",
    "none": "",
}
INSIDE = [
    ("acme-web", "idle.acme-web", 200),
    ("acme-web", "idle.acme-db", 200),
    ("initech", "idle.acme-db", 200),
    ("globex", "idle.acme-db", 403),
    ("globex", "hello.acme-db", 403),
]
OUTSIDE = ["hello.acme-web.example.com", "idle.acme-web.example.com"]


def renamed(config: Json, name: str) -> Json:
    for cluster in config["static_resources"]["clusters"]:
        cluster["alt_stat_name"] = name.format(cluster["name"])
    return config


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_every_call_ends_as_it_should(tmp_path: Path, name: str) -> None:
    plan = mesh.plan(tmp_path)
    configs = {who: renamed(config, name) for who, config in mesh.configs(plan).items()}
    gateway = plan.gateway.outbound
    calls = [
        *((plan.tenants[who].outbound, f"{to}.svc.{DOMAIN}", want) for who, to, want in INSIDE),
        *((gateway, host, 200) for host in OUTSIDE),
    ]
    async with (
        server.running(plan, tmp_path),
        mesh.running(plan, tmp_path, configs),
        httpx.AsyncClient(trust_env=False) as client,
    ):
        seen = [
            (
                address,
                host,
                (await client.get(f"http://{address}/x", headers={"host": host})).status_code,
            )
            for address, host, _ in calls
        ]
    assert seen == calls
