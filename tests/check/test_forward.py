"""Where the API server does not reach a server's side port, its port-forward does, or none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import pytest_asyncio

from authz.check import Level, Line, Site, examine
from authz.kube import ApiServer, KubeError, Resource
from tests.check.rows import found
from tests.check.world import HOME, METRICS, SIDE_PORT, Fake, wanted, world
from tests.kube_double import ApiDouble

OF_SERVERS = ("certificate", "keys", "policy-age", "unverified")
GOOD = b"HTTP/1.1 200 OK\r\n\r\n" + METRICS.encode()


class Apart(Fake):
    """A cluster whose API server reaches no pod by `pods/proxy`, and perhaps by port-forward."""

    def __init__(self, api: ApiServer) -> None:
        super().__init__(world())
        self._api = api
        self.asked: list[str] = []

    async def page(self, pod: Resource, port: int, path: str) -> bytes:
        self.asked.append(path)
        raise KubeError("could not get pods/proxy (503)", status=503)

    def upgraded(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Any]:
        return self._api.upgraded(*args, **kwargs)


@pytest_asyncio.fixture
async def apart(api: ApiDouble) -> AsyncIterator[Apart]:
    api.put("pods", {"metadata": {"namespace": HOME, "name": "authz-1"}})
    server = ApiServer()
    yield Apart(server)
    await server.close()


async def lines(apart: Apart) -> list[Line]:
    return await examine(Site(apart, wanted(), before=False))


async def test_port_forward_reaches_the_side_port(apart: Apart, api: ApiDouble) -> None:
    api.ports[HOME, "authz-1", SIDE_PORT] = GOOD
    said = await lines(apart)
    assert {found(said, server).answer.level for server in OF_SERVERS} == {Level.OK}


def redirect(api: ApiDouble) -> bytes:
    """To what answers well: whoever follows it takes that for our own pod's word."""
    api.ports[HOME, "another", SIDE_PORT] = GOOD
    return b"HTTP/1.1 302 Found\r\nlocation: http://another/metrics\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [(None, "error forwarding port"), (b"nothing", "is no HTTP"), (redirect, "answers 302")],
    ids=["refused", "no HTTP", "redirect"],
)
async def test_what_is_not_read_is_asked_once_and_never_ok(
    apart: Apart, api: ApiDouble, answer: Any, told: str
) -> None:
    if answer is not None:
        api.ports[HOME, "authz-1", SIDE_PORT] = answer(api) if callable(answer) else answer
    said = await lines(apart)
    for name in OF_SERVERS:
        level, what, _ = found(said, name).answer
        assert (level, "pods/proxy (503); by port-forward: " in what) == (Level.UNREAD, True)
        assert told in what
    assert apart.asked == ["metrics"]


async def test_the_right_that_is_missing_is_named(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise KubeError("could not get pods/portforward (403)", status=403)

    monkeypatch.setattr(apart, "upgraded", refused)
    said = await lines(apart)
    assert all("the right to read it" in found(said, server).answer.remedy for server in OF_SERVERS)
