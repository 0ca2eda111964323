"""A proxy that gives answers again, its scripts changed where a test wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import httpx
from google.protobuf.struct_pb2 import Value

from authz._proto.ext_authz_pb2 import CheckResponse
from authz.lab.world.model import Json
from authz.wire import REUSE, REUSE_EPOCH, REUSED_TOKEN
from tests.envoy.bench import (
    Door,
    Proxy,
    Workbench,
    managers,
)
from tests.envoy.scripted import allowing, always, denying

TOKEN: Final = "x-tenant-token"
LONG: Final = 200
"""Seconds; no test is so slow."""
Change = tuple[str, str]
"""A piece of the script, and what it is to be instead."""
CLOCK: Final[tuple[Change, ...]] = (
    (
        "local UPSTREAM =",
        "local clock = 1000\nlocal os = {time = function() return clock end}\nlocal UPSTREAM =",
    ),
    (
        "function envoy_on_request(handle)\n",
        (
            "function envoy_on_request(handle)\n"
            "  clock = tonumber(handle:headers():get('x-clock') or clock)\n"
        ),
    ),
)
"""Time stands still unless a request says what it is, and no machine is too slow."""


def at(now: int) -> tuple[str, str]:
    """The header of a request at a time; it is 1000 before that."""
    return "x-clock", str(now)


def kept(
    seconds: float = LONG,
    token: str | None = None,
    removes: Sequence[str] = (),
    epoch: Value | None = None,
) -> CheckResponse:
    """An answer that may be given again."""
    response = allowing(sets={TOKEN: token} if token else None, removes=removes)
    fields = response.dynamic_metadata.fields
    fields[REUSE].number_value = seconds
    if token:
        fields[REUSED_TOKEN].string_value = token
    if epoch is not None:
        fields[REUSE_EPOCH].CopyFrom(epoch)
    return response


DENIED: Final = denying("x-tenant-authz-reason", "not-allowed", "no")


class Here:
    """A proxy with the component, and how often it asked."""

    def __init__(self, workbench: Workbench, proxy: Proxy) -> None:
        self.workbench = workbench
        self.proxy = proxy

    @property
    def asked(self) -> int:
        return len(self.workbench.authz.questions)

    def answer(self, response: CheckResponse) -> None:
        self.workbench.authz.answer = always(response)

    async def get(self, *headers: tuple[str, str], **more: Any) -> httpx.Response:
        """A request, of a peer `who` and to a `host` other than usual."""
        who, host = more.pop("who", None), more.pop("host", self.proxy.door.host)
        if who is not None:
            more["cert"] = self.workbench.certificate(who)
        door = replace(self.proxy.door, host=host)
        return await replace(self.proxy, door=door).get(headers, **more)

    async def asks(self, *headers: tuple[str, str], **more: Any) -> bool:
        """Whether a request is asked about."""
        before = self.asked
        await self.get(*headers, **more)
        return self.asked > before


@asynccontextmanager
async def running(
    workbench: Workbench,
    door: Door,
    *changes: Change,
    overlay: str = "reuse",
    config: Callable[[Json], None] = lambda config: None,
) -> AsyncIterator[Here]:
    """A proxy with its scripts changed, whose service may take its time."""

    def change(made: Json) -> None:
        for old, new in (*(CLOCK if overlay == "reuse" else ()), *changes):
            assert edited(made, old, new), old
        patiently(made)
        config(made)

    async with workbench.proxy(door, overlay, change=change) as proxy:
        outbound = isinstance(door.at, str)
        here = Here(workbench, replace(proxy, caller=None) if outbound else proxy)
        here.answer(kept(token="v1.ours" if outbound else None))
        yield here


def edited(config: Json, old: str, new: str) -> int:
    """Change what our scripts say, and tell how many did."""
    count = 0
    for manager in managers(config):
        for it in manager["http_filters"]:
            source = it.get("typed_config", {}).get("default_source_code")
            if it["name"] in {"tenant-authz.reuse", "tenant-authz.pass"} and source:
                count += old in source["inline_string"]
                source["inline_string"] = source["inline_string"].replace(old, new)
    return count


def patiently(config: Json) -> None:
    """The service may take its time."""
    for manager in managers(config):
        for it in manager["http_filters"]:
            if it["name"].startswith("tenant-authz.") and "grpc_service" in it["typed_config"]:
                it["typed_config"]["grpc_service"]["timeout"] = "10s"
