"""Who is let in by TLS: any anchor that is handed out; and a handshake that fails says why."""

import asyncio
import json
import ssl
from io import StringIO
from pathlib import Path

import pytest

from authz.http2 import frames
from authz.lab.harness.certs import Authority, Certificate
from authz.observe import HandshakeLog, json_log
from authz.observe.handshakes import MAX_REASONS
from authz.transport import TlsFiles, TlsMaterial, load_tls
from tests.support.certificates import SERVICE
from tests.support.waiting import soon
from tests.transport.support import SHOP, Listening
from tests.transport.support import listening as our_own

pytestmark = pytest.mark.asyncio


def tls_of(server: Certificate, anchors: Path) -> TlsMaterial:
    return load_tls(TlsFiles(server.cert_file, server.key_file, anchors))


async def greeted(port: int, client: Certificate | None, anchors: Path) -> bool:
    """Whether a client gets through the handshake and is spoken to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(anchors)
    context.set_alpn_protocols(["h2"])
    if client is not None:
        context.load_cert_chain(client.cert_file, client.key_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
        header = await soon(reader.read(9))
    except (ssl.SSLError, ConnectionError):
        return False
    finally:
        writer.transport.abort()
    return len(header) == 9 and header[3] == frames.SETTINGS


@pytest.mark.parametrize("anchors", ["root", "issuing", "both"])
async def test_any_certificate_that_is_handed_out_is_an_anchor(
    anchors: str, tmp_path: Path, listening: Listening
) -> None:
    root = Authority(tmp_path / "root", "root")
    issuing = Authority(tmp_path / "issuing", "issuing", root=root)
    parts = {"root": [root], "issuing": [issuing], "both": [issuing, root]}[anchors]
    file = tmp_path / "anchors.pem"
    file.write_bytes(b"".join(part.ca_file.read_bytes() for part in parts))
    server, client = issuing.issue(SERVICE), issuing.issue(SHOP)
    async with listening(tls=tls_of(server, file)) as running:
        assert await greeted(running.port, client, file)


async def test_an_anchor_beside_the_chain_lets_nobody_in(
    tmp_path: Path, listening: Listening
) -> None:
    """The twin: an issuing authority of the same root is not the one that is trusted."""
    root = Authority(tmp_path / "root", "root")
    trusted, other = (Authority(tmp_path / name, name, root=root) for name in ("one", "two"))
    async with listening(tls=tls_of(trusted.issue(SERVICE), trusted.ca_file)) as running:
        assert await greeted(running.port, trusted.issue(SHOP), trusted.ca_file)
        assert not await greeted(running.port, other.issue(SHOP), trusted.ca_file)


async def test_a_handshake_that_fails_says_why(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "foreign")
    refused: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    def refuse(client: str, why: str) -> None:
        refused.put_nowait((client, why))

    tls = tls_of(ours.issue(SERVICE), ours.ca_file)
    async with our_own(tls=tls, refused=refuse) as running:
        assert not await greeted(running.port, foreign.issue(SHOP), ours.ca_file)
        client, why = await soon(refused.get())
        assert client == "127.0.0.1"
        assert why.startswith("the client's certificate is not accepted: ")
        assert not await greeted(running.port, None, ours.ca_file)
        assert "peer did not return a certificate" in (await soon(refused.get()))[1]
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert "http request" in (await soon(refused.get()))[1]
        writer.close()
        # Whoever only knocks is no news: load balancers do it all day.
        _, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.close()
        assert await greeted(running.port, ours.issue(SHOP), ours.ca_file)
        assert refused.empty()


async def test_the_log_is_bounded() -> None:
    now, written = 0.0, StringIO()
    log = HandshakeLog(json_log(written), lambda: now)

    def lines() -> list[dict[str, object]]:
        text = written.getvalue()
        written.seek(0)
        written.truncate()
        return [json.loads(line) for line in text.splitlines()]

    for _ in range(1000):
        log.refused("192.0.2.1", "no certificate")
    (line,) = lines()
    assert line["event"] == "TLS handshake failed"
    assert line["because"] == "no certificate"
    assert line["client"] == "192.0.2.1"
    now = 60.0
    log.refused("192.0.2.2", "no certificate")
    (line,) = lines()
    assert (line["client"], line["left_out"]) == ("192.0.2.2", 999)
    now = 600.0  # nothing for a while: what was left out is not forgotten, nor counted twice
    log.refused("192.0.2.1", "no certificate")
    (line,) = lines()
    assert line["left_out"] == 0
    for number in range(1000):
        log.refused("192.0.2.2", f"reason {number}")
    assert len(lines()) == MAX_REASONS - 1
