"""h2spec, the conformance test for HTTP/2, against our listener, where it is installed.

`go install github.com/summerwind/h2spec/cmd/h2spec@latest`
"""

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from authz.domain.facts import Asked
from authz.http2 import connection, hpack
from authz.http2.events import Head
from authz.http2.request_head import Field, head_of
from tests.http2.wire import CHECK
from tests.transport.support import listening

H2SPEC = shutil.which("h2spec") or ""

ANSWERED_AT_ONCE = {
    "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded"
}
"""It does not come to that: each of these requests is answered before the next one is read."""


@pytest.mark.skipif(not H2SPEC, reason="h2spec is not on the PATH")
async def test_h2spec(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It knows no gRPC, and waits for content: all that is HTTP is taken for a Check."""

    def checked(fields: Iterable[Field]) -> Head[Asked]:
        head = head_of(fields)
        return Head(CHECK, head.metadata, length=head.length)

    monkeypatch.setattr(hpack, "head_of", checked)
    monkeypatch.setattr(connection, "message_of", lambda data, **_: data)
    report = tmp_path / "report.xml"
    async with listening() as server:
        ran = await asyncio.create_subprocess_exec(
            *(H2SPEC, "--strict", "-p", str(server.port), "-j", str(report)),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await asyncio.wait_for(ran.wait(), 100)
        assert server.errors == []
    cases = list(ET.parse(report).iter("testcase"))  # noqa: S314 - its own
    failed = {str(case.get("classname")) for case in cases if case.find("failure") is not None}
    assert len(cases) > 140
    assert failed <= ANSWERED_AT_ONCE
