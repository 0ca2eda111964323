"""Where things listen on this machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple


class Endpoint(NamedTuple):
    """An IPv4 address and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def address(self) -> dict[str, Any]:
        """As Envoy writes it."""
        return {"socket_address": {"address": self.host, "port_value": self.port}}


def free_ports(hosts: Sequence[str], *, each: int) -> list[Endpoint]:
    """Ports that nobody uses, `each` on every host; all bound at once, so that they differ."""
    with ExitStack() as stack:
        endpoints = []
        for host in hosts:
            for _ in range(each):
                bound = stack.enter_context(socket.socket())
                bound.bind((host, 0))
                endpoints.append(Endpoint(*bound.getsockname()))
        return endpoints
