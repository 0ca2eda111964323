"""Load shapes: how many users there are when, and what happens to the stack meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import gevent
from locust import LoadTestShape, User

from authz.errors import AuthzError
from loadtest.swarm.changed import GRANT, INITECH, KEYS
from loadtest.swarm.direct import DirectCheck, NewTenant
from loadtest.swarm.http import ThroughEnvoy
from loadtest.swarm.report import Happened
from loadtest.swarm.session import now, session

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that happens in a run."""

    at: float
    """When: a share of the run."""
    what: str
    act: Callable[[float], object]
    """Does it, told how many seconds the run takes."""


@dataclass(frozen=True)
class Shape:
    """A run. `--users`, `--spawn-rate` and `--run-time` count, as ever."""

    load: Callable[[float], float] = lambda _: 1.0
    """The share of users that is there at a share of the run."""
    events: Sequence[Event] = ()
    more: Sequence[type[User]] = ()
    """Users beside the usual ones."""
    seconds: int = 30
    """How long it takes where nobody says."""
    max_fail_ratio: float = 0.001
    """Requests that may get no answer where nobody says: Envoys wait a quarter of a second only."""


def _rotate_root(at: float) -> Event:
    return Event(at, "all keys are rotated", lambda _: session.tell("rotate"))


def _rotate_namespace(_: float) -> object:
    return session.tell("rotate", namespace=INITECH)


def _revoke(_: float) -> None:
    session.change(KEYS, "revoke", namespace=INITECH)


def _withdraw(_: float) -> None:
    session.change(GRANT, "policy", granted=False)


def _grant(_: float) -> None:
    session.change(GRANT, "policy", granted=True)


def _break_policy(_: float) -> object:
    return session.tell("policy", granted=False, broken=True)


def _replace(_: float) -> object:
    return session.tell("replace")


def _kill_worker(_: float) -> object:
    return session.tell("kill-worker")


def _flood(seconds: float) -> None:
    session.flood(seconds / 2)


def _all_at_once(at: float) -> list[Event]:
    """What happens to keys, policy and replicas, in a tenth of the run."""
    return [
        _rotate_root(at),
        Event(at + 0.02, "initech's keys are revoked", _revoke),
        Event(at + 0.04, "the grant for initech is withdrawn", _withdraw),
        Event(at + 0.06, "a replica is replaced", _replace),
        Event(at + 0.08, "the grant for initech is back", _grant),
        Event(at + 0.1, "initech's keys are rotated", _rotate_namespace),
    ]


SHAPES: Final = {
    "steady": Shape(),
    "ramp": Shape(load=lambda part: min(1.0, (int(part * 10) + 1) / 9)),
    "spike": Shape(load=lambda part: 1.0 if 0.4 <= part < 0.6 else 0.2),
    "soak": Shape(seconds=600, events=[_rotate_root(n / 10) for n in range(1, 10)]),
    "everything": Shape(
        seconds=600,
        events=[each for n in range(6) for each in _all_at_once((n + 0.5) / 6.5)],
    ),
    "churn": Shape(more=[NewTenant]),
    "rotation": Shape(
        events=[
            _rotate_root(0.15),
            Event(0.4, "initech's keys are rotated", _rotate_namespace),
            _rotate_root(0.65),
        ],
        max_fail_ratio=0,
    ),
    "revocation": Shape(
        events=[Event(at, "initech's keys are revoked", _revoke) for at in (0.2, 0.6)]
    ),
    "reload": Shape(
        events=[
            Event(0.2, "the grant for initech is withdrawn", _withdraw),
            Event(0.45, "the policy is broken, which changes nothing", _break_policy),
            Event(0.7, "the grant for initech is back", _grant),
        ]
    ),
    "replacement": Shape(
        events=[Event(0.2, "a replica is replaced", _replace)],
        max_fail_ratio=0,
    ),
    "worker-killed": Shape(
        events=[Event(at, "a worker is killed", _kill_worker) for at in (0.3, 0.6)],
        max_fail_ratio=0.01,  # what it was asked just then
    ),
    "flood": Shape(
        events=[Event(0.25, "a tenant floods a replica for half of the run", _flood)],
        max_fail_ratio=0.005,  # the flood takes a core: on a small machine, answers come too late
    ),
}


class Chosen(LoadTestShape):
    """The shape that `--shape` names, or the form of the web UI."""

    use_common_options = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._shape = Shape()
        self._to_come: list[Event] = []
        self._doing: list[gevent.Greenlet] = []

    def reset_time(self) -> None:
        """A run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        assert self.runner is not None  # noqa: S101 - Locust sets it
        options = self.runner.environment.parsed_options
        assert options is not None  # noqa: S101 - there is a command line
        self._shape = SHAPES[options.shape]
        self._to_come = list(self._shape.events)
        self._doing = []

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        """What should be now; None at the end."""
        assert self.runner is not None  # noqa: S101
        environment = self.runner.environment
        options = environment.parsed_options
        assert options is not None  # noqa: S101
        ran: float = self.get_run_time()  # type: ignore[no-untyped-call]
        seconds = options.run_time or self._shape.seconds
        part = min(ran / seconds, 1.0)
        while self._to_come and self._to_come[0].at <= part:
            self._doing.append(gevent.spawn(_do, self._to_come.pop(0), seconds))
        # What has begun ends before the users do: they would not see it otherwise.
        if part >= 1 and all(each.ready() for each in self._doing):
            return None
        classes = [ThroughEnvoy, DirectCheck, *self._shape.more]
        users = [class_ for class_ in environment.user_classes if class_ in classes]
        return max(1, round(options.num_users * self._shape.load(part))), options.spawn_rate, users


def _do(event: Event, seconds: float) -> None:
    _log.info("now: %s", event.what)
    began = now()
    try:
        event.act(seconds)
    except AuthzError as error:
        session.problems.append(f"{event.what}: {error}")
    session.happened.append(Happened(event.what, began, now()))
    _log.info("done: %s", event.what)
