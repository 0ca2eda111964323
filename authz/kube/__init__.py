"""The Kubernetes API, as far as this package needs it: read, write and follow a few objects.

    kubeconfig   which cluster is meant, and as whom: several files, as kubectl merges them
    credentials  tokens, token files, passwords, plug-ins, impersonation
    proxies      the proxy of the environment
    connect      a client from these, or from a pod's service account
    api          requests, each with a limit on time and size
    follow       objects as they change
    forward      the way to a port of a pod

Libraries were looked at first: a watch without bookmarks, that waits for ever on a connection that
died or keeps a line of any length, leaves a keyring stale without anybody knowing; and none reads
kubeconfigs as kubectl does.

Only what uses Kubernetes imports it: httpx2 is an extra.
"""

from authz.kube.api import ApiServer, Resource
from authz.kube.errors import Gone, Interrupted, KubeError, NoCluster
from authz.kube.follow import Alive, Changed, Failed, Listed, Pace, Seen, follow

__all__ = [
    "Alive",
    "ApiServer",
    "Changed",
    "Failed",
    "Gone",
    "Interrupted",
    "KubeError",
    "Listed",
    "NoCluster",
    "Pace",
    "Resource",
    "Seen",
    "follow",
]
