"""Connects to the API server: of a kubeconfig, or with the pod's service account.

As kubectl does: the same certificates are taken, and the same proxies used.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from importlib import import_module
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2 as httpx

from authz.kube.credentials import Bearer, Credentials, credentials, token_in
from authz.kube.errors import KubeError, NoCluster
from authz.kube.kubeconfig import Chosen, Cluster, User, choose, decoded, named_files
from authz.kube.proxies import proxy_of_environment

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
DEFAULT_KUBECONFIG: Final = "~/.kube/config"

# A connection to a machine that is gone is noticed within 11 seconds, not within hours.
_KEEPALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]
_PROXIES: Final = ("http", "https", "socks5")


def connect() -> tuple[httpx.AsyncClient, str]:
    """A client for the API server, and the namespace that is meant where none is named.

    `KUBECONFIG` wins; then, in a pod, its service account, whose token is read again from the
    mount whenever it is refused; else `~/.kube/config`.

    Raises:
        NoCluster: there is no such configuration.
        KubeError: it cannot be used.
    """
    try:
        return _connect()
    except (KubeError, OSError) as error:
        kind = NoCluster if isinstance(error, NoCluster) else KubeError
        raise kind(
            f"no Kubernetes cluster can be used: {error}. Set KUBECONFIG to the file that kubectl "
            "uses, or run in a pod with a service account's token"
        ) from None
    except Exception as error:  # noqa: BLE001 - of several libraries, whose texts may quote tokens
        raise KubeError(
            f"the Kubernetes configuration cannot be used ({type(error).__name__}): see that "
            "`kubectl` works with it"
        ) from None


def _connect() -> tuple[httpx.AsyncClient, str]:
    given = os.environ.get("KUBECONFIG")
    if not given and "KUBERNETES_SERVICE_HOST" in os.environ:
        return _in_pod()
    chosen = choose(named_files(given or DEFAULT_KUBECONFIG))
    server = _server(chosen.cluster)
    known = credentials(chosen.user, chosen.cluster)
    proxy = chosen.cluster.proxy_url or proxy_of_environment(server.host, server.port)
    return _client(server, chosen, known, _proxy(proxy)), chosen.namespace


def _in_pod() -> tuple[httpx.AsyncClient, str]:
    """Straight to the API server: a proxy of the environment is for the way out of the cluster."""
    mount = Path(SERVICE_ACCOUNT)
    host, port = (os.environ[f"KUBERNETES_SERVICE_{name}"] for name in ("HOST", "PORT"))
    host = f"[{host}]" if ":" in host else host
    namespace = (mount / "namespace").read_text().strip()
    cluster = Cluster(server=f"https://{host}:{port}", ca_file=str(mount / "ca.crt"))
    known = Credentials(Bearer(lambda: token_in(mount / "token"), token_in(mount / "token")))
    chosen = Chosen(cluster, User(), namespace)
    return _client(_server(cluster), chosen, known, None), namespace


def _server(cluster: Cluster) -> httpx.URL:
    text = cluster.server
    if not text:
        raise KubeError("clusters: server is missing")
    server = httpx.URL(text if "://" in text else f"https://{text}")
    if server.scheme != "https" and not _is_loopback(server.host):
        # Without user and password, which a URL may have.
        place = f"{server.scheme}://{server.netloc.decode()}"
        raise KubeError(f"{place} would get our token unencrypted: use https")
    return server


def _client(
    server: httpx.URL, chosen: Chosen, known: Credentials, proxy: httpx.Proxy | None
) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(
        verify=tls_context(chosen.cluster, known.pair),
        trust_env=False,
        socket_options=_KEEPALIVE,
        proxy=proxy,
    )
    # An answer that unpacks to a thousand times its size would pass our limits.
    headers = [("accept-encoding", "identity"), ("user-agent", "tenant-authz"), *known.headers]
    return httpx.AsyncClient(
        base_url=server, auth=known.auth, transport=transport, headers=headers, trust_env=False
    )


def _proxy(url: str | None) -> httpx.Proxy | None:
    if not url:
        return None
    url = url if "://" in url else f"http://{url}"
    try:
        scheme, host = (parts := urlsplit(url)).scheme, parts.hostname
        _ = parts.port  # raises where it is none
    except ValueError:
        host = None
    if not host:
        raise KubeError("proxy-url is no URL such as http://proxy.example:3128")
    if scheme not in _PROXIES:
        raise KubeError(f"proxy-url: {scheme} is unknown: use {', '.join(_PROXIES)}")
    if scheme == "socks5":
        try:
            import_module("socksio")
        except ImportError:
            raise KubeError("proxy-url: socks5 needs one more package: socksio") from None
    return httpx.Proxy(url)


class _Named(ssl.SSLContext):
    """A context whose servers are known by one name, whatever the address says."""

    server_name = ""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See `ssl.SSLContext`."""
        name = self.server_name or server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, name, session)


def tls_context(cluster: Cluster, pair: tuple[bytes, bytes] | None) -> ssl.SSLContext:
    """What verifies the API server as kubectl does, and shows our certificate if there is one.

    Go takes any certificate of the bundle as an anchor, and certificates of authorities without key
    usage or key identifiers, which Python refuses by default from 3.13 on (VERIFY_X509_STRICT) and
    many clusters have. It does not look for the name in the subject. Chain, time, purpose and name
    are checked.

    Raises:
        KubeError: certificates or key cannot be used, or verification is switched off.
    """
    if cluster.insecure:
        raise KubeError(
            "clusters: insecure-skip-tls-verify: keys and policy would go to whoever answers: give "
            "certificate-authority in its place"
        )
    context = _Named(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and name
    context.server_name = cluster.tls_server_name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    if (anchors := _anchors(cluster)) is None:
        context.load_default_certs()
    else:
        try:
            # Comments between certificates may be in any language.
            context.load_verify_locations(cadata=anchors.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError):
            raise KubeError("clusters: certificate-authority holds no certificate, PEM") from None
    if pair is not None:
        _show(context, pair)
    return context


def _anchors(cluster: Cluster) -> bytes | None:
    if cluster.ca_data:
        return decoded("clusters: certificate-authority-data", cluster.ca_data)
    if not cluster.ca_file:
        return None
    try:
        return Path(cluster.ca_file).read_bytes()
    except OSError as error:
        problem = f"clusters: certificate-authority: {cluster.ca_file}: {error.strerror}"
        raise KubeError(problem) from None


def _show(context: ssl.SSLContext, pair: tuple[bytes, bytes]) -> None:
    # OpenSSL reads keys from files only, and a key should not reach a disk.
    with os.fdopen(os.memfd_create("tenant-authz"), "wb") as file:
        file.write(b"\n".join(pair))
        file.flush()
        try:
            # A passphrase would be asked for on the terminal.
            context.load_cert_chain(f"/proc/self/fd/{file.fileno()}", password=lambda: b"")
        except (ssl.SSLError, ValueError):
            raise KubeError(
                "users: client-certificate and client-key are no pair in PEM without a passphrase"
            ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
