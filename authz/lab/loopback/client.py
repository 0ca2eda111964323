"""How the demo calls: as an app behind its sidecar, from outside, or past all sidecars."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Final, TypeAlias

import httpx

from authz.lab.harness.ports import Endpoint
from authz.testing import LEAKED, Outcome
from authz.wire import REASON_HEADER, TOKEN_HEADER

Headers: TypeAlias = Sequence[tuple[str, str]]

_SECONDS: Final = 10.0


async def call(
    to: Endpoint, host: str, headers: Headers = (), tls: ssl.SSLContext | None = None
) -> Outcome:
    """Send a request for `host` to the address `to`."""
    scheme = "http" if tls is None else "https"
    # Sidecars do not mind which; a context without certificates spares loading the system's.
    context = tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with httpx.AsyncClient(verify=context, trust_env=False, timeout=_SECONDS) as client:
        try:
            answer = await client.get(f"{scheme}://{to}/hello", headers=[("host", host), *headers])
        except (httpx.TransportError, OSError):  # a late TLS alert comes as the latter
            return Outcome.of(0)
    if not answer.is_success:
        return Outcome.of(answer.status_code, answer.headers.get(REASON_HEADER, ""))
    seen = answer.json()
    leaked = any(name == TOKEN_HEADER for name, _ in seen["headers"])
    return Outcome.of(answer.status_code, seen["app"], *[LEAKED] * leaked)
