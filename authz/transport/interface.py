"""What every transport is given and offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from authz.domain.facts import Asked
from authz.domain.identity import SpiffeId
from authz.transport.tls import TlsMaterial

AUTHORIZATION: Final = "envoy.service.auth.v3.Authorization"
HEALTH: Final = "grpc.health.v1.Health"


class Service(Protocol):
    """Answers Checks. Neither method raises."""

    def asked(self, caller: SpiffeId | None, metadata: Sequence[tuple[str, str]]) -> Asked:
        """Read what is the same for all Checks of this caller with these metadata."""
        ...

    def check(self, request: bytes, asked: Asked) -> bytes | None:
        """A CheckResponse for a CheckRequest; `None`, to be answered UNAVAILABLE: cannot decide."""
        ...


UNDECIDED: Final = "cannot decide now"
"""The text that goes with UNAVAILABLE."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may use. Sizes in bytes, times in seconds. Each is a setting."""

    streams: int = 1000
    """Checks at once on one connection."""
    message_bytes: int = 65_536
    connection_age: int = 3600
    connections: int = 20_000
    connections_per_namespace: int = 2000
    handshakes: int = 1024
    """Connections that have not finished their TLS handshake."""
    handshake_seconds: int = 10
    idle_seconds: int = 900
    request_seconds: int = 10
    """For a request to arrive as a whole."""
    checks_per_second: int = 20_000
    """For each namespace; 0: no limit."""
    buffered_bytes: int = 134_217_728
    """Over all connections: requests that have not all come, answers that are not taken."""


class Listener(Protocol):
    """Accepts connections and answers Checks."""

    async def start(self, *, reuse_port: bool = False) -> int:
        """Bind and accept; the bound port, which other processes may share with `reuse_port`.

        Raises:
            OSError: the address cannot be bound.
        """
        ...

    def use(self, material: TlsMaterial) -> None:
        """Take another certificate, key and roots for all handshakes from now on."""
        ...

    async def stop(self, grace: float) -> None:
        """Ask clients to go, let running Checks finish for `grace` seconds, then close."""
        ...
