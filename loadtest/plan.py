"""What a run does: a value that goes to the client processes as one line of JSON."""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass, replace
from typing import Final, Self

from authz.config import IdentitySource
from authz.errors import AuthzError

MAX_SECONDS: Final = 600.0  # tokens of a warm run are made once, and good for 720
MAX_CALLS: Final = 50_000_000
FIRST_SIGHT_CALLS: Final = 20_000  # they are made before the run, about 2 KiB each
MAX_NAMESPACES: Final = 10_000
MAX_CONNECTIONS: Final = 5_000


class BadPlan(AuthzError):
    """A run that cannot be."""


class Ask(enum.StrEnum):
    """What the clients ask."""

    SIGN = "sign"
    VERIFY = "verify"
    BOTH = "both"
    """In turn."""
    MIXED = "mixed"
    """Both, and a stranger's token, which must be denied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A run. Numbers are for all client processes together."""

    ask: Ask = Ask.VERIFY
    identity: IdentitySource = IdentitySource.XFCC
    namespaces: int = 1
    """That ask. Each is of a tenant of ten."""
    callers: int = 0
    """Namespaces in turn on each connection; 0: as few as it takes."""
    destinations: int = 1
    """That each of them signs for, in turn."""
    connections: int = 1
    in_flight: int = 32
    """On each connection."""
    rate: float = 0
    """Calls per second, begun on time whatever the answers do; 0: each answer begins the next."""
    seconds: float = 5
    warmup: float = 1
    """Seconds; every connection makes each of its calls at least once."""
    max_calls: int = MAX_CALLS
    first_sight: bool = False
    """Every call is new: a pair that was never signed for, a token that was never seen."""
    traceparent: bool = False
    """A header that is another one on every call, as tracing sends it."""
    processes: int = 1

    def __post_init__(self) -> None:
        def check(name: str, value: float, least: float, most: float) -> None:
            if not least <= value <= most:
                raise BadPlan(f"{name}: {value:g} is not between {least:g} and {most:g}")

        check("namespaces", self.namespaces, 1, MAX_NAMESPACES)
        check("callers", self.callers, 0, MAX_NAMESPACES)
        check("destinations", self.destinations, 1, MAX_NAMESPACES)
        check("connections", self.connections, 1, MAX_CONNECTIONS)
        check("in-flight", self.in_flight, 1, 1000)
        check("rate", self.rate, 0, 1_000_000)
        check("seconds", self.seconds, 0, MAX_SECONDS)
        check("warmup", self.warmup, 0, MAX_SECONDS)
        check("max-calls", self.max_calls, 1, MAX_CALLS)
        check("processes", self.processes, 1, 64)
        if self.processes > self.connections:
            raise BadPlan("processes: each needs a connection of its own, so give as many")
        if self.identity is IdentitySource.MTLS and self.callers > 1:
            raise BadPlan("callers: over mTLS a connection has one identity")
        if self.identity is IdentitySource.MTLS and self.namespaces > self.connections:
            raise BadPlan("namespaces: over mTLS each needs a connection, so give as many")

    @property
    def callers_each(self) -> int:
        """Namespaces in turn on each connection."""
        return self.callers or -(-self.namespaces // self.connections)

    def callers_of(self, connection: int) -> list[int]:
        """The namespaces, by number, that a connection carries."""
        first = connection * self.callers_each
        return [(first + n) % self.namespaces for n in range(self.callers_each)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one client process does of a plan, and with what."""

    plan: Plan
    number: int
    host: str = "127.0.0.1"
    port: int
    keys: str
    """The directory with the server's keys, see `KeyFiles`."""
    certificates: str
    """The directory with the callers' certificates, for mTLS."""

    @property
    def connections(self) -> range:
        """The connections that are this process's, by number."""
        return range(self.number, self.plan.connections, self.plan.processes)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Undo `to_json`."""
        values = json.loads(text)
        plan = Plan(**values.pop("plan"))
        plan = replace(plan, ask=Ask(plan.ask), identity=IdentitySource(plan.identity))
        return cls(plan=plan, **values)
