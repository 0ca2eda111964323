"""Answers that a proxy gives again: only what was asked about before, and where nothing is another.

Each rule of `components/reuse/reuse.lua` has a test here, and a change of the script that fails it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from random import randrange
from typing import Final, NamedTuple

import pytest
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from authz import envoyfilters
from authz._proto.ext_authz_pb2 import CheckRequest, CheckResponse
from authz.domain.names import Namespace
from authz.domain.policy import Grant, Policy, Role
from authz.domain.tokens import mint
from authz.domain.verdict import Reuse
from authz.extauthz import AuthorizationService
from authz.lab.loopback.mesh import WORLD
from authz.lab.recordings import ANY_OTHER
from authz.lab.world.model import Json
from authz.testing import ManualClock, rules, workload
from authz.wire import REUSE, REUSE_EPOCH
from tests.deploy.observability import FOLDER
from tests.envoy.bench import (
    SCRAPED,
    SIGN,
    TRANSIT,
    VERIFY,
    Door,
    Workbench,
    managers,
    seen_by_app,
    values,
)
from tests.envoy.keeping import DENIED, TOKEN, Change, Here, at, kept, running
from tests.envoy.scripted import Context, allowing
from tests.support.waiting import eventually

UPSTREAM: Final = "x-tenant-authz-upstream"
ACTIVATOR_OUT: Final = Door(
    "knative-serving/activator", "0.0.0.0_80", "plain.acme-web.svc.cluster.local"
)
ELSEWHERE: Final = f"127.{randrange(1, 255)}.{randrange(255)}.{randrange(1, 255)}"
"""Another address of the pod's."""
REVISION: Final = [
    ("knative-serving-namespace", "acme-web"),
    ("knative-serving-revision", "hello-00001"),
]


def at_two_addresses(config: Json) -> None:
    for listener in config["static_resources"]["listeners"]:
        port = listener["address"]["socket_address"]["port_value"]
        second = {"socket_address": {"address": ELSEWHERE, "port_value": port}}
        listener["additional_addresses"] = [{"address": second}]


