"""Answers that are given again, in a mesh with two workers: what changes counts within its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Final

import pytest
import pytest_asyncio

from authz.domain import tokens
from authz.domain.keys import TokenLife
from authz.domain.names import Namespace
from authz.lab.box.istio import box, network
from authz.lab.box.istio.client import Answer
from authz.lab.box.istio.mesh import AUTHZ, Mesh, Source
from authz.lab.harness.service import KEPT
from authz.lab.world.attacked import attacked
from authz.lab.world.standard_policy import standard_policy
from tests.mesh.conftest import needs_network
from tests.support.waiting import eventually

pytestmark = [
    needs_network,
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

TOKEN: Final = "x-tenant-token"
VERIFY: Final = KEPT["reuse_verify_seconds"]
WORKERS: Final = 2
ACTIVATOR: Final = "knative-serving/activator"
PLAIN: Final = ("initech/plain", "http://hello.acme-db/")
GRANT: Final = {"to": "acme-db", "from": "initech"}
SAME_TENANT: Final = ("acme-web/hello", "http://hello.acme-db/")
ASLEEP: Final = ("acme-web/hello", "http://idle.acme-db/")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def warm(istiod: Source | None) -> AsyncIterator[Mesh]:
    if reason := network.missing():
        pytest.skip(reason)
    running = box.running(
        attacked(),
        tenants=("acme-web", "acme-db", "initech", "globex"),
        reuse=True,
        patched=box.patient,
        settings={"workers": WORKERS},
        source=istiod,
    )
    async with running as mesh:
        await mesh.settled()
        yield mesh


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def as_it_was(warm: Mesh) -> AsyncIterator[None]:
    yield
    await new_policy(warm, standard_policy())


async def asked(mesh: Mesh, *pods: str) -> int:
    return sum([sum((await mesh.checks(pod, kept=False)).values()) for pod in pods])


async def status(mesh: Mesh, call: tuple[str, str]) -> int:
    answer: Answer = await mesh.call(*call)
    return answer.status


async def until(seen: Callable[[], Awaitable[bool]]) -> None:
    """Until something is seen, which is looked for all the time."""
    begun = monotonic()
    while not await seen():
        assert monotonic() < begun + 60


async def ends(let_in: Callable[[], Awaitable[bool]]) -> None:
    """Nobody is let in who comes when what was kept before now has ended, or after a denial."""
    last = monotonic() + VERIFY
    while True:
        begun = monotonic()
        if not await let_in():
            break
        assert begun < last
    assert not await let_in()


async def new_policy(mesh: Mesh, text: str) -> None:
    """Give the server another policy, and wait until each worker has it."""
    if text != mesh.authz.policy_file.read_text():
        await _all_log(mesh, mesh.set_policy(text), "policy loaded")


async def new_keys(mesh: Mesh, *arguments: str) -> None:
    """Run `authz keys …`, and wait until each worker has the keyring."""
    await _all_log(mesh, mesh.keys(*arguments), "keyring loaded")


async def _all_log(mesh: Mesh, change: Awaitable[object], words: str) -> None:
    already = len(mesh.log(AUTHZ))
    await change

    async def known() -> bool:
        return mesh.log(AUTHZ)[already:].count(words) >= WORKERS

    await eventually(known, f"each worker says: {words}")


# What is asked ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "pods"),
    [
        (SAME_TENANT, ("acme-web/hello", "acme-db/hello")),
        (ASLEEP, ("acme-web/hello", ACTIVATOR, "acme-db/idle")),
    ],
    ids=["straight", "through the activator"],
)
async def test_warm_calls_are_hardly_asked_about(
    warm: Mesh, call: tuple[str, str], pods: tuple[str, ...]
) -> None:
    assert await status(warm, call) == 200
    before, begun = await asked(warm, *pods), monotonic()
    for _ in range(40):
        assert await status(warm, call) == 200
    renewed = int(monotonic() - begun) + 1  # once a second, by each of those that let in
    assert await asked(warm, *pods) - before <= len(pods) * (renewed + 1)
    assert renewed < 40


async def test_the_app_still_sees_no_token(warm: Mesh) -> None:
    for call in (SAME_TENANT, ASLEEP):
        await warm.forget()
        for _ in range(3):
            assert await status(warm, call) == 200
        seen = await warm.seen(_to(call))
        assert [it.header(TOKEN) for it in seen] == [[], [], []]


def _to(call: tuple[str, str]) -> str:
    name = call[1].removeprefix("http://").removesuffix("/").partition(".")[0]
    return f"acme-db/{name}"


async def test_a_proxy_that_starts_again_knows_nothing(warm: Mesh) -> None:
    assert await status(warm, SAME_TENANT) == 200
    await warm.start_proxy_again("acme-db/hello")
    before = await asked(warm, "acme-db/hello")
    await until(lambda: _is(warm, SAME_TENANT, 200))
    assert await asked(warm, "acme-db/hello") > before


async def _is(mesh: Mesh, call: tuple[str, str], wanted: int) -> bool:
    return await status(mesh, call) == wanted


# What changes -----------------------------------------------------------------------------------


async def test_a_grant_that_is_taken_back_lets_nobody_in_after_its_time(warm: Mesh) -> None:
    calls = PLAIN, ("initech/hello", "http://idle.acme-db/")
    for call in calls:
        await until(partial(_is, warm, call, 200))
    await new_policy(warm, standard_policy(grants=[]))
    await asyncio.gather(*(ends(partial(_is, warm, it, 200)) for it in calls))
    for call in calls:
        assert await status(warm, call) == 403


async def test_another_account_of_the_namespace_is_asked_about(warm: Mesh) -> None:
    """A grant for one service account; the other one's calls come in between."""
    accounts = [warm.pod(f"initech/{it}").identity.service_account for it in ("plain", "hello")]
    assert accounts[0] != accounts[1]
    await new_policy(warm, standard_policy(grants=[{**GRANT, "service_account": accounts[0]}]))
    await until(lambda: _is(warm, ("initech/hello", "http://hello.acme-db/"), 403))
    for _ in range(5):
        assert await status(warm, PLAIN) == 200
        assert await status(warm, ("initech/hello", "http://hello.acme-db/")) == 403


