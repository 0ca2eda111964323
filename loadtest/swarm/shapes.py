"""Load shapes: how many users there are when, and what happens to the stack meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

import gevent
from locust import LoadTestShape, User

from authz.errors import AuthzError
from loadtest.swarm.changed import GRANT, INITECH, KEYS
from loadtest.swarm.direct import DirectCheck, NewTenant
from loadtest.swarm.http import ThroughEnvoy
from loadtest.swarm.session import session

_SECONDS: Final = 30
_log: Final = logging.getLogger(__name__)

Event = tuple[float, str, Callable[[float], None]]
"""When, as a share of the run; what is said of it; what is done, told the run's seconds."""


def _rotate_root(_: float) -> None:
    session.tell("rotate")


def _rotate_namespace(_: float) -> None:
    session.tell("rotate", namespace=INITECH)


def _revoke(_: float) -> None:
    session.change(KEYS, "revoke", namespace=INITECH)


def _withdraw(_: float) -> None:
    session.change(GRANT, "policy", granted=False)


def _grant(_: float) -> None:
    session.change(GRANT, "policy", granted=True)


def _break_policy(_: float) -> None:
    session.tell("policy", granted=False, broken=True)


def _replace(_: float) -> None:
    session.tell("replace")


def _kill_worker(_: float) -> None:
    session.tell("kill-worker")


def _flood(seconds: float) -> None:
    session.flood(seconds / 2)


class Swarm(LoadTestShape):
    """A constant number of users: `--users`, `--spawn-rate` and `--run-time` count, as ever."""

    abstract = True
    use_common_options = True
    name: ClassVar[str]
    seconds: ClassVar[int] = _SECONDS
    """How long it takes where nobody says."""
    max_fail_ratio: ClassVar[float] = 0.0
    """Requests that may get no answer where nobody says."""
    more: ClassVar[Sequence[type[User]]] = ()
    """Users beside the usual ones."""
    events: ClassVar[Sequence[Event]] = ()

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._to_come = list(self.events)
        self._doing: list[gevent.Greenlet] = []

    def reset_time(self) -> None:
        """A run begins."""
        super().reset_time()  # type: ignore[no-untyped-call]
        self._to_come = list(self.events)
        self._doing = []

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        """What should be now; None at the end."""
        assert self.runner is not None  # noqa: S101 - Locust sets it
        environment = self.runner.environment
        options = environment.parsed_options
        assert options is not None  # noqa: S101 - there is a command line
        ran: float = self.get_run_time()  # type: ignore[no-untyped-call]
        seconds = options.run_time or self.seconds
        part = ran / seconds
        if part >= 1:
            # What has begun ends before the users do: they would not see it otherwise.
            if all(each.ready() for each in self._doing):
                return None
            part = 0.999
        while self._to_come and self._to_come[0][0] <= part:
            _, said, act = self._to_come.pop(0)
            self._doing.append(gevent.spawn(_do, said, act, seconds))
        classes = [ThroughEnvoy, DirectCheck, *self.more]
        users = [it for it in environment.user_classes if it in classes]
        return max(1, round(options.num_users * self.load(part))), options.spawn_rate, users

    def load(self, part: float) -> float:
        """The share of users that should be there."""
        del part
        return 1.0


def _do(said: str, act: Callable[[float], None], seconds: float) -> None:
    _log.info("now: %s", said)
    try:
        act(seconds)
    except AuthzError as error:
        session.problems.append(f"{said}: {error}")
    _log.info("done: %s", said)


class Steady(Swarm):
    """The same load all the time."""

    name = "steady"


class Ramp(Swarm):
    """From few users to all."""

    name = "ramp"

    def load(self, part: float) -> float:
        """Ten steps."""
        return min(1.0, (int(part * 10) + 1) / 9)


class Spike(Swarm):
    """A fifth of the users, and for a fifth of the time all of them at once."""

    name = "spike"

    def load(self, part: float) -> float:
        """See above."""
        return 1.0 if 0.4 <= part < 0.6 else 0.2


class Soak(Swarm):
    """Steady for long, with keys that rotate; its summary tells whether memory grows."""

    name = "soak"
    seconds = 600
    events = tuple((n / 10, "all keys are rotated", _rotate_root) for n in range(1, 10))


class Churn(Swarm):
    """Namespaces that nobody has seen come and go all the time."""

    name = "churn"
    more = (NewTenant,)


class Rotation(Swarm):
    """All keys are rotated, then one namespace's, then all again. Nobody may notice."""

    name = "rotation"
    events = (
        (0.15, "all keys are rotated", _rotate_root),
        (0.4, "the keys of initech are rotated", _rotate_namespace),
        (0.65, "all keys are rotated", _rotate_root),
    )


class Revocation(Swarm):
    """initech's keys are revoked: what it signed before is refused, what it signs now is good."""

    name = "revocation"
    events = tuple((at, "the keys of initech are revoked", _revoke) for at in (0.2, 0.6))


class Reload(Swarm):
    """A grant is withdrawn, a broken policy changes nothing, the grant comes back."""

    name = "reload"
    events = (
        (0.2, "the grant for initech is withdrawn", _withdraw),
        (0.45, "the policy is broken", _break_policy),
        (0.7, "the grant for initech is back", _grant),
    )


class Replacement(Swarm):
    """One of two replicas is replaced, as a Deployment does it. Nobody may notice."""

    name = "replacement"
    events = ((0.2, "a replica is replaced", _replace),)


class WorkerKilled(Swarm):
    """A worker process of a replica is killed; what it was asked just then gets no answer."""

    name = "worker-killed"
    max_fail_ratio = 0.01
    events = ((0.3, "a worker is killed", _kill_worker), (0.6, "another is", _kill_worker))


class Flood(Swarm):
    """One tenant asks a replica as fast as it can; the others are to be served as before."""

    name = "flood"
    max_fail_ratio = 0.005  # the flood takes a core: on a small machine, answers come too late
    events = ((0.25, "a tenant floods a replica for half of the run", _flood),)


SHAPES: Final = {
    shape.name: shape
    for shape in (
        Steady, Ramp, Spike, Soak, Churn, Rotation, Revocation, Reload, Replacement, WorkerKilled,
        Flood,
    )
}  # fmt: skip
