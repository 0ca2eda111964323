"""Builders and fakes for tests of this package and of what is built on it."""

from dataclasses import dataclass

from authz._proto.ext_authz_pb2 import CheckRequest
from authz.domain.decision import Rules
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, RootKey, TokenLife
from authz.domain.policy import Policy
from authz.wire import virtual_service_name

NOW = 1_800_000_000.0
"""A moment, in seconds since the epoch."""


@dataclass
class ManualClock:
    """A clock that stands still until it is set."""

    now: float = NOW

    def __call__(self) -> float:
        """The present time in seconds."""
        return self.now


def workload(
    namespace: str, service_account: str = "default", trust_domain: str = "cluster.local"
) -> SpiffeId:
    """A workload's SPIFFE ID."""
    return SpiffeId.parse(f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")


def root_key(number: int = 1, *, sign_from: int = 0) -> RootKey:
    """A root key that is the same in every run. Never use one outside tests."""
    return RootKey(f"{number:08x}", bytes([number]) * 32, sign_from)


def rules(policy: Policy | None = None, keyring: Keyring | None = None) -> Rules:
    """Rules with a keyring of one root, and a policy that grants nothing."""
    return Rules(policy or Policy(), keyring or Keyring((root_key(),)), TokenLife())


def check_request(
    *,
    host: str = "",
    path: str = "/",
    principal: str = "",
    port: int = 8080,
    headers: tuple[tuple[str, str], ...] = (),
    request_id: str = "",
    route_of: str = "",
) -> bytes:
    """A serialised CheckRequest as Envoy sends it with `encode_raw_headers`.

    `route_of` is the namespace whose VirtualService has the route.
    """
    request = CheckRequest()
    attributes = request.attributes
    attributes.source.principal = principal
    attributes.destination.address.socket_address.port_value = port
    attributes.request.http.host = host
    attributes.request.http.path = path
    if route_of:
        istio = attributes.route_metadata_context.filter_metadata["istio"]
        istio.fields["config"].string_value = virtual_service_name(route_of, "any")
    for name, value in (*headers, *((("x-request-id", request_id),) if request_id else ())):
        attributes.request.http.header_map.headers.add(key=name, raw_value=value.encode("latin-1"))
    return request.SerializeToString()
