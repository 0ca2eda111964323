"""Where the API server is, and how it knows us: from a kubeconfig or the pod's service account."""

import ipaddress
import os
import socket
from typing import Final

import httpx2 as httpx
from lightkube import ConfigError, KubeConfig, SingleConfig
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT
from lightkube.config.models import User

from authz.kube.errors import KubeError

# A connection to a machine that is gone is noticed within 11 seconds, not within hours.
_KEEPALIVE: Final = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]


def connect() -> tuple[httpx.AsyncClient, str]:
    """A client for the API server, and the namespace that is meant where none is named.

    `KUBECONFIG` wins; then, in a pod, its service account, whose token is read again from the
    mount whenever it is refused; else `~/.kube/config`.

    Raises:
        KubeError: there is no such configuration, or it cannot be used.
    """
    try:
        config = _configuration()
        server = httpx.URL(config.cluster.server)
        user = config.user or User()
        transport = httpx.AsyncHTTPTransport(
            verify=verify_cluster(config.cluster, user, config.abs_file, trust_env=False),
            trust_env=False,
            socket_options=_KEEPALIVE,
        )
        client = httpx.AsyncClient(
            base_url=server,
            auth=user_auth(user),
            transport=transport,
            # An answer that unpacks to a thousand times its size would pass our limits.
            headers={"accept-encoding": "identity", "user-agent": "tenant-authz"},
            trust_env=False,
        )
    except (ConfigError, OSError) as error:
        raise KubeError(
            f"no Kubernetes cluster can be used: {error}. Set KUBECONFIG to the file that kubectl "
            "uses, or run in a pod with a service account's token"
        ) from None
    except Exception as error:  # noqa: BLE001 - of several libraries, whose texts may quote tokens
        raise KubeError(
            f"the Kubernetes configuration cannot be read ({type(error).__name__}): see that "
            "`kubectl` works with it"
        ) from None
    if server.scheme != "https" and not _is_loopback(server.host):
        raise KubeError(f"{server} would get our token unencrypted: use https")
    return client, config.namespace


def _configuration() -> SingleConfig:
    if path := os.environ.get("KUBECONFIG"):
        chosen = KubeConfig.from_file(path)
    elif "KUBERNETES_SERVICE_HOST" in os.environ:
        chosen = KubeConfig.from_service_account(SERVICE_ACCOUNT)
    else:
        chosen = KubeConfig.from_file(DEFAULT_KUBECONFIG)
    config = chosen.get()
    if config is None:
        raise ConfigError("it names no current context")
    return config


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
