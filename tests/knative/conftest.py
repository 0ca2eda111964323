from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from authz.lab.box.knative.net import Handler, serve
from tests.knative.support import Stand


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    """An activator, a queue-proxy and an app, over sockets; the revision is at zero."""
    async with AsyncExitStack() as stack:

        async def listen(handler: Handler) -> str:
            return f"127.0.0.1:{await stack.enter_async_context(serve(handler, host='127.0.0.1'))}"

        yield await Stand.start(listen, stack)
