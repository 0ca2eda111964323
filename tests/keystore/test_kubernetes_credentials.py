"""With which credentials an API server is asked for keys, and where they are from."""

import asyncio
import base64
import ipaddress
import json
import logging
import ssl
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from authz.errors import KeyStoreError
from authz.keystore import SealedStore, Snapshot, open_store, update
from authz.keystore.kubernetes import KEY, KubernetesBackend
from authz.kube import Pace
from authz.kube import connect as connect_module
from tests.keystore.in_secret import HOME, Opened, Sleeps, watched
from tests.keystore.support import (
    KEKS,
    RING,
    ROOT,
    counted_up,
    watching,
)
from tests.kube_double import (
    TOKEN,
    ApiDouble,
)
from tests.support.certificates import Issuer
from tests.support.waiting import until


class Pod:
    """What a pod has: an API server with TLS, and the mount of its service account."""

    def __init__(self, mount: Path, issuer: Issuer, double: ApiDouble) -> None:
        self.mount, self.issuer, self.double = mount, issuer, double
        mount.mkdir()
        self.trust(issuer)
        (mount / "namespace").write_text(HOME)
        self.rotate("first-token")

    def trust(self, issuer: Issuer) -> None:
        (self.mount / "ca.crt").write_bytes(issuer.ca_file.read_bytes())

    def rotate(self, token: str) -> None:
        """Give the pod another token; the API server takes no other."""
        (self.mount / "token").write_text(f"{token}\n")
        self.double.token = token


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    issuer = Issuer(tmp_path / "ca")
    certificate = issuer.naming(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate.cert_file, certificate.key_file)
    with ApiDouble.running(tls) as double:
        monkeypatch.setattr(connect_module, "SERVICE_ACCOUNT", str(tmp_path / "mount"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(double.port))
        yield Pod(tmp_path / "mount", issuer, double)


def shown_tokens(double: ApiDouble) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in double.requests]


async def test_in_a_pod_the_service_account_is_used_and_its_new_token_too(pod: Pod) -> None:
    store = open_store("kubernetes:keyring", KEKS)
    await store.compare_and_swap(None, RING)
    assert list(pod.double.objects) == [("secrets", HOME, "keyring")]
    pod.rotate("second-token")
    assert await store.load() == Snapshot(RING, 1)
    assert set(shown_tokens(pod.double)) == {"first-token", "second-token"}
    await store.close()


async def test_a_watch_survives_a_token_that_expires_before_the_next_is_there(
    pod: Pod, another_in_pod: Opened
) -> None:
    store = another_in_pod()
    await store.compare_and_swap(None, RING)
    async with watching(store) as watcher:
        await watcher.version(1)
        await until(lambda: pod.double.watching)
        pod.double.token = "second-token"
        pod.double.end_watches()
        assert "does not accept our credentials (401)" in await watcher.problem()
        pod.rotate("second-token")
        await watcher.all_well()
        await update(another_in_pod(), counted_up)
        await watcher.version(2)


@pytest.fixture
async def another_in_pod(pod: Pod, sleeps: Sleeps) -> AsyncIterator[Opened]:
    stores: list[SealedStore] = []

    def opening() -> SealedStore:
        stores.append(SealedStore(KubernetesBackend("keyring", pace=Pace(sleep=sleeps)), KEKS))
        return stores[-1]

    yield opening
    for store in stores:
        await store.close()


async def test_an_api_server_that_the_mounted_ca_did_not_certify_gets_no_token(
    pod: Pod, tmp_path: Path
) -> None:
    pod.trust(Issuer(tmp_path / "other"))
    store = open_store("kubernetes:keyring", KEKS)
    with pytest.raises(KeyStoreError, match=r"cannot be reached: .*CERTIFICATE_VERIFY_FAILED"):
        await store.load()
    assert pod.double.requests == []
    pod.trust(pod.issuer)  # the mount is renewed
    with pytest.raises(KeyStoreError, match="run `authz keys init`"):
        await store.load()
    await store.close()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "not found. Set KUBECONFIG to the file that kubectl uses"),
        ("{}", "no current-context"),
        ("[", "cannot be read"),
        (json.dumps({"clusters": [], "contexts": []}), "no current-context"),
        (
            json.dumps(
                {
                    "current-context": "x",
                    "clusters": [{"name": "c", "cluster": {"server": "http://203.0.113.1"}}],
                    "users": [{"name": "u", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                }
            ),
            "http://203.0.113.1 would get our token unencrypted: use https",
        ),
    ],
)
async def test_a_configuration_that_is_none_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, text: str
) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    store = open_store("kubernetes:authz-system/keyring", KEKS)
    with pytest.raises(KeyStoreError, match="key store kubernetes:authz-system/") as caught:
        await store.load()
    assert text in str(caught.value)
    assert TOKEN not in str(caught.value)
    await store.close()


async def test_a_watch_waits_for_a_configuration(
    api: ApiDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another: Opened
) -> None:
    await another().compare_and_swap(None, RING)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "later"))
    async with watching(another()) as watcher:
        assert "not found" in await watcher.problem()
        api.kubeconfig(tmp_path / "later")
        await watcher.version(1)


async def test_neither_token_nor_keys_are_shown(
    api: ApiDouble, another: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    said: list[str] = []
    async with watched(another) as watcher:
        await until(lambda: api.watching)
        api.token = "another"
        for work in (another().load(), another().compare_and_swap(None, RING)):
            with pytest.raises(KeyStoreError) as caught:
                await work
            said += [str(caught.value), *traceback.format_exception(caught.value)]
        api.end_watches()
        said.append(await watcher.problem())
        said.append(repr(another()._backend))
    assert "HTTP" in caplog.text
    record = api.get("secrets", HOME, "keyring")["data"][KEY]
    for hidden in (TOKEN, record[:40], base64.b64encode(ROOT.secret).decode()):
        assert hidden not in caplog.text + "".join(said)