def in_plaintext(config: Json) -> None:
    for listener in config["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            chain.pop("transport_socket", None)
            chain.get("filter_chain_match", {}).pop("transport_protocol", None)
            chain.get("filter_chain_match", {}).pop("application_protocols", None)


# What is given again ----------------------------------------------------------------------------


@pytest.mark.parametrize("door", [SIGN, VERIFY, TRANSIT], ids=["sign", "verify", "transit"])
async def test_a_warm_request_asks_nothing(workbench: Workbench, door: Door) -> None:
    async with running(workbench, door) as here:
        first, *more = [seen_by_app(await here.get((TOKEN, "t"))) for _ in range(5)]
        assert here.asked == 1
        await workbench.authz.stop()
        more.append(seen_by_app(await here.get((TOKEN, "t"))))
    expected = {SIGN: ["v1.ours"], VERIFY: [], TRANSIT: ["t"]}[door]
    for headers in more:
        assert values(headers, TOKEN) == expected
        assert {name for name, _ in headers} == {name for name, _ in first}


@pytest.mark.parametrize("door", [SIGN, VERIFY, TRANSIT], ids=["sign", "verify", "transit"])
@pytest.mark.parametrize("overlay", ["enforce", "reuse"])
async def test_without_a_word_of_the_service_or_the_component_each_is_asked_about(
    workbench: Workbench, door: Door, overlay: str
) -> None:
    async with running(workbench, door, overlay=overlay) as here:
        here.answer(kept() if overlay == "enforce" else allowing())
        for number in range(3):
            assert (await here.get()).status_code == 200
            assert here.asked == number + 1


@pytest.mark.parametrize("told", [0, -1, 0.5, float("nan"), float("-inf")])
async def test_what_is_no_time_keeps_nothing(workbench: Workbench, told: float) -> None:
    async with running(workbench, VERIFY) as here:
        here.answer(kept(told))
        assert await here.asks()
        assert await here.asks()


async def test_a_time_that_is_no_number_keeps_nothing(workbench: Workbench) -> None:
    async with running(workbench, VERIFY) as here:
        answer = kept()
        answer.dynamic_metadata.fields[REUSE].string_value = "100"
        here.answer(answer)
        assert await here.asks()
        assert await here.asks()


@pytest.mark.parametrize(
    "epoch",
    [
        Value(string_value="1"),
        Value(bool_value=False),
        Value(null_value=NULL_VALUE),
        Value(number_value=float("nan")),
        Value(struct_value=Struct(fields={"x": Value(number_value=1)})),
        Value(list_value=ListValue(values=[Value(number_value=1)])),
    ],
    ids=lambda it: it.WhichOneof("kind"),
)
async def test_whatever_comes_as_an_epoch_is_no_error(workbench: Workbench, epoch: Value) -> None:
    """At worst each answer makes those before forgotten."""
    async with running(workbench, VERIFY) as here:
        here.answer(kept(epoch=epoch))
        assert await here.asks()
        assert not await here.asks()
        here.answer(DENIED)
        assert (await here.get(who=workload("globex"))).status_code == 403
        told = await here.proxy.envoy.admin("/stats?filter=lua.*errors")
    assert {line.rpartition(": ")[2] for line in told.splitlines()} == {"0"}


async def test_no_app_says_that_something_was_revoked(workbench: Workbench) -> None:
    def answering(config: Json) -> None:
        header = {"header": {"key": REUSE_EPOCH, "value": "9"}}
        for manager in managers(config):
            manager["route_config"]["response_headers_to_add"] = [header]

    async with running(workbench, VERIFY, config=answering) as here:
        assert (await here.get()).headers[REUSE_EPOCH] == "9"
        assert not await here.asks()


async def test_a_token_replaces_all_that_the_app_wrote(workbench: Workbench) -> None:
    async with running(workbench, SIGN) as here:
        await here.get()
        headers = seen_by_app(await here.get((TOKEN, "a"), (TOKEN, "b")))
    assert here.asked == 1
    assert values(headers, TOKEN) == ["v1.ours"]


async def test_a_token_that_is_none_is_taken_off_again(workbench: Workbench) -> None:
    async with running(workbench, SIGN) as here:
        here.answer(kept(removes=[TOKEN]))
        await here.get()
        headers = seen_by_app(await here.get((TOKEN, "a"), (TOKEN, "b")))
    assert here.asked == 1
    assert values(headers, TOKEN) == []


# What a client can do ---------------------------------------------------------------------------


async def test_the_app_neither_sees_nor_chooses_where_its_request_goes(
    workbench: Workbench,
) -> None:
    async with running(workbench, SIGN) as here:
        victim = (UPSTREAM, "outbound|80||app.victim.svc.cluster.local")
        for headers in ([], [victim], [victim, victim]):
            assert values(seen_by_app(await here.get(*headers)), UPSTREAM) == []
        assert here.asked == 1


@pytest.mark.parametrize(
    "header",
    [
        (UPSTREAM, "outbound|80||x"),
        ("tenant-authz.reuse", "key"),
        ("x-envoy-dynamic-metadata", "envoy.filters.http.rbac"),
        ("tenant_authz_shadow_engine_result", "allowed"),
        (REUSE, "100"),
        (REUSE_EPOCH, "2"),
    ],
)
async def test_no_header_of_a_client_is_an_answer(
    workbench: Workbench, header: tuple[str, str]
) -> None:
    async with running(workbench, VERIFY) as here:
        here.answer(DENIED)
        for _ in range(2):
            assert await here.asks(header)
            assert (await here.get(header)).status_code == 403


async def test_a_denial_is_asked_about_each_time(workbench: Workbench) -> None:
    async with running(workbench, VERIFY) as here:
        here.answer(DENIED)
        for number in range(3):
            assert (await here.get()).status_code == 403
            assert here.asked == number + 1


async def test_the_dashboard_counts_both_kinds_of_requests(workbench: Workbench) -> None:
    panels = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    (panel,) = [it for it in panels if "needed no question" in it["title"]]
    names = [re.findall(r'__name__=~"([^"]+)"', target["expr"])[0] for target in panel["targets"]]
    async with running(workbench, VERIFY) as here:
        for _ in range(3):
            await here.get()
        told = await here.proxy.envoy.admin("/stats/prometheus")
    lines = [line.partition("{") for line in told.splitlines() if not line.startswith("#")]
    counts = [
        sum(int(rest.rpartition(" ")[2]) for found, _, rest in lines if re.fullmatch(name, found))
        for name in names
    ]
    assert counts == [2, 1]


async def test_who_is_asked_about_on_the_port_for_metrics(workbench: Workbench) -> None:
    """Two filters say `allowed`; the condition is one."""
    async with running(workbench, SCRAPED) as here:
        assert not await here.asks(path="/metrics", who=workload("knative-serving", "controller"))
        assert await here.asks(path="/metrics", who=workload("globex"))
        assert not await here.asks(path="/metrics", who=workload("globex"))
        assert await here.asks(path="/metrics", who=workload("initech"))


# Rules, each with a change of the script that breaks it -----------------------------------------

Holds = Callable[[Here], Awaitable[bool]]


class Rule(NamedTuple):
    """A scenario that tells whether a rule holds, and a change of the script that breaks it."""

    door: Door
    holds: Holds
    broken: Change
    config: Callable[[Json], None] = lambda config: None
    also: tuple[Change, ...] = ()
    """For both, to be quick."""


async def _another_peer(here: Here) -> bool:
    await here.get((TOKEN, "t"))
    return await here.asks((TOKEN, "t"), who=workload("initech"))


async def _another_token(here: Here) -> bool:
    await here.get((TOKEN, "t"))
    others: tuple[list[str], ...] = (["T"], ["t", "x"], ["t", "t"], [])
    return all([await here.asks(*((TOKEN, it) for it in shown)) for shown in others])


async def _another_address(here: Here) -> bool:
    await here.get()
    address = here.proxy.address._replace(host=ELSEWHERE)
    elsewhere = Here(here.workbench, replace(here.proxy, address=address))
    return await elsewhere.asks()


async def _another_host(here: Here) -> bool:
    """By which a relay goes."""
    await here.get()
    return await here.asks(host="plain.acme-web.svc")


async def _another_upstream(here: Here) -> bool:
    """One Host, and by the route another cluster: as with a VirtualService that matches paths."""
    await here.get()
    return await here.asks(("x-version", "2"))


def two_routes(config: Json) -> None:
    """Requests with a header go to another cluster."""
    by_header(config, "x-version")


def by_header(config: Json, header: str) -> None:
    """Requests that have a header go to another cluster."""
    names = [cluster["name"] for cluster in config["static_resources"]["clusters"]]
    elsewhere = next(it for it in names if it.startswith("outbound|80||") and "plain" not in it)
    for manager in managers(config):
        for host in manager.get("route_config", {}).get("virtual_hosts", []):
            if any(domain.startswith("plain.acme-web") for domain in host["domains"]):
                (route,) = host["routes"]
                other = {"name": header, "present_match": True}
                match = {**route["match"], "headers": [other]}
                moved = {**route["route"], "cluster": elsewhere}
                host["routes"] = [{**route, "match": match, "route": moved}, route]


async def _another_namespace(here: Here) -> bool:
    await here.get(*REVISION)
    other = ("knative-serving-namespace", "acme-db")
    return await here.asks(other, REVISION[1])


async def _several_values(here: Here) -> bool:
    """Of which the service says that there is no destination, or another."""
    for good in (REVISION, []):
        await here.get(*good)
    others: tuple[list[tuple[str, str]], ...] = (
        [REVISION[0], REVISION[0], REVISION[1]],
        [REVISION[0], REVISION[1], (REVISION[1][0], "b")],
        [REVISION[0], (REVISION[1][0], "a,b")],
        [(REVISION[0][0], ""), (REVISION[0][0], ""), REVISION[1]],
    )
    return all([await here.asks(*it) for it in others for _ in range(2)])


async def _half_named(here: Here) -> bool:
    """With one of the two headers the activator goes by the Host."""
    await here.get(REVISION[0], host="a.acme-web.svc.cluster.local")
    return await here.asks(REVISION[0], host="b.acme-db.svc.cluster.local")


async def _plaintext(here: Here) -> bool:
    plain = Here(here.workbench, replace(here.proxy, caller=None))
    await plain.get((TOKEN, "t"))
    return await plain.asks((TOKEN, "t"))


async def _too_long(here: Here) -> bool:
    """Who is let in whatever token it shows fills the memory with no more than that."""
    long = (TOKEN, "t" * 2000)
    await here.get(long)
    return await here.asks(long)


def _held(here: Here, answer: CheckResponse) -> asyncio.Event:
    """Let the service give an answer when it is told to."""
    let_go = asyncio.Event()

    async def held(_request: CheckRequest, _context: object) -> CheckResponse:
        await let_go.wait()
        return answer

    here.workbench.authz.answer = held
    return let_go


async def _slow_answer(here: Here) -> bool:
    """What was true two seconds ago is not for two more."""
    let_go = _held(here, kept(2))
    slow = asyncio.create_task(here.get(at(1000)))
    await eventually(partial(_asked_once, here), "it is asked about")
    here.answer(kept(2))
    await here.get(at(1002), (TOKEN, "another"))
    let_go.set()
    await slow
    return await here.asks(at(1002))


async def _denied_at_last(here: Here) -> bool:
    """The answer is renewed, and is a denial: what is kept is not good any more."""
    here.answer(kept(8))
    await here.get(at(1000))
    here.answer(DENIED)
    assert await here.asks(at(1006))
    return (await here.get(at(1006))).status_code == 403


async def _one_renews(here: Here) -> bool:
    """Of many requests at once, one asks."""
    here.answer(kept(4))
    await here.get(at(1000))
    let_go, before = _held(here, kept(4)), here.asked
    many = [asyncio.create_task(here.get(at(1003))) for _ in range(8)]

    async def all_wait_or_are_through() -> bool:
        return here.asked - before + sum(it.done() for it in many) == len(many)

    await eventually(all_wait_or_are_through, "each is asked about, or through")
    let_go.set()
    await asyncio.gather(*many)
    return here.asked == before + 1


async def _revoked(here: Here) -> bool:
    """A token is refused where it arrives: the answers of before are not given again."""
    await here.get()
    await here.get(host="other.example")
    await here.get(("x-refused", "yes"))
    return await here.asks() and await here.asks(host="other.example")


async def _refused_often(here: Here) -> bool:
    """Whoever is called cannot keep the memory empty."""
    await here.get(("x-refused", "yes"))
    await here.get()
    await here.get(("x-refused", "yes"))
    return not await here.asks()


async def _asked_before_all_was_forgotten(here: Here) -> bool:
    """A token of before the revocation does not come back with a response that took long."""
    let_go = _held(here, kept(token="v1.before"))
    slow = asyncio.create_task(here.get(at(1000)))
    await eventually(partial(_asked_once, here), "the first is asked about")
    here.answer(kept(token="v1.ours"))
    await here.get(at(1001), ("x-refused", "yes"), host="other.example")
    let_go.set()
    await slow
    return await here.asks(at(1001))


async def _asked_once(here: Here) -> bool:
    return here.asked == 1


async def _another_epoch(here: Here) -> bool:
    """What any answer brings ends all that were told before, once."""
    here.answer(kept(epoch=FIRST))
    await here.get()
    await here.get((TOKEN, "t"), who=workload("initech"))
    here.answer(kept(epoch=NEXT))
    forgotten = await here.asks(who=workload("globex")) and await here.asks()
    return forgotten and not await here.asks() and not await here.asks(who=workload("globex"))


async def _older_epoch(here: Here) -> bool:
    """An answer from before the revocation that passes late neither counts nor forgets."""
    let_go = _held(here, kept(epoch=FIRST))
    slow = asyncio.create_task(here.get(at(1000), (TOKEN, "slow")))
    await eventually(partial(_asked_once, here), "the first is asked about")
    here.answer(kept(epoch=NEXT))
    await here.get(at(1001))
    let_go.set()
    await slow
    return not await here.asks(at(1001)) and await here.asks(at(1001), (TOKEN, "slow"))


FIRST: Final = Value(number_value=2**48 - 2)
NEXT: Final = Value(number_value=2**48 - 1)


async def _set_back(here: Here) -> bool:
    """What has ended is not good again when the clock comes by for the second time."""
    await here.get(at(1000))
    await here.get(at(500), (TOKEN, "other"))
    return await here.asks(at(1000))


async def _grant_ends(here: Here) -> bool:
    """The service decides here, by a grant's last second; the setting is longer."""
    clock = ManualClock(LAST - 9.0)
    service = AuthorizationService(token_header=TOKEN, clock=clock, recorders=())
    grant = Grant(Namespace("acme-web"), Namespace("initech"), until=LAST + 1)
    roles = {workload("knative-serving", "activator"): frozenset({Role.TRANSIT})}
    service.rules = replace(rules(Policy(grants=(grant,), roles=roles)), reuse=Reuse(30, 60))
    caller = WORLD.pods[here.proxy.door.pod].identity

    async def decided(request: CheckRequest, context: Context) -> CheckResponse:
        metadata = [(key, str(value)) for key, value in context.invocation_metadata() or ()]
        told = service.check(request.SerializeToString(), service.asked(caller, metadata))
        return CheckResponse.FromString(told or b"no answer")

    here.workbench.authz.answer = decided
    token = mint(
        source=Namespace("initech"),
        service_account="default",
        destination=Namespace("acme-web"),
        keyring=service.rules.keyring,
        now=clock.now,
        life=service.rules.life,
    )

    async def got(now: int) -> int:
        clock.now = float(now)
        shown = (at(now), (TOKEN, token), *REVISION)
        return (await here.get(*shown, who=workload("initech"))).status_code

    assert [await got(it) for it in (LAST - 9, LAST - 8)] == [200, 200]
    assert here.asked == 1
    assert await got(LAST) == 200
    return await got(LAST + 1) == 403


LAST: Final = 2000
"""The last second of a grant."""


def refusing(config: Json) -> None:
    """An app that refuses the token of a request with a certain header."""
    script = """
function envoy_on_request(handle)
  if handle:headers():get('x-refused') then
    handle:streamInfo():dynamicMetadata():set('test', 'refused', true)
  end
end
function envoy_on_response(handle)
  if (handle:streamInfo():dynamicMetadata():get('test') or {}).refused then
    handle:headers():add('x-tenant-authz-reason', 'token-invalid')
  end
end
"""
    for manager in managers(config):
        names = [it["name"] for it in manager["http_filters"]]
        if "tenant-authz.sign" in names:
            config_ = {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                "default_source_code": {"inline_string": script},
            }
            manager["http_filters"].insert(-1, {"name": "refusing", "typed_config": config_})


SMALL: Final = (("local MOST = 2048", "local MOST = 8"), ("local SHARE = 512", "local SHARE = 4"))


async def _fills_its_share(here: Here) -> bool:
    """Whoever shows ever new tokens evicts nobody else's answers."""
    await here.get((TOKEN, "mine"), who=workload("initech"))
    for number in range(40):
        await here.get((TOKEN, f"t{number}"))
    return not await here.asks((TOKEN, "mine"), who=workload("initech"))


async def _bounded(here: Here) -> bool:
    """Many namespaces: what was kept first goes first."""
    for number in range(40):
        await here.get(who=workload(f"ns-{number}"))
    return await here.asks(who=workload("ns-0")) and not await here.asks(who=workload("ns-39"))


RULES: Final[dict[str, Rule]] = {
    "the peer counts": Rule(VERIFY, _another_peer, ("local key = peer ..", "local key = 'x' ..")),
    "the peer counts at the activator": Rule(
        TRANSIT, _another_peer, ("local key = peer ..", "local key = 'x' ..")
    ),
    "every value of the token counts": Rule(
        VERIFY, _another_token, ("(headers:get(TOKEN) or '')", "''")
    ),
    "the address counts": Rule(
        VERIFY, _another_address, ("info:downstreamLocalAddress()", "''"), at_two_addresses
    ),
    "the Host counts": Rule(SIGN, _another_host, ("(headers:get(':authority') or '')", "''")),
    "the cluster counts": Rule(
        SIGN, _another_upstream, ("return '', upstream ..", "return '', ''  .."), two_routes
    ),
    "the namespace counts at the activator": Rule(
        TRANSIT,
        _another_namespace,
        ("return of_peer(handle, headers, namespace)", "return of_peer(handle, headers, '')"),
    ),
    "several values are no namespace": Rule(
        TRANSIT, _several_values, ("find(',', 1, true)", "find('no such', 1, true)")
    ),
    "one header of two is none": Rule(
        TRANSIT, _half_named, ("if namespace == '' or revision == ''", "if namespace == ''")
    ),
    "plaintext proves nobody": Rule(
        VERIFY,
        _plaintext,
        ("if tls == nil then return end", "if tls == nil then return 'x', 'x' end"),
        in_plaintext,
    ),
    "long keys are not kept": Rule(VERIFY, _too_long, ("#key > LONGEST", "false")),
    "an answer counts from when it was asked": Rule(
        VERIFY,
        _slow_answer,
        ("asked.key, asked.at, os.time()", "asked.key, os.time(), os.time()"),
    ),
    "a denial forgets": Rule(
        VERIFY, _denied_at_last, ("young[key], old[key] = nil, nil", "local nothing = nil")
    ),
    "one renews": Rule(VERIFY, _one_renews, ("kept.renew = now + 1\n", "\n")),
    "a refused token empties the memory": Rule(
        SIGN, _revoked, ("      forget_all()\n", "\n"), refusing
    ),
    "once a second": Rule(SIGN, _refused_often, ("if now > forgot then", "if true then"), refusing),
    "what was asked before is not kept after": Rule(
        SIGN,
        _asked_before_all_was_forgotten,
        (" or since < forgot then", " then"),
        refusing,
    ),
    "a revocation forgets": Rule(
        VERIFY, _another_epoch, ("answer.tenant_authz_epoch ~= epoch", "false")
    ),
    "what passes late is no news": Rule(
        VERIFY,
        _older_epoch,
        ("epoch, forgot = answer.tenant_authz_epoch, since", "epoch = answer.tenant_authz_epoch"),
    ),
    **{
        f"a grant ends at {where}": Rule(
            door,
            _grant_ends,
            ("math.min(math.floor(seconds), MAX_SECONDS)", "MAX_SECONDS"),
        )
        for where, door in {"the pod": VERIFY, "the activator": TRANSIT}.items()
    },
    "a clock that is set back forgets": Rule(
        VERIFY, _set_back, ("if now < latest then", "if false then")
    ),
    "a share is for one namespace": Rule(
        VERIFY,
        _fills_its_share,
        ("if share > SHARE and room ~= '' then return end", ""),
        also=SMALL,
    ),
    "the memory has a bound": Rule(VERIFY, _bounded, ("size >= MOST or", "false or"), also=SMALL),
}


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_holds(workbench: Workbench, rule: str) -> None:
    one = RULES[rule]
    async with running(workbench, one.door, *one.also, config=one.config) as here:
        assert await one.holds(here)


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_that_is_taken_away_is_noticed(workbench: Workbench, rule: str) -> None:
    one = RULES[rule]
    changes = (*one.also, one.broken)
    async with running(workbench, one.door, *changes, config=one.config) as here:
        assert not await one.holds(here)


@pytest.mark.parametrize("again", [False, True], ids=["as it ships", "by default"])
async def test_no_route_is_chosen_by_the_token(workbench: Workbench, *, again: bool) -> None:
    """The token was made for where the request goes: that must not change after it is there."""

    def change(config: Json) -> None:
        by_header(config, TOKEN)
        for manager in managers(config):
            for it in manager["http_filters"]:
                if again and it["name"] == "tenant-authz.reuse":
                    del it["typed_config"]["clear_route_cache"]

    async with running(workbench, SIGN, config=change) as here:
        for _ in range(3):
            await here.get()
        assert here.asked == 1
        told = await here.proxy.envoy.admin("/stats?filter=^cluster.*upstream_rq_total$")
    sent = {
        name for name, count in (line.rsplit(": ", 1) for line in told.splitlines()) if count != "0"
    }
    assert len([it for it in sent if "outbound|80|" in it]) == (2 if again else 1)


# The activator's sign -----------------------------------------------------------------------------


async def test_what_carries_a_token_passes_the_activator_without_a_question(
    workbench: Workbench,
) -> None:
    async with running(workbench, ACTIVATOR_OUT) as here:
        headers = seen_by_app(await here.get((TOKEN, "origin")))
        assert here.asked == 0
    assert values(headers, TOKEN) == ["origin"]
    assert values(headers, UPSTREAM) == []


@pytest.mark.parametrize("shown", [[], [""], ["a", "b"], ["a,b"]])
async def test_what_carries_none_or_several_is_asked_about(
    workbench: Workbench, shown: list[str]
) -> None:
    async with running(workbench, ACTIVATOR_OUT) as here:
        assert await here.asks(*((TOKEN, it) for it in shown))


@pytest.mark.parametrize(
    "host", ["example.org", "10.1.2.3", "authz.authz-system.svc.cluster.local"]
)
async def test_what_leaves_the_mesh_or_comes_to_us_is_asked_about(
    workbench: Workbench, host: str
) -> None:
    async with running(workbench, ACTIVATOR_OUT) as here:
        await here.get((TOKEN, "origin"), host=host)
        assert here.asked == 1


def test_the_filters_stand_directly_before_what_asks() -> None:
    def names(door: Door) -> list[str]:
        found = [it["name"] for it in door.http_filters("reuse")]
        return [it.removeprefix("tenant-authz.") for it in found if it.startswith("tenant-authz.")]

    assert names(SIGN) == ["upstream", "reuse", "sign"]
    assert names(VERIFY) == names(replace(VERIFY, at=ANY_OTHER)) == ["reuse", "verify", "strip"]
    assert names(SCRAPED) == ["scrape", "reuse", "verify", "strip"]
    assert names(TRANSIT) == names(replace(TRANSIT, at=8013)) == ["reuse", "transit"]
    assert names(ACTIVATOR_OUT) == ["upstream", "pass", "sign"]
    ours = envoyfilters.Proxy("sidecar", "authz-system", {"app": "authz"})
    for door in (SIGN, VERIFY, SCRAPED, TRANSIT):
        assert names(replace(door, proxy=ours)) == []


def test_hops_that_are_not_the_activator_keep_nothing() -> None:
    from tests.envoy.bench import BROKER, CHANNEL, FILTER, JOB_SINK, LOCAL, PUBLIC  # noqa: PLC0415

    for door in (BROKER, CHANNEL, FILTER, JOB_SINK, LOCAL, PUBLIC):
        assert "tenant-authz.reuse" not in [it["name"] for it in door.http_filters("reuse")]
