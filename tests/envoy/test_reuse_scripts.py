"""Scripts that fail: nobody gets in, nothing stops, and all is asked about as without them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from authz.lab.harness import envoy
from authz.lab.world.model import Json
from tests.envoy.bench import SIGN, VERIFY, Workbench, free_port, seen_by_app, values
from tests.envoy.keeping import DENIED, TOKEN, Here, edited, kept, running
from tests.support.waiting import eventually

REQUEST: Final = "function envoy_on_request(handle)\n"
RESPONSE: Final = "function envoy_on_response(handle)\n"
FAILS: Final = {
    "nil is indexed": "local nothing = nil; nothing = nothing.field",
    "an error": "error('broken')",
    "an error that is no text": "error({})",
    "an error that is nothing": "error()",
    "no such method": "handle:noSuchMethod()",
    "a wrong argument": "handle:headers():add(nil, nil)",
    "a stack without end": "local function deep() return 1 + deep() end deep()",
    "a text without end": "local long = string.rep(string.rep('x', 2 ^ 20), 2 ^ 20)",
    "a pause": "coroutine.yield()",
}
CANNOT_LOAD: Final = {
    "a syntax error": "function function(",
    "an error while it loads": "error('broken')",
    "what is not there": "require('no.such.module')",
}
BEGINNING: Final = "local UPSTREAM ="
LISTENER: Final = "type.googleapis.com/envoy.config.listener.v3.Listener"


@pytest.mark.parametrize("fails", FAILS)
async def test_a_script_that_fails_lets_nobody_in(workbench: Workbench, fails: str) -> None:
    async with running(workbench, VERIFY, (REQUEST, f"{REQUEST}  {FAILS[fails]}\n")) as here:
        await _each_is_asked_about(here)


@pytest.mark.parametrize("fails", FAILS)
async def test_nor_does_one_that_fails_when_the_answer_is_there(
    workbench: Workbench, fails: str
) -> None:
    async with running(workbench, VERIFY, (RESPONSE, f"{RESPONSE}  {FAILS[fails]}\n")) as here:
        await _each_is_asked_about(here)


async def _each_is_asked_about(here: Here) -> None:
    for answer, status in ((kept(), 200), (DENIED, 403), (kept(), 200)):
        here.answer(answer)
        for _ in range(3):
            before = here.asked
            assert (await here.get()).status_code == status
            assert here.asked == before + 1
    await here.workbench.authz.stop()
    assert (await here.get()).status_code == 503


@pytest.mark.parametrize("fails", FAILS)
async def test_a_script_that_fails_leaves_signing_as_it_was(
    workbench: Workbench, fails: str
) -> None:
    change = (REQUEST, f"{REQUEST}  {FAILS[fails]}\n")
    async with running(workbench, SIGN, change) as here:
        for number in range(3):
            headers = seen_by_app(await here.get((TOKEN, "forged")))
            assert values(headers, TOKEN) == ["v1.ours"]
            assert here.asked == number + 1


@pytest.mark.parametrize("fails", CANNOT_LOAD)
async def test_a_script_that_does_not_load_is_not_taken(
    workbench: Workbench, fails: str, tmp_path: Path
) -> None:
    """The listener that is there goes on, with its memory."""
    async with _followed(workbench, tmp_path) as (here, listeners):
        assert await here.asks()
        assert not await here.asks()
        listeners.change(BEGINNING, f"{CANNOT_LOAD[fails]}\n{BEGINNING}")
        await eventually(listeners.refused, "Envoy refuses it")
        assert not await here.asks()
        here.answer(DENIED)
        assert (await here.get((TOKEN, "another"))).status_code == 403


@pytest.mark.parametrize("fails", ["nothing", *CANNOT_LOAD])
async def test_nor_does_a_proxy_start_with_it(
    workbench: Workbench, fails: str, tmp_path: Path
) -> None:
    config = workbench.config(VERIFY, free_port(), free_port(), "reuse")
    assert edited(config, BEGINNING, f"{CANNOT_LOAD.get(fails, '')}\n{BEGINNING}")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    argv = [str(workbench.executable), "--mode", "validate", "--config-path", str(file)]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60)
    assert (done.returncode == 0) == (fails == "nothing")


async def test_a_listener_that_changed_has_forgotten_all(
    workbench: Workbench, tmp_path: Path
) -> None:
    async with _followed(workbench, tmp_path) as (here, listeners):
        assert await here.asks()
        assert not await here.asks()
        listeners.change(BEGINNING, f"-- the same, otherwise\n{BEGINNING}")
        await eventually(listeners.taken, "Envoy takes it")
        await eventually(here.asks, "the new listener answers")
        assert not await here.asks()


class Listeners:
    """What Envoy follows, in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.made: list[Json] = []
        self.envoy: envoy.Envoy | None = None

    def follow(self, config: Json) -> None:
        """Have them in the file, in place of the bootstrap."""
        self.made = config["static_resources"].pop("listeners")
        self.write()
        source = {"path": str(self.file), "watched_directory": {"path": str(self.file.parent)}}
        config["dynamic_resources"] = {"lds_config": {"path_config_source": source}}

    def change(self, old: str, new: str) -> None:
        assert edited({"static_resources": {"listeners": self.made}}, old, new)
        self.write()

    def write(self) -> None:
        unfinished = self.file.with_suffix(".new")
        resources = [{"@type": LISTENER, **it} for it in self.made]
        unfinished.write_text(json.dumps({"resources": resources}))
        unfinished.replace(self.file)

    async def refused(self) -> bool:
        return await self._count("update_rejected") > 0

    async def taken(self) -> bool:
        return await self._count("update_success") > 1

    async def _count(self, name: str) -> int:
        assert self.envoy is not None
        told = await self.envoy.admin(f"/stats?filter=listener_manager.lds.{name}")
        return int(told.rpartition(":")[2])


@asynccontextmanager
async def _followed(workbench: Workbench, directory: Path) -> AsyncIterator[tuple[Here, Listeners]]:
    folder = directory / "listeners"
    folder.mkdir()
    listeners = Listeners(folder / "lds.json")
    async with running(workbench, VERIFY, config=listeners.follow) as here:
        listeners.envoy = here.proxy.envoy
        yield here, listeners
