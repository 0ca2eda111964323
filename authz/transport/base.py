"""What every transport is given and offers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from authz.identity import SpiffeId
from authz.transport.tls import TlsMaterial

AUTHORIZATION: Final = "envoy.service.auth.v3.Authorization"
HEALTH: Final = "grpc.health.v1.Health"

Check = Callable[[bytes, SpiffeId | None, Sequence[tuple[str, str]]], bytes]
"""CheckRequest, who asks (`None`: nobody that is proven), metadata -> CheckResponse."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may use. Sizes in bytes, times in seconds."""

    streams: int
    message_bytes: int
    connection_age: int


class Listener(Protocol):
    """Accepts connections and answers Checks."""

    async def start(self) -> int:
        """Bind and accept; the bound port.

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
