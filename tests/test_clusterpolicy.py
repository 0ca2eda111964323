"""Labels and grants of a cluster, followed: merged when all is read, told back in statuses."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from authz.domain.policy import Mode
from authz.policysource.file import parse_policy
from authz.testing import check_request
from tests.cluster_policy import DB, NOW, SHOP, WEB, claim, followed, grant, namespace
from tests.kube_double import DEEP, ApiDouble, Fault, Object
from tests.support.clients import connected, http_get, outcome
from tests.support.processes import Folder, serving
from tests.support.waiting import at_last, until


def condition(api: ApiDouble, to: str, name: str) -> Object:
    """The condition of a grant; empty as long as there is none."""
    conditions = api.get("grants", to, name).get("status", {}).get("conditions", [{}])
    assert len(conditions) == 1
    found: Object = conditions[0]
    return found


async def test_labels_and_grants_are_followed(api: ApiDouble) -> None:
    api.put("namespaces", namespace("web", tenant="acme"))
    api.put("namespaces", namespace("db", tenant="acme", mode="shadow"))
    api.put("namespaces", namespace("shop"))
    api.put("grants", grant("readers", "db", from_="shop"))
    async with followed() as (seen, _):
        await until(lambda: seen.merged)
        assert seen.policy.same_tenant(WEB, DB)
        assert seen.policy.mode_of(DB) is Mode.SHADOW
        assert seen.policy.granted(SHOP, "any", DB, None, NOW)
        await until(lambda: api.watching == 3)

        api.put("namespaces", namespace("web"))
        await until(lambda: not seen.policy.same_tenant(WEB, DB))
        api.delete("namespaces", "", "db")
        await until(lambda: seen.policy.mode_of(DB) is Mode.ENFORCE)
        api.delete("grants", "db", "readers")
        await until(lambda: not seen.policy.grants)
        api.put("namespaces", namespace("shop", tenant="web-shop"))
        await until(lambda: seen.policy.of(SHOP).tenant == "web-shop")


async def test_claims_of_domains_are_followed(api: ApiDouble) -> None:
    api.put("clusterdomainclaims", claim("shop.example", "shop"))
    for bad in (claim("a.example", "Bad"), claim("b.example", None), claim("*.example", "shop")):
        api.put("clusterdomainclaims", bad)
    api.put("clusterdomainclaims", {"metadata": {"name": "c.example"}})
    async with followed() as (seen, _):
        await until(lambda: seen.merged)
        assert seen.policy.claims == {"shop.example": SHOP}
        assert seen.policy.namespace_of_name("shop.example") == SHOP
        await until(lambda: api.watching == 3)
        api.put("clusterdomainclaims", claim("shop.example", "web"))
        await until(lambda: seen.policy.claims == {"shop.example": WEB})
        api.put("clusterdomainclaims", claim("shop.example", "-"))
        await until(lambda: seen.policy.claims == {})
        api.put("clusterdomainclaims", claim("shop.example", "web"))
        await until(lambda: seen.policy.claims)
        api.delete("clusterdomainclaims", "", "shop.example")
        await until(lambda: seen.policy.claims == {})
    assert seen.problems == []


async def test_a_cluster_without_knative_has_no_claims(api: ApiDouble) -> None:
    api.refused = {"clusterdomainclaims": 404}
    async with followed() as (seen, _):
        await until(lambda: seen.merged)
        assert seen.policy.claims == {}
        assert seen.problems == []
        api.put("clusterdomainclaims", claim("shop.example", "shop"))
        api.refused = {}  # and then it is installed
        await until(lambda: seen.policy.claims == {"shop.example": SHOP})


async def test_claims_that_may_not_be_read_are_waited_for(api: ApiDouble) -> None:
    """They only narrow: without them a name would be anybody's."""
    api.refused = {"clusterdomainclaims": 403}
    async with followed() as (seen, _):
        await until(lambda: any("clusterdomainclaims" in problem for problem in seen.problems))
        assert seen.merged is None
        api.refused = {}
        await until(lambda: seen.merged)


async def test_nothing_is_merged_before_both_were_read(api: ApiDouble) -> None:
    api.put("namespaces", namespace("web", tenant="acme"))
    api.forbidden = {"watch"}
    api.fault("list", *[Fault(404)] * 6)
    async with followed() as (seen, _):
        await until(lambda: seen.problems)
        api.forbidden = set()
        await until(lambda: seen.merged)
        assert seen.policy.of(WEB).tenant == "acme"
    assert any("install deploy/components" in problem for problem in seen.problems)


