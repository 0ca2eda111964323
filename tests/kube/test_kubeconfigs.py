"""kubeconfigs: what kubectl takes is taken, what it refuses is refused, each tried with it."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.kube import KubeError
from authz.kube import connect as connect_module
from authz.kube.credentials import Bearer
from authz.kube.kubeconfig import User, choose, named_files
from authz.kube.proxies import proxy_of_environment
from tests.kube.kubeconfigs import CLIENT, NAME, Place, kubectls, ours, proxy_to, signed, text64
from tests.kube_double import TOKEN

ROOT = signed("cluster", ca=True)
SHOWN = signed("api", ROOT, hosts=("localhost", NAME))
USER = {"token": TOKEN}
NO_USER = (
    "{current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}], "
    "clusters: [{name: c, cluster: {}}]}"
)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "NO_PROXY", "HTTP_PROXY", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path / "cluster", shown=SHOWN, ca=ROOT.cert).running() as running:
        running.double.token = TOKEN
        yield running


async def both(config: str | Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """What we say, and what kubectl does: "" for success."""
    monkeypatch.setenv("KUBECONFIG", str(config))
    theirs = kubectls(str(config)) if shutil.which("kubectl") else ""
    return await ours(), theirs


# -- several files -----------------------------------------------------------------------------


async def test_several_files_are_merged_and_what_is_missing_is_passed_over(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"users": [{"name": "u", "user": {"token": "of-the-second-file"}}]}
    first = place.folder / "first"
    first.write_text(json.dumps({"users": [{"name": "u", "user": USER}], "current-context": ""}))
    second = place.write("second", cluster=place.cluster(), user={}, **wrong)
    config = os.pathsep.join(["", "/nonexistent", str(first), str(first), str(second)])
    assert await both(config, monkeypatch) == ("", "")
    mine, theirs = await both(f"{second}:{first}", monkeypatch)
    assert "does not accept our credentials (401)" in mine
    assert "Unauthorized" in theirs or "logged in" in theirs


async def test_a_relative_path_is_relative_to_its_own_file(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (place.folder / "ca.pem").write_bytes(ROOT.cert)
    (place.folder / "token").write_text(f"{TOKEN}\n")
    cluster = place.cluster(**{"certificate-authority-data": "", "certificate-authority": "ca.pem"})
    config = place.write(cluster=cluster, user={"tokenFile": "token", "token": "another"})
    monkeypatch.chdir(tmp_path)
    assert await both(config, monkeypatch) == ("", "")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "no current-context"),
        ("{}", "no current-context"),
        ("[", "cannot be read: it is not YAML"),
        ("\x00", "cannot be read: it is not YAML"),
        ("- a", "cannot be read: its top"),
        ("current-context: 1", "cannot be read: current-context: "),
        ("current-context: x", "there is no context 'x'"),
        ("users: [{name: a, user: {token: 12}}]", "cannot be read: users.0.user.token: "),
        ("clusters: [{name: a, cluster: {}}, {name: a, cluster: {}}]", "'a' is there twice"),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]",
            "names a cluster that is not there: 'c'",
        ),
        (NO_USER, "names a user that is not there: 'u'"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(tmp_path: Path, content: str, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content)
    with pytest.raises(KubeError) as caught:
        choose([path])
    assert text in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_are_named_once_and_from_home() -> None:
    assert named_files("~/a:/b::/b") == [Path.home() / "a", Path("/b")]


# -- the API server's certificate --------------------------------------------------------------


OLD = signed("api", ROOT, hosts=("localhost",), until=-dt.timedelta(hours=1))
PLAIN_ROOT = signed("plain", ca=True, plain=True)
ISSUING = signed("issuing", ROOT, ca=True)
CERTIFICATES = {
    # What is shown, the chain behind it, what is trusted, and whether it is taken.
    "as it should be": (SHOWN, b"", ROOT.cert, True),
    "an authority without key usage and identifiers": (
        signed("api", PLAIN_ROOT, hosts=("localhost",)),
        b"",
        PLAIN_ROOT.cert,
        True,
    ),
    "the issuing authority as the anchor": (
        signed("api", ISSUING, hosts=("localhost",)),
        ISSUING.cert,
        ISSUING.cert,
        True,
    ),
    "a certificate as its own anchor": (SHOWN, b"", SHOWN.cert, True),
    "comments in any language": (SHOWN, b"", "# Wurzel für alle\n".encode() + ROOT.cert, True),
    "another authority": (SHOWN, b"", signed("other", ca=True).cert, False),
    "the system's authorities": (SHOWN, b"", b"", False),
    "another name": (signed("api", ROOT, hosts=("elsewhere",)), b"", ROOT.cert, False),
    "the name in the subject only": (signed("localhost", ROOT), b"", ROOT.cert, False),
    "expired": (OLD, b"", ROOT.cert, False),
    "for clients": (
        signed("api", ROOT, hosts=("localhost",), usage=CLIENT),
        b"",
        ROOT.cert,
        False,
    ),
    "signed by one that is no authority": (
        signed("api", SHOWN, hosts=("localhost",)),
        SHOWN.cert,
        ROOT.cert,
        False,
    ),
}


@pytest.mark.parametrize("name", CERTIFICATES)
async def test_the_api_servers_certificate_is_taken_as_kubectl_takes_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, chain, ca, taken = CERTIFICATES[name]
    with Place(tmp_path / "cluster", shown=shown, chain=chain, ca=ca).running() as place:
        config = place.write(cluster=place.cluster(), user=USER)
        mine, theirs = await both(config, monkeypatch)
        if taken:
            assert (mine, theirs) == ("", "")
            return
        assert "cannot be reached" in mine
        assert "CERTIFICATE_VERIFY_FAILED" in mine
        assert not shutil.which("kubectl") or "x509: " in theirs
        assert place.double.requests == []  # nobody got our token


async def test_the_server_may_be_known_by_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = signed("api", ROOT, hosts=(NAME,))
    with Place(tmp_path / "cluster", shown=shown, ca=ROOT.cert).running() as place:
        named = place.write("named", cluster=place.cluster(**{"tls-server-name": NAME}), user=USER)
        assert await both(named, monkeypatch) == ("", "")
        other = place.cluster(**{"tls-server-name": "other.example"})
        mine, _ = await both(place.write("other", cluster=other, user=USER), monkeypatch)
        assert "CERTIFICATE_VERIFY_FAILED" in mine
        with proxy_to(place.double.port) as (url, asked):
            behind = place.cluster(**{"tls-server-name": NAME, "proxy-url": url})
            config = place.write("behind", cluster=behind, user=USER)
            assert await both(config, monkeypatch) == ("", "")
            assert asked


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"insecure-skip-tls-verify": True}, "insecure-skip-tls-verify: keys and policy would go"),
        ({"certificate-authority-data": "!"}, "certificate-authority-data is not base64"),
        ({"certificate-authority-data": text64(b"x")}, "holds no certificate, PEM"),
        (
            {"certificate-authority-data": "", "certificate-authority": "/nonexistent"},
            "certificate-authority: /nonexistent: No such file",
        ),
        ({"proxy-url": "ftp://a"}, "proxy-url: ftp is unknown: use http, https, socks5"),
        ({"proxy-url": "http://[a"}, "proxy-url is no URL"),
        ({"server": "http://203.0.113.1"}, "would get our token unencrypted: use https"),
        ({"server": "http://jane:pw@203.0.113.1:80"}, "http://203.0.113.1 would get our token"),
    ],
)
async def test_a_cluster_that_is_not_taken_is_told_by_its_field(
    place: Place, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], text: str
) -> None:
    config = place.write(cluster=place.cluster(**changed), user=USER)
    monkeypatch.setenv("KUBECONFIG", str(config))
    said = await ours()
    assert text in said
    assert TOKEN not in said
    assert place.double.requests == []


async def test_an_address_without_a_scheme_is_https(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = place.cluster(server=f"localhost:{place.double.port}")
    monkeypatch.setenv("KUBECONFIG", str(place.write(cluster=bare, user=USER)))
    assert await ours() == ""


# -- proxies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["kubeconfig", "environment"])
async def test_the_way_through_a_proxy_is_taken(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with proxy_to(place.double.port) as (url, asked):
        chosen = {"proxy-url": url} if where == "kubeconfig" else {}
        if where == "environment":
            monkeypatch.setenv("HTTPS_PROXY", url)
        server = f"https://{NAME}:{place.double.port}"  # a name that leads nowhere
        config = place.write(cluster=place.cluster(server=server, **chosen), user=USER)
        assert await both(config, monkeypatch) == ("", "")
        assert set(asked) == {f"CONNECT {NAME}:{place.double.port} HTTP/1.1"}


async def test_a_pod_goes_straight_whatever_the_environment_says(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    for name, content in (("ca.crt", ROOT.cert), ("token", TOKEN.encode()), ("namespace", b"a")):
        (mount / name).write_bytes(content)
    monkeypatch.setattr(connect_module, "SERVICE_ACCOUNT", str(mount))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(place.double.port))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert await ours() == ""
    (mount / "token").unlink()
    assert "token: No such file" in await ours()


@pytest.mark.parametrize(
    ("no_proxy", "host", "straight"),
    [
        ("", "api.example", False),
        ("*", "api.example", True),
        ("api.example", "api.example", True),
        ("example", "api.example", True),
        ("ample", "api.example", False),
        (".example", "api.example", True),
        (".example", "example", False),
        ("*.example", "api.example", True),
        ("API.Example", "api.example", True),
        ("other, api.example", "api.example", True),
        ("api.example:443", "api.example", True),
        ("api.example:6443", "api.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("nonsense/8", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("", "localhost", True),
        ("", "127.0.0.1", True),
        ("", "::1", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, straight: bool
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_of_environment(host, 443) is None) == straight


# -- who we are --------------------------------------------------------------------------------


async def test_a_client_certificate_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = signed("admin", ROOT, usage=CLIENT)
    place = Place(tmp_path / "cluster", shown=SHOWN, ca=ROOT.cert)
    place.tls.load_verify_locations(cadata=ROOT.cert.decode())
    place.tls.verify_mode = ssl.CERT_REQUIRED
    with place.running():
        inline = {
            "client-certificate-data": text64(client.cert),
            "client-key-data": text64(client.key_pem),
        }
        config = place.write("inline", cluster=place.cluster(), user=inline)
        assert await both(config, monkeypatch) == ("", "")
        (place.folder / "c.pem").write_bytes(client.cert)
        (place.folder / "c.key").write_bytes(client.key_pem)
        files = {"client-certificate": "c.pem", "client-key": "c.key"}
        config = place.write("files", cluster=place.cluster(), user=files)
        assert await both(config, monkeypatch) == ("", "")
        mine, theirs = await both(place.write(cluster=place.cluster(), user=USER), monkeypatch)
        assert mine
        assert theirs or not shutil.which("kubectl")


async def test_a_password_is_sent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.double.token = None
    user = {"username": "admin", "password": "made up"}
    assert await both(place.write(cluster=place.cluster(), user=user), monkeypatch) == ("", "")
    sent = {request.headers["authorization"] for request in place.double.requests}
    assert sent == {f"Basic {text64(b'admin:made up')}"}


async def test_we_act_as_another_where_it_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = {
        **USER,
        "as": "jane",
        "as-uid": "42",
        "as-groups": ["operators"],
        "as-user-extra": {"scopes": ["view"]},
    }
    assert await both(place.write(cluster=place.cluster(), user=user), monkeypatch) == ("", "")
    seen = [
        {name: value for name, value in request.headers.items() if name.startswith("impersonate")}
        for request in place.double.requests
    ]
    assert seen[0] == {
        "impersonate-user": "jane",
        "impersonate-uid": "42",
        "impersonate-group": "operators",
        "impersonate-extra-scopes": "view",
    }
    assert all(it == seen[0] for it in seen)


async def test_a_token_file_is_read_again_when_its_token_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = place.folder / "token"
    file.write_text("first")
    place.double.token = "first"
    config = place.write(cluster=place.cluster(), user={"tokenFile": str(file)})
    monkeypatch.setenv("KUBECONFIG", str(config))
    client, namespace = connect_module.connect()
    assert namespace == "authz-system"
    async with client:
        path = "api/v1/namespaces/authz-system/configmaps?fieldSelector=metadata.name=policy"
        assert (await client.get(path)).status_code == 200
        file.write_text("second")
        place.double.token = "second"
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ({"auth-provider": {"name": "gcp"}}, "auth-provider: kubectl no longer takes it: use exec"),
        ({**USER, "username": "a", "password": "b"}, "token and username: kubectl takes one"),
        ({"client-certificate-data": text64(b"x")}, "client-certificate is there without client-k"),
        ({"client-key-data": text64(b"x")}, "client-key is there without client-certificate"),
        (
            {"client-certificate-data": text64(b"x"), "client-key-data": text64(b"secret")},
            "client-certificate and client-key are no pair in PEM",
        ),
        ({"as-groups": ["a"], **USER}, "as-uid, as-groups and as-user-extra need as"),
        ({"as": "a\r\nb: c", **USER}, "use printable ASCII"),
        ({"token": "secret\nsecond"}, "token: it has spaces"),
        ({"tokenFile": "/nonexistent"}, "tokenFile: /nonexistent: No such file"),
    ],
)
async def test_a_user_that_is_not_taken_is_told_by_its_field(
    place: Place, monkeypatch: pytest.MonkeyPatch, user: dict[str, Any], text: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(place.write(cluster=place.cluster(), user=user)))
    said = await ours()
    assert text in said
    assert "secret" not in said
    assert place.double.requests == []


# -- plug-ins ----------------------------------------------------------------------------------

V1 = "client.authentication.k8s.io/v1"
BETA = "client.authentication.k8s.io/v1beta1"
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def plugin(place: Place) -> Make:
    """A user with a plug-in in the kubeconfig's folder, which prints a script's output."""

    def make(
        script: str = "", *, token: str = TOKEN, version: str = V1, **more: Any
    ) -> dict[str, Any]:
        status = {"token": token}
        answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
        file = place.folder / "login"
        file.write_text(f"#!/bin/sh\n{script}\necho '{json.dumps(answer)}'\n")
        file.chmod(0o755)
        given = {"apiVersion": version, "command": "./login", "interactiveMode": "Never", **more}
        return {"exec": given}

    return make


@pytest.mark.parametrize("version", [V1, BETA])
async def test_a_plugin_logs_us_in(
    place: Place, monkeypatch: pytest.MonkeyPatch, plugin: Make, version: str
) -> None:
    monkeypatch.setenv("AUTHZ_KEK", "a key")
    monkeypatch.setenv("authz_kek", "a key")  # settings are read in small letters, too
    script = (
        'printf "%s" "$KUBERNETES_EXEC_INFO" > info; '
        'printf "%s" "$1 $LOGIN_AS $AUTHZ_KEK$authz_kek" > given'
    )
    user = plugin(
        f'cd "{place.folder}"; {script}',
        version=version,
        args=["--now"],
        env=[{"name": "LOGIN_AS", "value": "jane"}],
        provideClusterInfo=True,
    )
    config = place.write(cluster=place.cluster(), user=user)
    monkeypatch.setenv("KUBECONFIG", str(config))
    assert await ours() == ""
    info = json.loads((place.folder / "info").read_text())
    assert (place.folder / "given").read_text() == "--now jane "
    if shutil.which("kubectl"):
        assert kubectls(str(config)) == ""
        theirs = json.loads((place.folder / "info").read_text())
        theirs["spec"]["cluster"].pop("config", None)
        assert info == theirs


async def test_a_plugin_may_give_a_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = signed("admin", ROOT, usage=CLIENT)
    place = Place(tmp_path / "cluster", shown=SHOWN, ca=ROOT.cert)
    place.tls.load_verify_locations(cadata=ROOT.cert.decode())
    place.tls.verify_mode = ssl.CERT_REQUIRED
    status = {
        "clientCertificateData": client.cert.decode(),
        "clientKeyData": client.key_pem.decode(),
    }
    answer = {"apiVersion": V1, "kind": "ExecCredential", "status": status}
    (place.folder / "answer").write_text(json.dumps(answer))
    user = {
        "exec": {
            "apiVersion": V1,
            "command": "cat",
            "args": [str(place.folder / "answer")],
            "interactiveMode": "Never",
        }
    }
    with place.running():
        assert await both(place.write(cluster=place.cluster(), user=user), monkeypatch) == ("", "")


async def test_a_plugin_is_asked_again_when_its_token_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, plugin: Make
) -> None:
    first = plugin(token="old")
    monkeypatch.setenv("KUBECONFIG", str(place.write(cluster=place.cluster(), user=first)))
    client, _ = connect_module.connect()
    plugin()  # from now on it prints the right one
    async with client:
        path = "api/v1/namespaces/authz-system/configmaps?fieldSelector=metadata.name=policy"
        assert (await client.get(path)).status_code == 200
    tokens = [request.headers["authorization"] for request in place.double.requests]
    assert tokens == ["Bearer old", f"Bearer {TOKEN}"]


@pytest.mark.parametrize(
    "case",
    [
        ("exit 7", {}, "it ended with code 7"),
        ("echo secret; exit 0", {}, "what it printed is no ExecCredential"),
        ("", {"command": "no-such-program"}, "exec: no-such-program: No such file or directory"),
        (
            "",
            {"command": "no-such-program", "installHint": "Install it from example."},
            "No such file or directory. Install it from example.",
        ),
        ("", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "apiVersion: use client."),
        ("", {"interactiveMode": "Always"}, "interactiveMode is Always, and there is no terminal"),
        ("", {"interactiveMode": "Perhaps"}, "interactiveMode: use IfAvailable, Never, Always"),
    ],
)
async def test_a_plugin_that_fails_is_told_and_not_quoted(
    place: Place, monkeypatch: pytest.MonkeyPatch, plugin: Make, case: tuple[str, Any, str]
) -> None:
    script, changed, text = case
    user = plugin(script, **changed)
    monkeypatch.setenv("KUBECONFIG", str(place.write(cluster=place.cluster(), user=user)))
    said = await ours()
    assert text in said
    assert "secret" not in said
    assert place.double.requests == []


def test_no_secret_is_shown() -> None:
    given = {"token": "secret-1", "password": "secret-2", "client-key-data": "secret-3"}
    assert "secret" not in repr(User.model_validate(given))
    assert "secret" not in repr(Bearer(lambda: "secret", "secret"))
