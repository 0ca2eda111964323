"""The key store in a Secret, as its tests open and watch it."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from authz.keystore import SealedStore
from authz.keystore.kubernetes import KEY
from tests.keystore.support import (
    RING,
    Watcher,
    watching,
)
from tests.kube_double import (
    Object,
)

HOME = "authz-system"
Opened = Callable[..., SealedStore]


class Sleeps:
    """Sleeps a moment in place of every pause, and remembers how long it should have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0.005)


def secret(record: bytes | None = None, **more: Any) -> Object:
    data = {} if record is None else {KEY: base64.b64encode(record).decode()}
    return {"metadata": {"name": "keyring", "namespace": HOME}, "data": data, **more}


@asynccontextmanager
async def watched(another: Opened, **pace: Any) -> AsyncIterator[Watcher]:
    """A keyring that was made, and a watch that has seen it."""
    await another().compare_and_swap(None, RING)
    async with watching(another(**pace)) as watcher:
        await watcher.version(1)
        yield watcher