async def test_another_file_is_merged_with_the_same_cluster(api: ApiDouble) -> None:
    api.put("namespaces", namespace("web", tenant="acme"))
    async with followed() as (seen, cluster):
        await until(lambda: seen.merged)
        cluster.use(parse_policy("tenants: {other: {namespaces: [web]}}"))
        await until(lambda: seen.policy.of(WEB).tenant == "other")
        assert seen.merged is not None
        assert "'acme' does not count" in seen.merged.problems[0]


async def test_what_was_missed_is_listed_again(api: ApiDouble) -> None:
    api.bookmark_every = 1000
    api.put("namespaces", namespace("web", tenant="acme"))
    api.put("grants", grant("old", "db", from_="shop"))
    async with followed() as (seen, _):
        await until(lambda: seen.merged and api.watching == 3)
        await until(lambda: condition(api, "db", "old"))
        with api.away():
            api.delete("namespaces", "", "web")
            api.delete("grants", "db", "old")
            api.put("grants", grant("new", "shop", from_="web"))
            api.compact()
        await until(lambda: [g.destination for g in seen.policy.grants] == [SHOP])
        assert seen.policy.of(WEB).tenant is None


async def test_a_list_is_read_in_pieces_and_anew_where_it_went_stale(api: ApiDouble) -> None:
    api.put_many("namespaces", [namespace(f"n{n:04}", tenant="all") for n in range(1200)])
    async with followed() as (seen, _):
        await until(lambda: seen.merged)
        assert len(seen.policy.namespaces) == 1200
    lists = [r for r in api.asked("list") if r.plural == "namespaces"]
    assert [bool(request.params.get("continue")) for request in lists] == [False, True, True]
    assert all("PartialObjectMetadata" in request.headers["accept"] for request in lists)


# -- statuses -----------------------------------------------------------------------------------


async def test_grants_are_told_what_became_of_them(api: ApiDouble) -> None:
    api.put("grants", grant("good", "db", from_="shop"))
    api.put("grants", grant("typo", "db", from_="shop", serviceaccount="reader"))
    api.put("grants", grant("wider", "db", from_="bank"))
    base = parse_policy("grants: [{to: db, from: bank, port: 8012}]")
    async with followed(base) as (seen, _):
        await until(lambda: all(condition(api, "db", n) for n in ("good", "typo", "wider")))
    assert condition(api, "db", "good") == {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "this grant counts",
        "observedGeneration": 1,
        "lastTransitionTime": "2027-01-15T08:00:00Z",
    }
    assert condition(api, "db", "typo")["reason"] == "Invalid"
    assert condition(api, "db", "typo")["message"] == "spec.serviceaccount: there is no such field"
    assert condition(api, "db", "wider")["reason"] == "Conflict"
    assert len(seen.policy.grants) == 2
    updates = api.asked("update")
    assert {request.name for request in updates} == {"good/status", "typo/status", "wider/status"}
    assert "managedFields" not in updates[0].body["metadata"]


async def test_another_generation_is_told_and_what_was_said_is_not_repeated(api: ApiDouble) -> None:
    api.put("grants", grant("g", "db", from_="shop"))
    async with followed():
        await until(lambda: condition(api, "db", "g"))
        stored = api.get("grants", "db", "g")
        changed = grant("g", "db", generation=2, from_="web")
        api.put("grants", {**changed, "status": stored["status"]})
        await until(lambda: condition(api, "db", "g").get("observedGeneration") == 2)
        api.put("namespaces", namespace("web", tenant="x"))
    writes = len(api.asked("update"))
    async with followed() as (seen, _):  # a server that starts finds it said
        await until(lambda: seen.merged and api.watching == 3)
        api.put("grants", grant("other", "db", from_="web"))
        await until(lambda: condition(api, "db", "other"))
    assert len(api.asked("update")) == writes + 1


async def test_two_servers_that_differ_say_it_once_each(api: ApiDouble) -> None:
    api.put("grants", grant("g", "db", from_="shop"))
    base = parse_policy("grants: [{to: db, from: shop}]")
    async with followed(base), followed():
        await until(lambda: condition(api, "db", "g"))
        for _ in range(40):
            api.put("namespaces", namespace("web", tenant="x"))
            await asyncio.sleep(0.005)
    assert len(api.asked("update")) <= 4


