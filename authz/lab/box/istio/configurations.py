"""Where the proxies of a box get their configuration from: a part that can be exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from authz.lab.world.model import Json, Pod


class Configurations(Protocol):
    """What each proxy of one running mesh is configured with."""

    async def install(self, documents: Sequence[Json]) -> None:
        """From now on these Kubernetes documents are in the cluster, beside the world's objects.

        Args:
            documents: all of them: the world's own, the shipped ones, an operator's; of two with
                one kind, namespace and name, the later counts.

        Raises:
            AuthzError: there is no configuration for a cluster with these.
        """

    async def of(self, pod: Pod) -> Json:
        """An Envoy bootstrap for the proxy of `pod`, without the admin endpoint.

        Called after `install`, whenever the proxy starts.
        """
