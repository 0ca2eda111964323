"""gRPC health: one state, that of the whole server. It starts as NOT_SERVING.

Source: grpc.health.v1, and the gRPC health checking protocol.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from authz._proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from authz.transport.interface import AUTHORIZATION

_KNOWN: Final = frozenset({"", AUTHORIZATION})
_SERVING, _NOT_SERVING, _UNKNOWN = (
    HealthCheckResponse(status=status).SerializeToString()
    for status in (
        HealthCheckResponse.SERVING,
        HealthCheckResponse.NOT_SERVING,
        HealthCheckResponse.SERVICE_UNKNOWN,
    )
)


class Health:
    """The health of the server, and who waits for it to change."""

    def __init__(self) -> None:
        self._serving = False
        self._ended = False
        self._changed = asyncio.Event()

    @property
    def serving(self) -> bool:
        """Whether Envoys should ask here."""
        return self._serving

    @serving.setter
    def serving(self, serving: bool) -> None:
        if serving != self._serving:
            self._serving = serving
            self._tell()

    def end(self) -> None:
        """End all watches: whoever watches would hold up a server that stops."""
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def check(self, request: bytes) -> bytes | None:
        """Answer `Check`; `None` where the service is unknown, which is NOT_FOUND.

        Raises:
            google.protobuf.message.DecodeError: it is no HealthCheckRequest.
        """
        if HealthCheckRequest.FromString(request).service not in _KNOWN:
            return None
        return _SERVING if self._serving else _NOT_SERVING

    async def watch(self, request: bytes) -> AsyncIterator[bytes]:
        """Answer `Watch`: the state now, then each change, until the end.

        Raises:
            google.protobuf.message.DecodeError: it is no HealthCheckRequest.
        """
        # An unknown service may be known one day, so this watch goes on, too.
        known = HealthCheckRequest.FromString(request).service in _KNOWN
        told = b""
        while not self._ended:
            changed = self._changed
            state = _UNKNOWN if not known else _SERVING if self._serving else _NOT_SERVING
            if state != told:
                yield state
                told = state
            await changed.wait()
