"""A tenant's pod: `app` and the `queue_proxy` in front of it, in one process."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from authz.lab.box.knative import app, queue_proxy
from authz.lab.box.knative.command import main, parser


@asynccontextmanager
async def run(options: argparse.Namespace) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve as long as the block lasts."""
    options.app = f"{options.app_address}:{options.port}"
    async with app.run(options), queue_proxy.run(options) as drain:
        yield drain


if __name__ == "__main__":
    arguments = parser("pod", f"{__doc__}\n{app.__doc__}\n{queue_proxy.__doc__}")
    app.add_options(arguments)
    queue_proxy.add_options(arguments)
    main(run, arguments.parse_args())
