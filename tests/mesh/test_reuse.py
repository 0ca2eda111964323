"""Answers that are given again, in a mesh with two workers: what changes counts within its time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
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
from authz.lab.world.attacked import attacked
from authz.lab.world.standard_policy import standard_policy
from tests.mesh.conftest import needs_network

pytestmark = [
    needs_network,
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

TOKEN: Final = "x-tenant-token"
SIGN, VERIFY = 30, 2
SOON: Final = VERIFY + 1
"""Seconds within which what was taken back is denied; a server takes one of them to know."""
MOST: Final = 3 * SOON
"""As long as a busy machine may take for it."""
ACTIVATOR: Final = "knative-serving/activator"
PLAIN: Final = ("initech/plain", "http://hello.acme-db/")
GRANT: Final = {"to": "acme-db", "from": "initech"}
SAME_TENANT: Final = ("acme-web/hello", "http://hello.acme-db/")
ASLEEP: Final = ("acme-web/hello", "http://idle.acme-db/")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def warm(istiod: Source | None) -> AsyncIterator[Mesh]:
    if reason := network.missing():
        pytest.skip(reason)
    settings = {"workers": 2, "reuse_sign_seconds": SIGN, "reuse_verify_seconds": VERIFY}
    running = box.running(
        attacked(),
        tenants=("acme-web", "acme-db", "initech", "globex"),
        overlay="reuse",
        settings=settings,
        source=istiod,
    )
    async with running as mesh:
        await mesh.settled()
        yield mesh


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def as_it_was(warm: Mesh) -> AsyncIterator[None]:
    yield
    await warm.set_policy(standard_policy())


async def asked(mesh: Mesh, *pods: str) -> int:
    return sum([sum((await mesh.checks(pod)).values()) for pod in pods])


async def status(mesh: Mesh, call: tuple[str, str]) -> int:
    answer: Answer = await mesh.call(*call)
    return answer.status


async def until(seen: Callable[[], Awaitable[bool]]) -> float:
    """Seconds until something is seen, which is looked for all the time."""
    begun = monotonic()
    while not await seen():
        assert monotonic() < begun + 60
    return monotonic() - begun


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
    await warm.kill_proxy("acme-db/hello")
    await warm.start_proxy("acme-db/hello")
    before = await asked(warm, "acme-db/hello")
    await until(lambda: _is(warm, SAME_TENANT, 200))
    assert await asked(warm, "acme-db/hello") > before


async def _is(mesh: Mesh, call: tuple[str, str], wanted: int) -> bool:
    return await status(mesh, call) == wanted


# What changes -----------------------------------------------------------------------------------


async def test_a_grant_that_is_taken_back_lets_nobody_in_after_its_time(warm: Mesh) -> None:
    calls = PLAIN, ("initech/hello", "http://idle.acme-db/")
    for call in calls:
        await until(lambda call=call: _is(warm, call, 200))  # type: ignore[misc]
    await warm.set_policy(standard_policy(grants=[]))
    for call in calls:
        took = await until(lambda call=call: _is(warm, call, 403))  # type: ignore[misc]
        assert took < MOST
        assert await status(warm, call) == 403


async def test_another_account_of_the_namespace_is_asked_about(warm: Mesh) -> None:
    """A grant for one service account; the other one's calls come in between."""
    accounts = [warm.pod(f"initech/{it}").identity.service_account for it in ("plain", "hello")]
    assert accounts[0] != accounts[1]
    await warm.set_policy(standard_policy(grants=[{**GRANT, "service_account": accounts[0]}]))
    await until(lambda: _is(warm, ("initech/hello", "http://hello.acme-db/"), 403))
    for _ in range(5):
        assert await status(warm, PLAIN) == 200
        assert await status(warm, ("initech/hello", "http://hello.acme-db/")) == 403


async def test_a_mode_that_ends_ends_at_once(warm: Mesh) -> None:
    """Shadow mode records each request, so none of its answers is kept."""
    call = "globex/hello", "http://hello.acme-db/"
    assert await status(warm, call) == 403
    shadow = {"acme-db": {"mode": "shadow"}}
    await warm.set_policy(standard_policy(namespaces=shadow))
    await until(lambda: _is(warm, call, 200))
    for _ in range(5):
        assert await status(warm, call) == 200
    await warm.set_policy(standard_policy())
    took = await until(lambda: _is(warm, call, 403))
    assert took < MOST  # the second worker may load the policy a moment later


async def test_a_namespace_can_be_asked_about_each_time(warm: Mesh) -> None:
    await warm.set_policy(standard_policy(namespaces={"acme-db": {"reuse": False}}))
    await until(lambda: _grows_with_each(warm))


async def _grows_with_each(mesh: Mesh) -> bool:
    before = await asked(mesh, "acme-db/hello")
    for _ in range(3):
        assert await status(mesh, SAME_TENANT) == 200
    return await asked(mesh, "acme-db/hello") == before + 3


async def test_rotating_everything_denies_nobody(warm: Mesh) -> None:
    await warm.keys("rotate", "acme-web", "--now")
    await warm.keys("rotate", "--root", "--now")
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
    await warm.keys("revoke", "acme-web")

    async def refused() -> bool:
        return await presented() == 403

    assert await until(refused) < MOST
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
        assert await until(lambda: _is(warm, SAME_TENANT, 503)) < MOST
        assert await status(warm, SAME_TENANT) == 503
        assert await status(warm, ("globex/hello", "http://hello.acme-db/")) == 503
    finally:
        await warm.start_authz()
    await until(lambda: _is(warm, SAME_TENANT, 200))
