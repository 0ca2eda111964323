"""What each of Locust's processes knows of the run: the stack, and what is being changed on it.

One process, the master or the only one, starts the stack and makes the changes. It tells the others
beforehand, so that all expect the same.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import gevent
import locust
from locust.env import Environment
from locust.runners import MasterRunner

from authz.testing import Outcome
from loadtest.swarm.control import PATIENCE, StackFailed, tell
from loadtest.swarm.expect import WINDOW, Change, Timeline, Worth, judge
from loadtest.swarm.report import Happened

_ROOT: Final = Path(__file__).parent.parent.parent
_LEAD: Final = 0.3  # seconds in which a message reaches all of Locust's processes
_STOP_SECONDS: Final = 20.0
_log: Final = logging.getLogger(__name__)


class Session:
    """One for each process."""

    def __init__(self) -> None:
        self.path = ""
        """The stack's control socket."""
        self.site: dict[str, Any] = {}
        self.timeline = Timeline()
        self.problems: list[str] = []
        """What could not be done on the stack in this run."""
        self.began = 0.0
        """When this run did, in seconds since the epoch."""
        self.happened: list[Happened] = []
        """What its shape did."""
        self.facts: dict[str, Any] = {}
        """What the stack said of itself when the run began."""
        self.window = WINDOW
        """Seconds after a change within which an outcome may be that of before."""
        self._environment: Environment | None = None
        self._child: subprocess.Popen[str] | None = None

    # -- the stack

    def start(self, environment: Environment, flags: list[str], path: str) -> None:
        """Use the stack at `path`, or start one.

        Raises:
            StackFailed: there is none, or it did not come up.
        """
        self._environment = environment
        if not path:
            _log.info("starting the stack: eight Envoys, two replicas of the service")
            kept = [os.environ[name] for name in ("PYTHONPATH",) if name in os.environ]
            self._child = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "loadtest.swarm.stack", *flags],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for Locust, which ends it then
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *kept])},
            )
            assert self._child.stdout is not None  # noqa: S101 - it is a pipe
            path = self._child.stdout.readline().strip()
            if not path:
                raise StackFailed(f"the stack did not come up: exit code {self._child.wait()}")
        self.attach(path)

    def attach(self, path: str) -> None:
        """Use the stack at `path`.

        Raises:
            StackFailed: there is none.
        """
        if path != self.path:
            self.path, self.site = path, tell(path, "site")

    def end(self) -> None:
        """End the stack, if it is ours."""
        child, self._child = self._child, None
        if child is not None:
            assert child.stdin is not None  # noqa: S101 - it is a pipe
            child.stdin.close()
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()

    def tell(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Have the stack do something.

        Raises:
            StackFailed: it could not.
        """
        return tell(self.path, do, **arguments)

    # -- what is changed

    def begin(self) -> None:
        """Forget the last run and what it has changed."""
        self.problems, self.happened, self.began = [], [], now()
        self.tell("policy", granted=True)
        self.announce([])
        self.facts = self.tell("facts")

    def announce(self, changes: list[Change]) -> None:
        """Tell all of Locust's processes what is changed when."""
        self.timeline.replace(changes)
        runner = self._environment.runner if self._environment else None
        if isinstance(runner, MasterRunner):
            runner.send_message("stack", self.message())

    def message(self) -> dict[str, Any]:
        """What a worker of Locust has to know."""
        return {"path": self.path, "changes": [list(change) for change in self.timeline.changes]}

    def heard(self, message: dict[str, Any]) -> None:
        """Take what the master has told."""
        self.attach(message["path"])
        self.timeline.replace(message["changes"])

    def flood(self, seconds: float) -> None:
        """Have a tenant flood a replica.

        Raises:
            StackFailed: it could not, or got wrong answers.
        """
        came = self.tell("flood", seconds=seconds, patience=seconds + PATIENCE)
        _log.info("the flood: %.0f answers a second", came["right"] / seconds)
        if came["problems"]:
            raise StackFailed(f"wrong outcomes: {came['problems']}")

    def change(self, subject: str, do: str, **arguments: Any) -> None:
        """Make a change that outcomes hang on, and say when it begins and when all know of it."""
        before = list(self.timeline.changes)
        opens = now() + _LEAD
        self.announce([*before, Change(subject, opens)])
        gevent.sleep(_LEAD)
        closes = self.tell(do, **arguments)["at"] + self.window
        self.announce([*before, Change(subject, opens, closes)])


session: Final = Session()


def now() -> float:
    """Seconds since the epoch, the same in all processes."""
    return time.time()  # noqa: TID251 - processes have no other clock in common


def record(
    user: locust.User, kind: str, name: str, begun: float, *, seen: Outcome, expected: str | None
) -> None:
    """Count a request. Wrong outcomes get a row of their own, and so do those in a window.

    Args:
        user: who made it.
        kind: the way in: HTTP or CHECK.
        name: the row.
        begun: when, in seconds since the epoch.
        seen: what came of it.
        expected: see `judge`.
    """
    worth, why = judge(seen, expected)
    if worth is Worth.WRONG:
        kind = "WRONG"
        _log.error("wrong outcome: %s: %s", name, why)
    elif worth is Worth.EITHER:
        kind = "WINDOW"
    user.environment.events.request.fire(
        request_type=kind,
        name=name,
        response_time=(now() - begun) * 1000,
        response_length=0,
        exception=None if worth in {Worth.RIGHT, Worth.EITHER} else Unexpected(why),
        context={},
    )


class Unexpected(Exception):
    """What was the matter with a request, as Locust lists it."""

    def __repr__(self) -> str:
        return str(self)
