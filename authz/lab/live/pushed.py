"""Wait until proxies that run have what istiod knows: each acknowledges in its own time.

One more EnvoyFilter gives every proxy a listener that takes no connections. A proxy that has it has
all that istiod knew before. It is taken away again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from authz.lab.box.istio.proxies import Proxy
from authz.lab.controlplane.api import Api
from authz.lab.settled import NotSettled
from authz.lab.world.model import ROOT_NAMESPACE

Json = dict[str, Any]

_NAME: Final = "lab-pushed"
_SECONDS: Final = 180.0
_POLL_SECONDS: Final = 0.05


async def pushed(api: Api, proxies: Iterable[Proxy], number: int) -> None:
    """Wait until all these proxies have what istiod knows now.

    Args:
        api: the API server that it watches.
        proxies: those that run.
        number: another one each time.

    Raises:
        NotSettled: one has not in three minutes.
    """
    name = f"{_NAME}-{number}"
    sentinel = _sentinel(name)
    await api.apply([sentinel])
    try:
        async with asyncio.timeout(_SECONDS):
            await asyncio.gather(*(_listens(proxy, name, there=True) for proxy in proxies))
            await api.delete([sentinel])
            await asyncio.gather(*(_listens(it, name, there=False) for it in proxies))
    except TimeoutError:
        raise NotSettled(f"a proxy has not what istiod has: no listener {name}") from None


async def _listens(proxy: Proxy, name: str, *, there: bool) -> None:
    while True:
        if proxy.child.process.returncode is not None:
            return  # it has ended, and starts with what istiod has then
        if (name in await proxy.admin("/listeners")) is there:
            return
        await asyncio.sleep(_POLL_SECONDS)


def _sentinel(name: str) -> Json:
    listener = {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
        "bind_to_port": False,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.tcp_proxy",
                        "typed_config": {
                            "@type": "type.googleapis.com/"
                            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                            "stat_prefix": name,
                            "cluster": "BlackHoleCluster",
                        },
                    }
                ]
            }
        ],
    }
    patches = [
        {
            "applyTo": "LISTENER",
            "match": {"context": context},
            "patch": {"operation": "ADD", "value": listener},
        }
        for context in ("SIDECAR_OUTBOUND", "GATEWAY")
    ]
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": _NAME, "namespace": ROOT_NAMESPACE},
        "spec": {"configPatches": patches},
    }
