"""Who calls what, and what must come of it. `a` and `b` are tenants that are strangers.

In URLs and headers, `{a}` and `{b}` are their namespaces, `{a_plain}` and `{a_hello}` the addresses
of pods of `a`. Each tenant has the Knative Services `hello`, and `idle` behind the activator; the
Service `plain`, and `plain-tcp` for raw TCP; a port 9999 that no Service names. `bare` is a pod of
`b` without a sidecar.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Literal

from authz.wire import TOKEN_HEADER

Caller = Literal["a", "b", "bare"]


class Must(enum.Enum):
    """What must come of a call."""

    ALLOWED = "allowed"
    """2xx, and the app saw no token."""
    DENIED = "denied"
    """403 with a reason of ours."""
    KEPT_OUT = "kept out"
    """Anything but an answer of the app: denied, or no connection."""


@dataclass(frozen=True)
class Row:
    """One call."""

    name: str
    caller: Caller
    url: str
    must: Must
    headers: tuple[tuple[str, str], ...] = ()
    host: str = ""


_TOKEN: Final = ((TOKEN_HEADER, "mine"),)
_WAKE: Final = (
    ("Knative-Serving-Namespace", "{a}"),
    ("Knative-Serving-Revision", "idle-00001"),
)
_ACTIVATOR: Final = "http://activator-service.knative-serving/"
_GATEWAY: Final = "http://knative-local-gateway.istio-system/"
_HELLO: Final = "hello.{a}.svc.cluster.local"

MATRIX: Final = (
    # What belongs to a tenant works for it.
    Row("own Service", "a", "http://plain.{a}/", Must.ALLOWED),
    Row("own Knative Service", "a", "http://hello.{a}/", Must.ALLOWED),
    Row("own Knative Service, full name", "a", f"http://{_HELLO}/", Must.ALLOWED),
    Row("own Knative Service by the activator", "a", "http://idle.{a}/", Must.ALLOWED),
    Row("own raw TCP", "a", "tcp://plain-tcp.{a}:7000", Must.ALLOWED),
    Row(
        "a forged token does not reach the own app", "a", "http://plain.{a}/", Must.ALLOWED, _TOKEN
    ),
    Row("b's own Service", "b", "http://plain.{b}/", Must.ALLOWED),
    # Another tenant's does not.
    Row("foreign Service", "b", "http://plain.{a}/", Must.DENIED),
    Row("foreign Knative Service", "b", "http://hello.{a}/", Must.DENIED),
    Row("foreign Knative Service, full name", "b", f"http://{_HELLO}/", Must.DENIED),
    Row("foreign Knative Service by the activator", "b", "http://idle.{a}/", Must.DENIED),
    Row("foreign raw TCP", "b", "tcp://plain-tcp.{a}:7000", Must.KEPT_OUT),
    # Attacks.
    Row("a forged token", "b", "http://hello.{a}/", Must.DENIED, _TOKEN),
    Row("two forged tokens", "b", "http://hello.{a}/", Must.DENIED, _TOKEN + _TOKEN),
    Row("another's Host", "b", "http://plain.{b}/", Must.DENIED, host="hello.{a}"),
    Row(
        "dressed as a probe",
        "b",
        "http://hello.{a}/",
        Must.DENIED,
        (("User-Agent", "kube-probe/1.33"), ("K-Network-Probe", "queue")),
    ),
    Row(
        "a name for whom it sends",
        "b",
        "http://hello.{a}/",
        Must.DENIED,
        (("Kn-Namespace", "{a}"),),
    ),
    Row("wake another's revision", "b", _ACTIVATOR, Must.DENIED, _WAKE),
    Row("by the local gateway", "b", _GATEWAY, Must.DENIED, host=_HELLO),
    Row("a pod's address", "b", "http://{a_plain}:8000/", Must.KEPT_OUT),
    Row("a port that no Service names", "b", "http://{a_plain}:9999/", Must.KEPT_OUT),
    Row("queue-proxy's metrics", "b", "http://{a_hello}:9090/metrics", Must.KEPT_OUT),
    Row("no sidecar, Service", "bare", "http://plain.{a}/", Must.KEPT_OUT),
    Row("no sidecar, pod's address", "bare", "http://{a_plain}:9999/", Must.KEPT_OUT),
    Row("no sidecar, raw TCP", "bare", "tcp://plain-tcp.{a}:7000", Must.KEPT_OUT),
    Row("no sidecar, wake another's revision", "bare", _ACTIVATOR, Must.KEPT_OUT, _WAKE),
    Row("no sidecar, by the local gateway", "bare", _GATEWAY, Must.KEPT_OUT, host=_HELLO),
)
