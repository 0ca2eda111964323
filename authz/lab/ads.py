"""Ask istiod what it sends a proxy: clusters, listeners, routes and endpoints, by ADS.

What the messages mean istiod says itself, by gRPC's reflection: so each istiod's messages are read
by the very definitions that it was built with, Istio's own filters too, and no field is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

Json = dict[str, Any]

METHOD: Final = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
_CONFIG: Final = "type.googleapis.com/envoy.config"
TYPES: Final[Mapping[str, str]] = {
    "clusters": f"{_CONFIG}.cluster.v3.Cluster",
    "listeners": f"{_CONFIG}.listener.v3.Listener",
    "routes": f"{_CONFIG}.route.v3.RouteConfiguration",
    "endpoints": f"{_CONFIG}.endpoint.v3.ClusterLoadAssignment",
}
"""What is asked for, and how ADS calls it."""

_SECONDS: Final = 180.0
_LARGEST: Final = 1 << 28


@dataclass(frozen=True)
class Discovery:
    """A client of one istiod."""

    channel: grpc.aio.Channel
    pool: DescriptorPool
    _read: dict[tuple[str, bytes], Json] = field(default_factory=dict, repr=False)
    """What was read before: most proxies are sent much the same."""

    def message(self, name: str) -> type[Message]:
        """The class of a message, by its full name."""
        return GetMessageClass(self.pool.FindMessageTypeByName(name))

    async def sent(self, node: Json) -> dict[str, list[Json]]:
        """Everything that a proxy is sent which connects as `node` now, as JSON.

        Args:
            node: Envoy's `core.v3.Node`: id, cluster and metadata.

        Raises:
            TimeoutError: istiod did not send all of it.
            grpc.aio.AioRpcError: it refuses.
        """
        request = self.message("envoy.service.discovery.v3.DiscoveryRequest")
        call = self._stream()
        found: dict[str, list[Json]] = {}

        async def ask(kind: str, names: Iterable[str] = ()) -> None:
            fields = {"node": node, "type_url": TYPES[kind], "resource_names": sorted(names)}
            await call.write(json_format.ParseDict(fields, request()))

        kinds = {url: kind for kind, url in TYPES.items()}
        async with asyncio.timeout(_SECONDS):
            await ask("clusters")
            while len(found) < len(TYPES):
                answer: Any = await call.read()
                if answer is grpc.aio.EOF:
                    raise TimeoutError(f"istiod ended the stream of {node['id']}")
                kind = kinds[answer.type_url]
                found[kind] = [self.as_json(resource) for resource in answer.resources]
                # One after the other, as Envoy does, so that nothing is asked for in vain.
                if kind == "clusters":
                    names = [it["name"] for it in found[kind] if it.get("type") == "EDS"]
                    await ask("endpoints", names)
                elif kind == "endpoints":
                    await ask("listeners")
                elif kind == "listeners":
                    names = sorted(_route_names(found[kind]))
                    if not names:
                        found["routes"] = []
                    else:
                        await ask("routes", names)
        call.cancel()
        return found

    async def told(self, node: Json, cluster: str) -> None:
        """Wait until a proxy that is connected as `node` is told of a cluster.

        Raises:
            TimeoutError: it is not.
        """
        request = self.message("envoy.service.discovery.v3.DiscoveryRequest")
        call = self._stream()
        nonce = version = ""
        async with asyncio.timeout(_SECONDS):
            while True:
                fields = {
                    "node": node,
                    "type_url": TYPES["clusters"],
                    "response_nonce": nonce,
                    "version_info": version,
                }
                await call.write(json_format.ParseDict(fields, request()))
                answer = await call.read()
                if any(self.as_json(it)["name"] == cluster for it in answer.resources):
                    break
                nonce, version = answer.nonce, answer.version_info
        call.cancel()

    def _stream(self) -> Any:
        request = self.message("envoy.service.discovery.v3.DiscoveryRequest")
        response = self.message("envoy.service.discovery.v3.DiscoveryResponse")
        return self.channel.stream_stream(
            METHOD,
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )()

    def as_json(self, packed: Any) -> Json:
        """A packed message, with the field names of its definition."""
        key = packed.type_url, packed.value
        if key not in self._read:
            message = self.message(packed.type_url.rpartition("/")[2]).FromString(packed.value)
            self._read[key] = json_format.MessageToDict(
                message, preserving_proto_field_name=True, descriptor_pool=self.pool
            )
        return self._read[key]


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Discovery]:
    """A client of the istiod whose plaintext ADS is at `address`, as long as the block lasts."""
    options = [("grpc.max_receive_message_length", _LARGEST)]
    with grpc.insecure_channel(address, options=options) as reflecting:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(reflecting))
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            yield Discovery(channel, pool)


def _route_names(listeners: list[Json]) -> set[str]:
    """The route configurations that listeners refer to."""
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(rds := value.get("rds"), dict):
                found.add(rds["route_config_name"])
            for it in value.values():
                look(it)
        elif isinstance(value, list):
            for it in value:
                look(it)

    look(listeners)
    return found
