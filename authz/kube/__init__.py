"""The Kubernetes API, as far as this package needs it: read, write and follow a few objects.

`lightkube` knows kubeconfigs, service accounts and ways to authenticate, and we leave them to it.
Requests are made here. Its watch asks for no bookmarks, waits for ever on a connection that died,
keeps a line of any length in memory and takes 410 for an error of its caller; a keyring that
depends on it could be stale without anybody knowing.

Importing it takes 0.1 s and 6 MiB beside the service: only what uses Kubernetes does.
"""

from authz.kube.api import ApiServer, Resource
from authz.kube.errors import Gone, Interrupted, KubeError
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
    "Pace",
    "Resource",
    "Seen",
    "follow",
]
