"""The policy's text in a ConfigMap, followed through the API server.

The kubelet brings a mounted ConfigMap up to date once a minute or so: a grant that is withdrawn
would count for that long. A watch tells of it at once.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from authz.errors import BadPolicy
from authz.kube import ApiServer, Changed, Failed, KubeError, Listed, Pace, Resource, follow
from authz.kube.api import Object

_PACE: Final = Pace(relist=600.0)
_MOST_KEYS: Final = 5


class PolicyMap:
    """One key of a ConfigMap.

    It needs no more than `list` and `watch` on the ConfigMap by its name.

    Args:
        namespace: where the ConfigMap is.
        name: what it is called.
        key: the key of its data that holds the policy.
        pace: when to watch anew.
    """

    def __init__(self, namespace: str, name: str, key: str, *, pace: Pace = _PACE) -> None:
        self._resource = Resource("configmaps", namespace=namespace, name=name)
        self._key = key
        self._pace = pace
        self._api = ApiServer()

    def __str__(self) -> str:
        return f"ConfigMap {self._resource.namespace}/{self._resource.name}"

    async def looks(self) -> AsyncGenerator[str | BadPolicy | KubeError, None]:
        """Yield after each look the text that is there now, or what is wrong, for ever.

        A `BadPolicy` says that there is no text, a `KubeError` that nobody can tell.
        """
        held: str | BadPolicy = BadPolicy([f"policy_configmap: {self} has not been read yet"])
        async with aclosing(follow(self._api, self._resource, self._pace)) as seen:
            async for look in seen:
                match look:
                    case Failed(error):
                        yield error
                        continue
                    case Listed(objects):
                        held = self._text(objects[0] if objects else None)
                    case Changed(thing, deleted):
                        held = self._text(None if deleted else thing)
                yield held

    async def close(self) -> None:
        """Let go of the API server."""
        await self._api.close()

    def _text(self, thing: Object | None) -> str | BadPolicy:
        if thing is None:
            return BadPolicy([f"policy_configmap: {self} does not exist: create it"])
        data: Any = thing.get("data")
        keys = data if isinstance(data, dict) else {}
        text = keys.get(self._key)
        if isinstance(text, str):
            return text
        there = ", ".join(sorted(map(str, keys))[:_MOST_KEYS]) or "none"
        return BadPolicy(
            [f"policy_configmap: {self} has no key {self._key}: it has {there} in its data"]
        )
