"""Policy from the cluster: what servers make of it, read and never written."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from authz.domain.policy import Grant, Mode, Policy
from authz.errors import BadPolicy
from authz.kube import KubeError
from authz.policysource.location import ConfigMapKey
from authz.policysource.snapshot import policy_in, with_cluster
from tests.cluster_policy import DB, SHOP, WEB, claim, followed, grant, namespace
from tests.command import Run
from tests.kube_double import ApiDouble
from tests.support.waiting import until

KEY = ConfigMapKey("authz-system", "policy", "policy.yaml")
FILE = f"configmap:{KEY}"


@pytest.fixture
def run(api: ApiDouble, run: Run) -> Run:
    """The command line beside a cluster."""
    return run


def put_all(api: ApiDouble) -> None:
    api.put("namespaces", namespace("web", tenant="acme"))
    api.put("namespaces", namespace("db", tenant="acme", mode="shadow"))
    api.put("namespaces", namespace("odd", mode="quiet"))
    api.put("grants", grant("one", "db", from_="shop", port=8080))
    api.put("grants", grant("bad", "db", from_="Shop"))
    api.put("clusterdomainclaims", claim("www.acme.example", "web"))


async def test_it_is_what_a_server_makes_of_it(api: ApiDouble) -> None:
    put_all(api)
    base = Policy()
    read = await with_cluster(base)
    assert read.policy.namespaces[DB].mode is Mode.SHADOW
    assert read.policy.same_tenant(WEB, DB)
    assert read.policy.grants == (Grant(DB, SHOP, None, 8080),)
    async with followed(base) as (seen, _):
        await until(lambda: seen.merged)
        assert seen.merged is not None
        assert read.policy == seen.merged.policy
        assert (read.statuses, read.problems) == (seen.merged.statuses, seen.merged.problems)


def test_the_cluster_is_read_and_not_written(api: ApiDouble, run: Run) -> None:
    put_all(api)
    Path("policy.yaml").write_text("default_mode: enforce\n")
    asked = ("policy", "explain", "policy.yaml", "shop", "db", "--port", "8080")
    assert run(*asked).code == 1
    done = run(*asked, "--cluster")
    assert done.code == 0
    assert "does not count: grant db/bad: Invalid: spec.from" in done.err
    assert "does not count: namespace odd: label tenant-authz.dev/mode" in done.err
    for words in (("matrix",), ("prove", "--no-path", "shop", "web")):
        assert run("policy", *words, "policy.yaml", "--cluster").code == 0
    assert {request.verb for request in api.requests} == {"list"}


def test_a_policy_in_the_cluster(api: ApiDouble, run: Run) -> None:
    metadata = {"name": KEY.name, "namespace": KEY.namespace}
    text = "grants: [{to: db, from: shop}]\n"
    api.put("configmaps", {"metadata": metadata, "data": {KEY.key: text}})
    Path("new.yaml").write_text("grants: []\n")
    assert run("policy", "diff", FILE, "new.yaml", "--fail-on", "opens").code == 0
    assert run("policy", "diff", FILE, "new.yaml", "--fail-on", "closes").code == 1
    assert asyncio.run(policy_in(KEY)).grants == (Grant(DB, SHOP),)


@pytest.mark.parametrize("data", [None, {}, {"policy.yaml": 7}, "text"])
async def test_a_policy_that_is_not_there_is_told(api: ApiDouble, data: object) -> None:
    with pytest.raises(BadPolicy, match="there is no such ConfigMap, or it lacks the key"):
        await policy_in(KEY)
    metadata = {"name": KEY.name, "namespace": KEY.namespace}
    api.put("configmaps", {"metadata": metadata, "data": data})
    with pytest.raises(BadPolicy, match=str(KEY)):
        await policy_in(KEY)


@pytest.mark.parametrize(
    ("refused", "works"),
    [({"grants": 403}, False), ({"grants": 404}, False), ({"clusterdomainclaims": 404}, True)],
)
async def test_what_cannot_be_read_is_no_policy(
    api: ApiDouble, refused: dict[str, int], works: bool
) -> None:
    api.refused = refused
    if works:
        assert (await with_cluster(Policy())).policy == Policy()
        return
    with pytest.raises(KubeError, match="grants"):
        await with_cluster(Policy())


def test_bad_places_are_usage(run: Run) -> None:
    done = run("policy", "matrix", "configmap:policy")
    assert (done.code, "write it as NAMESPACE/NAME/KEY" in done.err) == (2, True)
