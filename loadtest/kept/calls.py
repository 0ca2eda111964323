"""Calls, and what came of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import httpx

from authz.domain.names import Namespace, parse_namespace
from authz.lab.harness.certs import Certificate
from authz.lab.harness.ports import Endpoint
from authz.wire import TOKEN_HEADER
from loadtest.compare import sidecars
from loadtest.compare.rounds import WrongOutcome
from loadtest.targets import Row


class Measured(NamedTuple):
    """A row of the table, and what it says as numbers."""

    row: Row
    values: Sequence[float]


def namespace(number: int) -> Namespace:
    """One that calls; all are of the pod's tenant."""
    return parse_namespace(f"peer-{number}")


class Get:
    """Calls on one connection."""

    def __init__(self, session: httpx.AsyncClient, url: str) -> None:
        self._session = session
        self._url = url

    async def __call__(
        self, host: str = sidecars.HOST, *, token: str = "", may: int | None = 200
    ) -> int:
        """Make a call. What does not end as it should is a wrong outcome; `None`: it may."""
        headers = {"host": host} | ({TOKEN_HEADER: token} if token else {})
        status = (await self._session.get(self._url, headers=headers)).status_code
        if may not in {None, status}:
            raise WrongOutcome(f"{self._url}: HTTP status {status} in place of {may}")
        return status


@asynccontextmanager
async def calling(endpoint: Endpoint, certificate: Certificate | None = None) -> AsyncIterator[Get]:
    """A connection to a proxy, in plaintext or as a sidecar with a certificate."""
    verify = certificate.sidecar_context() if certificate else False
    scheme = "https" if certificate else "http"
    async with httpx.AsyncClient(trust_env=False, verify=verify, timeout=30) as session:
        yield Get(session, f"{scheme}://{endpoint}/")
