"""How the API server knows us: tokens, files of tokens, passwords, plug-ins, impersonation.

Sources: kubernetes.io/docs/reference/access-authn-authz/authentication (client-go credential
plug-ins, user impersonation), client-go transport and plugin/pkg/client/auth/exec (v1.37).
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2 as httpx

from authz.kube.errors import KubeError
from authz.kube.kubeconfig import Cluster, Plugin, User, decoded

_API: Final = "client.authentication.k8s.io"
_VERSIONS: Final = (f"{_API}/v1", f"{_API}/v1beta1")
_MODES: Final = ("IfAvailable", "Never", "Always")
_SECONDS: Final = 60  # for a plug-in that asks nobody
_INTERACTIVE_SECONDS: Final = 600
_MOST: Final = 1 << 20  # bytes of a token file, or that a plug-in prints


class Bearer(httpx.Auth):
    """Sends a token, and fetches it anew, once for a request, when it is refused."""

    def __init__(self, fetch: Callable[[], str], first: str | None = None) -> None:
        self._fetch = fetch
        self._token = first

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See `httpx.Auth`."""
        if self._token is None:
            self._token = await asyncio.to_thread(self._fetch)
        request.headers["Authorization"] = f"Bearer {self._token}"
        response = yield request
        if response.status_code != 401:
            return
        self._token = await asyncio.to_thread(self._fetch)
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is sent with each request, and what TLS shows: certificate and key, PEM."""

    auth: httpx.Auth | None = None
    pair: tuple[bytes, bytes] | None = field(default=None, repr=False)
    headers: tuple[tuple[str, str], ...] = ()


def credentials(user: User, cluster: Cluster) -> Credentials:
    """Those of a user of a kubeconfig; runs its plug-in, if it has one.

    Raises:
        KubeError: they contradict each other, cannot be read, or the plug-in fails.
    """
    if user.auth_provider is not None:
        raise KubeError("users: auth-provider: kubectl no longer takes it: use exec")
    pair = _pair(user)
    headers = tuple(_acting(user))
    has_token = bool(user.token or user.token_file)
    if has_token and user.username:
        raise KubeError("users: token and username: kubectl takes one of them: remove the other")
    if has_token:
        return Credentials(_token(user), pair, headers)
    if user.username:
        return Credentials(httpx.BasicAuth(user.username, user.password), pair, headers)
    if user.plugin is None:
        return Credentials(None, pair, headers)
    plugin = user.plugin
    token, own_pair = _run(plugin, cluster)

    def again() -> str:
        return _run(plugin, cluster)[0] or ""

    return Credentials(Bearer(again, token) if token else None, own_pair or pair, headers)


def environment_of_others() -> dict[str, str]:
    """For a program that is not ours: without our settings, which may hold a key-encryption key.

    Settings are read in small letters, too.
    """
    return {k: v for k, v in os.environ.items() if not k.upper().startswith("AUTHZ_")}


def token_in(file: Path) -> str:
    """The token in a file.

    Raises:
        KubeError: there is none.
    """
    try:
        with file.open("rb") as opened:
            token = opened.read(_MOST).decode("ascii").strip()
    except OSError as error:
        raise KubeError(f"tokenFile: {file}: {error.strerror}") from None
    except ValueError:
        token = ""
    if not _is_token(token):
        raise KubeError(f"tokenFile: {file} holds no token")
    return token


def _token(user: User) -> Bearer:
    if not user.token_file:
        if not _is_token(user.token):
            raise KubeError("users: token: it has spaces or is not ASCII: correct it")
        return Bearer(lambda: user.token)
    file = Path(user.token_file)

    def fetch() -> str:
        """The file, and where that cannot be read, what the kubeconfig says itself."""
        try:
            return token_in(file)
        except KubeError:
            if not user.token:
                raise
            return user.token

    return Bearer(fetch)


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _pair(user: User) -> tuple[bytes, bytes] | None:
    cert = _pem("client-certificate", user.cert_data, user.cert_file)
    key = _pem("client-key", user.key_data, user.key_file)
    if (cert is None) != (key is None):
        there, missing = ("client-certificate", "client-key")[:: 1 if key is None else -1]
        raise KubeError(f"users: {there} is there without {missing}: give both")
    return None if cert is None or key is None else (cert, key)


def _pem(name: str, data: str, file: str) -> bytes | None:
    if data:
        return decoded(f"users: {name}-data", data)
    if not file:
        return None
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise KubeError(f"users: {name}: {file}: {error.strerror}") from None


def _acting(user: User) -> list[tuple[str, str]]:
    groups, extra = user.acting_groups or [], user.acting_extra or {}
    if not user.acting_as:
        if user.acting_uid or groups or extra:
            raise KubeError("users: as-uid, as-groups and as-user-extra need as")
        return []
    headers = [("Impersonate-User", user.acting_as)]
    if user.acting_uid:
        headers.append(("Impersonate-Uid", user.acting_uid))
    headers += [("Impersonate-Group", group) for group in groups]
    headers += [
        (f"Impersonate-Extra-{quote(name, safe='')}", value)
        for name, values in extra.items()
        for value in values
    ]
    if not all(value.isascii() and value.isprintable() for _, value in headers):
        raise KubeError("users: as, as-uid, as-groups, as-user-extra: use printable ASCII")
    return headers


# -- plug-ins ----------------------------------------------------------------------------------


def _run(plugin: Plugin, cluster: Cluster) -> tuple[str | None, tuple[bytes, bytes] | None]:
    """A plug-in's token, and its certificate and key. What it prints is a secret."""
    name = f"users: exec: {plugin.command}"
    if plugin.version not in _VERSIONS:
        raise KubeError(f"{name}: apiVersion: use {' or '.join(_VERSIONS)}")
    if plugin.interactive and plugin.interactive not in _MODES:
        raise KubeError(f"{name}: interactiveMode: use {', '.join(_MODES)}")
    there = sys.stdin is not None and sys.stdin.isatty()
    if plugin.interactive == "Always" and not there:
        raise KubeError(f"{name}: interactiveMode is Always, and there is no terminal")
    interactive = there and plugin.interactive != "Never"
    try:
        done = subprocess.run(  # noqa: S603 - what the operator's kubeconfig says
            [plugin.command, *(plugin.args or ())],
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=_environment(plugin, cluster, interactive=interactive),
            timeout=_INTERACTIVE_SECONDS if interactive else _SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KubeError(f"{name}: it did not end in time") from None
    except OSError as error:
        hint = f". {plugin.hint.strip()}" if plugin.hint.strip() else ""
        raise KubeError(f"{name}: {error.strerror}{hint}") from None
    if done.returncode != 0:
        raise KubeError(f"{name}: it ended with code {done.returncode}, see what it said above")
    return _printed(name, plugin.version, done.stdout[:_MOST])


def _environment(plugin: Plugin, cluster: Cluster, *, interactive: bool) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.cluster_info:
        spec["cluster"] = {
            name: value
            for name, value in (
                ("server", cluster.server),
                ("tls-server-name", cluster.tls_server_name),
                ("certificate-authority-data", _ca_data(cluster)),
                ("proxy-url", cluster.proxy_url),
            )
            if value
        }
    info = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": spec}
    given = {variable.name: variable.value for variable in plugin.env or ()}
    return {**environment_of_others(), **given, "KUBERNETES_EXEC_INFO": json.dumps(info)}


def _ca_data(cluster: Cluster) -> str:
    if cluster.ca_data or not cluster.ca_file:
        return cluster.ca_data
    return base64.b64encode(Path(cluster.ca_file).read_bytes()).decode()


def _printed(
    name: str, version: str, printed: bytes
) -> tuple[str | None, tuple[bytes, bytes] | None]:
    try:
        answer = json.loads(printed)
        kind, said, status = answer["kind"], answer["apiVersion"], answer["status"]
        token = status.get("token")
        cert, key = status.get("clientCertificateData"), status.get("clientKeyData")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise KubeError(f"{name}: what it printed is no ExecCredential") from None
    if (kind, said) != ("ExecCredential", version):
        raise KubeError(f"{name}: it printed {said} {kind} where {version} ExecCredential is asked")
    pair = (cert.encode(), key.encode()) if isinstance(cert, str) and isinstance(key, str) else None
    if not (isinstance(token, str) and _is_token(token)):
        token = None
    if token is None and pair is None:
        raise KubeError(f"{name}: it printed neither a token nor a certificate with its key")
    return token, pair
