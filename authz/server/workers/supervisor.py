"""The parent of the workers: keeps their places filled, speaks for all of them, ends them in order.

The kernel spreads connections over the workers' sockets, which share one port (SO_REUSEPORT). When
a worker dies, its socket goes with it, and new connections go to the others.
"""

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
import uvloop

from authz.backoff import Backoff
from authz.config import Endpoint, Settings
from authz.errors import ProblemsError
from authz.observe import Metrics, SidePort, json_log
from authz.server.process import attend, bindable
from authz.server.workers.protocol import Greeting, Word
from authz.server.workers.worker import Worker

_FATAL: Final = frozenset({2, 3})
"""Exit codes for what another start does not heal. The texts are on standard error already."""
_TURN: Final = 1.0  # seconds between two nudges
_ANSWER: Final = 0.5  # seconds for workers to tell how they are, before others are told without
_SPARE: Final = 10.0  # seconds, over what a drain should take, until workers are killed
_HURRY: Final = 5.0


def supervise(settings: Settings, command: Sequence[str]) -> int:
    """Run workers until SIGTERM or SIGINT, then drain; the exit code. `command` starts a worker.

    Raises:
        ProblemsError: an address cannot be bound.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_live(settings, command))


async def _live(settings: Settings, command: Sequence[str]) -> int:
    log = json_log()
    supervisor = Supervisor(
        settings,
        command,
        log=log,
        clock=time.time,  # noqa: TID251 - the one place where time enters this process
        monotonic=time.monotonic,
    )
    attend(supervisor.stop, log)
    return await supervisor.run()


class Supervisor:
    """`run` until `stop`. `clock` is in seconds since the epoch, `monotonic` in seconds."""

    def __init__(
        self,
        settings: Settings,
        command: Sequence[str],
        *,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._command = command
        self._log = log
        self._monotonic = monotonic
        self._metrics = Metrics(clock)
        self._metrics.processes = self._processes
        self._workers: list[Worker] = []
        self._first_started = asyncio.Event()
        self._all_started = False
        self._since: dict[int, float] = {}  # when a worker began to answer
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._side_port: SidePort

    async def run(self) -> int:
        """Run workers until the end; the exit code."""
        settings, address = self._settings, self._settings.listen
        assert isinstance(address, Endpoint)  # noqa: S101 - nothing else goes with workers
        host, _ = to_bind = bindable(address)
        with _placeholder(to_bind, address) as place:
            port: int = place.getsockname()[1]
            self._side_port = SidePort(
                bindable(settings.http_listen),
                metrics=self._metrics_text,
                truths=self._truths,
                reasons=self._reasons,
            )
            told = settings.model_copy(update={"listen": Endpoint(host, port)})
            self._workers = [
                Worker(Greeting(number, told), self._command, self._heard)
                for number in range(1, settings.workers + 1)
            ]
            self._port = port
            self._side_port.start()
            watching = asyncio.create_task(self._watch(), name="watch")
            code = await self._keep_all()
            watching.cancel()
            await asyncio.to_thread(self._side_port.stop)
        self._log.info("all workers stopped")
        return code

    def stop(self) -> None:
        """Be unready and have all drain; called a second time, hurry."""
        if self._stop.is_set():
            self._end_all(Word.HURRY, _HURRY)
        else:
            drain, grace = self._settings.drain_seconds, self._settings.grace_seconds
            self._log.info("draining all workers", seconds=drain)
            self._end_all(Word.STOP, drain + grace + _SPARE)

    def _end_all(self, word: Word, patience: float) -> None:
        self._stop.set()
        for worker in self._workers:
            worker.say(word)
            self._loop.call_later(patience, worker.kill)

    # -- processes -----------------------------------------------------------------------------

    async def _keep_all(self) -> int:
        """Keep all places filled until there is nothing left to do; the exit code."""
        code = 0
        keeping = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        for ended in asyncio.as_completed(keeping):
            fatal = await ended
            if fatal and not code:
                code = fatal
                self._end_all(Word.HURRY, _HURRY)
        return code

    async def _keep(self, worker: Worker) -> int:
        """Keep a place filled until the end; 0, or the exit code that no other start would heal."""
        if worker.number > 1:  # what is wrong with all of them is told by the first one, once
            await _first_of(self._first_started, self._stop)
        backoff = Backoff(random.uniform)
        while not self._stop.is_set():
            code = await self._run(worker)
            if self._stop.is_set():
                if code:
                    self._log.error("worker did not drain", worker=worker.number, code=code)
                break
            if code in _FATAL and not self._all_started:
                return code
            now = self._monotonic()
            wait = backoff.after(now - self._since.pop(worker.number, now))
            self._log.error(
                "worker ended, another takes its place",
                worker=worker.number,
                code=code,
                seconds=round(wait, 3),
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait)
                break
            self._metrics.restarted()
        return 0

    async def _run(self, worker: Worker) -> int | None:
        try:
            return await worker.run()
        except OSError as error:
            self._log.error("worker cannot be started", worker=worker.number, problem=str(error))
            return None
        finally:
            self._metrics.forget(worker.number)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TURN)
            for worker in self._workers:
                if not worker.nudge():
                    self._log.error("worker does not answer, it is killed", worker=worker.number)

    # -- what they tell ------------------------------------------------------------------------

    def _heard(self, worker: Worker, changes: Mapping[str, Any]) -> None:
        self._metrics.add(worker.number, changes)
        if not worker.started:  # what is so in it does not matter yet
            self._metrics.forget(worker.number)
        elif worker.number not in self._since:
            self._since[worker.number] = self._monotonic()
            self._log.info("worker started", worker=worker.number, pid=worker.pid)
            self._first_started.set()
        if not self._all_started and all(worker.started for worker in self._workers):
            self._all_started = True
            self._log.info(
                "listening",
                port=self._port,
                http_port=self._side_port.port,
                workers=len(self._workers),
                identity=self._settings.identity.value,
                policy=self._settings.policy_origin,
            )

    def _processes(self) -> Mapping[int, int]:
        """Ours is number 0."""
        workers = {worker.number: worker.pid for worker in self._workers}
        return {0: os.getpid(), **{number: pid for number, pid in workers.items() if pid}}

    def _metrics_text(self) -> bytes:
        self._ask_all()
        return self._metrics.text()

    def _truths(self) -> Mapping[str, bool]:
        """What must hold to be ready: all that must hold in each worker, in all of them."""
        self._ask_all()
        truths = {"workers": all(worker.answers for worker in self._workers)}
        for worker in self._workers:
            for name, holds in worker.truths.items():
                truths[name] = truths.get(name, True) and holds
        truths["not stopping"] = not self._stop.is_set() and truths.get("not stopping", True)
        return truths

    def _reasons(self) -> Mapping[str, str]:
        """Why some do not hold, by the last worker that says so; they reported just now."""
        return {what: why for worker in self._workers for what, why in worker.reasons.items()}

    def _ask_all(self) -> None:
        """Have all workers report, but do not wait long for any. Called in another thread."""

        async def ask() -> None:
            await asyncio.wait([worker.ask() for worker in self._workers], timeout=_ANSWER)

        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(ask(), self._loop).result(_ANSWER * 2)


async def _first_of(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def _placeholder(address: Endpoint, setting: Endpoint) -> socket.socket:
    """A socket that keeps the port for the workers. It never listens.

    Raises:
        ProblemsError: the address cannot be bound.
    """
    try:
        # Nobody is asked whether to share: first see that no other server has the port.
        _bound(address, reuse_port=False).close()
        return _bound(address, reuse_port=True)
    except OSError as error:
        problem = f"listen: cannot listen on {setting}: {error.strerror}"
        raise ProblemsError([problem]) from None


def _bound(address: Endpoint, *, reuse_port: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        if family == socket.AF_INET6:
            only = address.host != "::"  # which takes IPv4, too
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only))
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