@pytest.mark.parametrize("status", [409, 500, 429, 403])
async def test_a_status_that_is_not_taken_is_tried_again(api: ApiDouble, status: int) -> None:
    api.put("grants", grant("g", "db", from_="shop"))
    api.fault("update", Fault(status))
    async with followed() as (seen, _):
        if status == 409:
            await until(lambda: api.asked("update"))
            api.put("grants", grant("g", "db", from_="shop"))  # what made the conflict
        await until(lambda: condition(api, "db", "g"))
        assert seen.policy.grants
    if status == 403:
        assert any('resources: ["grants/status"]' in problem for problem in seen.problems)


# -- servers ------------------------------------------------------------------------------------


async def test_a_server_lets_in_whom_labels_and_grants_let_in(
    api: ApiDouble, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    folder = Folder(tmp_path / "server")
    await folder.make_keys()
    api.put("namespaces", namespace("web", tenant="acme"))
    api.put("namespaces", namespace("db", tenant="acme"))
    api.put("grants", grant("typo", "db", from_="shop", serviceaccount="x"))

    with serving(folder.path, folder.flags(policy_from_cluster="true")) as server:
        server.ready()
        async with connected(server.port, folder.workload("db")) as client:

            async def asked(source: str) -> str:
                peer = f"spiffe://cluster.local/ns/{source}/sa/default"
                return outcome(await client.check("verify", check_request(principal=peer)))

            assert await asked("web") == "allowed"
            assert await asked("shop") == "token-missing"
            refused = server.line("does not count in the policy")["problem"]
            assert refused.startswith("grant db/typo: Invalid: spec.serviceaccount")

            took = []
            for number, source in enumerate(("cafe", "kiosk", "shop"), start=2):
                begun = time.monotonic()
                api.put("grants", grant(source, "db", from_=source))
                server.line("policy loaded", number)
                took.append(time.monotonic() - begun)
                assert await asked(source) == "allowed"
            assert min(took) < 1  # a machine may be busy once

            with api.away():
                server.line("cluster not readable, the last policy stays")
                assert await asked("shop") == "allowed"
                assert http_get(f"{server.http}/readyz")[0] == 200
            server.line("cluster readable again")
            assert len(server.lines("cluster readable again")) == 1


async def test_a_server_is_unready_until_the_cluster_was_read(
    api: ApiDouble, tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    folder = Folder(tmp_path / "server")
    await folder.make_keys()
    api.forbidden = {"list"}
    with serving(folder.path, folder.flags(policy_from_cluster="true")) as server:
        problem = server.line("cluster not readable, the last policy stays")["problem"]
        assert 'a ClusterRole must have the rule {apiGroups: ["' in problem
        status, body = http_get(f"{server.http}/readyz")
        assert status == 503
        assert json.loads(body)["policy"] is False if body.startswith("{") else "policy" in body
        api.forbidden = set()
        server.ready()
    at_last(lambda: api.watching == 0, "its watches have ended")


# -- what a tenant may write --------------------------------------------------------------------


async def test_large_grants_of_one_tenant_keep_nobody_elses_from_being_read(
    api: ApiDouble,
) -> None:
    """500 in one answer would be too long, and so would be 62."""
    for number in range(40):
        large = grant(f"large-{number}", "mallory", from_="shop")
        large["metadata"]["annotations"] = {"a": "x" * 250_000}
        api.put("grants", large)
    api.put("grants", grant("readers", "zoo", from_="shop"))
    async with followed() as (seen, cluster):
        await until(lambda: seen.merged)
        assert len(seen.policy.grants) == 41
        assert seen.problems == []
        await until(lambda: condition(api, "mallory", "large-39").get("status") == "True")
        assert all(len(json.dumps(thing)) < 1000 for thing in cluster._statuses._objects.values())
        assert all(len(json.dumps(request.body)) < 1000 for request in api.asked("update"))


async def test_what_is_nested_is_no_grant_and_harms_nobody(api: ApiDouble) -> None:
    """Deeper than can be read, it makes the whole list unreadable."""
    for number in range(3):
        api.put("grants", grant(f"deep-{number}", "mallory", from_="shop", deep=DEEP))
    api.put("grants", grant("flat", "mallory", from_="shop", deep={"a": 1}))
    api.put("grants", grant("readers", "zoo", from_="shop"))
    async with followed() as (seen, _):
        await until(lambda: seen.merged)
        assert [one.destination for one in seen.policy.grants] == ["zoo"]
        for name in ("deep-0", "deep-2", "flat"):
            await until(lambda: condition(api, "mallory", name).get("reason") == "Invalid")  # noqa: B023
        api.put("grants", grant("later", "mallory", from_="shop", deep=DEEP))
        api.put("grants", grant("writers", "zoo", from_="bank"))
        await until(lambda: len(seen.policy.grants) == 2)