async def test_a_mode_that_ends_ends_at_once(warm: Mesh) -> None:
    """Shadow mode records each request, so none of its answers is kept."""
    call = "globex/hello", "http://hello.acme-db/"
    assert await status(warm, call) == 403
    shadow = {"acme-db": {"mode": "shadow"}}
    await new_policy(warm, standard_policy(namespaces=shadow))
    await until(lambda: _is(warm, call, 200))
    for _ in range(5):
        assert await status(warm, call) == 200
    await new_policy(warm, standard_policy())
    assert await status(warm, call) == 403


async def test_a_namespace_can_be_asked_about_each_time(warm: Mesh) -> None:
    await new_policy(warm, standard_policy(namespaces={"acme-db": {"reuse": False}}))
    await until(lambda: _grows_with_each(warm))


async def _grows_with_each(mesh: Mesh) -> bool:
    before = await asked(mesh, "acme-db/hello")
    for _ in range(3):
        assert await status(mesh, SAME_TENANT) == 200
    return await asked(mesh, "acme-db/hello") == before + 3


async def test_rotating_everything_denies_nobody(warm: Mesh) -> None:
    await new_keys(warm, "rotate", "acme-web", "--now")
    await new_keys(warm, "rotate", "--root", "--now")
    begun = monotonic()
    while monotonic() < begun + VERIFY + 2:
        for call in (SAME_TENANT, ASLEEP):
            assert await status(warm, call) == 200


async def test_a_revoked_namespace_s_tokens_count_no_more_after_their_time(warm: Mesh) -> None:
    """Those that its sidecars kept, and those that somebody else presents; then it goes on."""
    assert await status(warm, ASLEEP) == 200
    stolen = await _token(warm)
    own = warm.tls("acme-web/hello", alpn=["istio-http/1.1", "istio", "http/1.1"])
    via = f"{warm.address(ACTIVATOR)}:8012"

    async def presented() -> int:
        answer = await warm.call(
            "acme-web/hello",
            "http://idle-00001.acme-db.svc.cluster.local/",
            via=via,
            headers=[(TOKEN, stolen)],
            tls=own,
            through_sidecar=False,
        )
        return answer.status

    assert await presented() == 200
    await new_keys(warm, "revoke", "acme-web")

    async def let_in() -> bool:
        return await presented() == 200

    await ends(let_in)
    assert await presented() == 403
    await until(lambda: _is(warm, ASLEEP, 200))
    for _ in range(5):
        assert await status(warm, ASLEEP) == 200


async def _token(mesh: Mesh) -> str:
    """As acme-web's sidecar is given one."""
    return tokens.mint(
        source=Namespace("acme-web"),
        service_account="default",
        destination=Namespace("acme-db"),
        keyring=await mesh.authz.keys.keyring(),
        now=time.time(),  # noqa: TID251 - the server in the box goes by this clock
        life=TokenLife(),
    )


async def test_without_a_server_what_was_let_in_ends_in_its_time(warm: Mesh) -> None:
    assert await status(warm, SAME_TENANT) == 200
    await warm.kill(AUTHZ)
    try:
        await ends(partial(_is, warm, SAME_TENANT, 200))
        assert await status(warm, SAME_TENANT) == 503
        assert await status(warm, ("globex/hello", "http://hello.acme-db/")) == 503
    finally:
        await warm.start_authz()
    await until(lambda: _is(warm, SAME_TENANT, 200))
