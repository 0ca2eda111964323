"""Who calls what, and what must come of it. `a` and `b` are tenants that are strangers.

In URLs and headers, `{a}` and `{b}` are their namespaces, `{a_plain}` and `{a_hello}` the addresses
of pods of `a`. Each tenant has the Knative Services `hello`, and `idle` behind the activator; the
Service `plain`, and `plain-tcp` for raw TCP; a port 9999 that no Service names. `bare` is a pod of
`b` without a sidecar.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from authz.testing import Case
from authz.wire import TOKEN_HEADER

Caller = Literal["a", "b", "bare"]

ALLOWED: Final = "2??"
"""2xx, and the app saw no token."""
DENIED: Final = "403 ?*"
"""403 with a reason of ours."""
KEPT_OUT: Final = "[!2]*"
"""Anything but an answer of the app: denied, or no connection."""
MUST: Final = {ALLOWED: "allowed", DENIED: "denied", KEPT_OUT: "kept out"}
"""What must come, for people."""


class Call(NamedTuple):
    """One call."""

    caller: Caller
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    host: str = ""


def _row(  # noqa: PLR0917 - a row
    name: str,
    caller: Caller,
    url: str,
    must: str,
    headers: tuple[tuple[str, str], ...] = (),
    host: str = "",
) -> Case[Call]:
    return Case(name, name, must, Call(caller, url, headers, host), is_pattern=True)


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
    _row("own Service", "a", "http://plain.{a}/", ALLOWED),
    _row("own Knative Service", "a", "http://hello.{a}/", ALLOWED),
    _row("own Knative Service, full name", "a", f"http://{_HELLO}/", ALLOWED),
    _row("own Knative Service by the activator", "a", "http://idle.{a}/", ALLOWED),
    _row("own raw TCP", "a", "tcp://plain-tcp.{a}:7000", ALLOWED),
    _row("a forged token does not reach the own app", "a", "http://plain.{a}/", ALLOWED, _TOKEN),
    _row("b's own Service", "b", "http://plain.{b}/", ALLOWED),
    # Another tenant's does not.
    _row("foreign Service", "b", "http://plain.{a}/", DENIED),
    _row("foreign Knative Service", "b", "http://hello.{a}/", DENIED),
    _row("foreign Knative Service, full name", "b", f"http://{_HELLO}/", DENIED),
    _row("foreign Knative Service by the activator", "b", "http://idle.{a}/", DENIED),
    _row("foreign raw TCP", "b", "tcp://plain-tcp.{a}:7000", KEPT_OUT),
    # Attacks.
    _row("a forged token", "b", "http://hello.{a}/", DENIED, _TOKEN),
    _row("two forged tokens", "b", "http://hello.{a}/", DENIED, _TOKEN + _TOKEN),
    _row("another's Host", "b", "http://plain.{b}/", DENIED, host="hello.{a}"),
    _row(
        "dressed as a probe",
        "b",
        "http://hello.{a}/",
        DENIED,
        (("User-Agent", "kube-probe/1.33"), ("K-Network-Probe", "queue")),
    ),
    _row(
        "a name for whom it sends",
        "b",
        "http://hello.{a}/",
        DENIED,
        (("Kn-Namespace", "{a}"),),
    ),
    _row("wake another's revision", "b", _ACTIVATOR, DENIED, _WAKE),
    _row("by the local gateway", "b", _GATEWAY, DENIED, host=_HELLO),
    _row("a pod's address", "b", "http://{a_plain}:8000/", KEPT_OUT),
    _row("a port that no Service names", "b", "http://{a_plain}:9999/", KEPT_OUT),
    _row("queue-proxy's metrics", "b", "http://{a_hello}:9090/metrics", KEPT_OUT),
    _row("no sidecar, Service", "bare", "http://plain.{a}/", KEPT_OUT),
    _row("no sidecar, pod's address", "bare", "http://{a_plain}:9999/", KEPT_OUT),
    _row("no sidecar, raw TCP", "bare", "tcp://plain-tcp.{a}:7000", KEPT_OUT),
    _row("no sidecar, wake another's revision", "bare", _ACTIVATOR, KEPT_OUT, _WAKE),
    _row("no sidecar, by the local gateway", "bare", _GATEWAY, KEPT_OUT, host=_HELLO),
)
