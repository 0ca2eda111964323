"""The ways of authorization that are compared: what each puts into two sidecars."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from authz.config import Transport
from authz.lab.harness.ports import Endpoint
from authz.lab.world.model import Json
from authz.wire import TOKEN_HEADER
from loadtest.plan import BadPlan
from loadtest.stack import KEEPING

PLAIN: Final = "no authorization"
ASKING: Final = f"tenant-authz, {Transport.HTTP2}"
ANSWERS_KEPT: Final = "tenant-authz, answers kept"

_TYPE: Final = "type.googleapis.com/envoy.extensions"
_SECRET_NAME: Final = "static-token"  # noqa: S105 - the name of one


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way."""

    name: str
    note: str
    """What it is, in a line for people."""
    asks: bool = False
    """Whether the filters are those that ship."""
    outbound: Sequence[Json] = ()
    """Else: HTTP filters before the router, on the way out of the first sidecar."""
    inbound: Sequence[Json] = ()
    """The same, into the second one."""
    secrets: Sequence[Json] = ()
    """Of the client's Envoy, by SDS's rules."""
    transport: Transport | None = None
    """Of our service, where it is asked."""
    target: Endpoint | None = None
    """Somebody else's service, in plaintext."""
    overlay: str = ""
    """Which of the shipped overlays, where the filters are those that ship."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """More of our service's."""
    changed: Callable[[Json], object] = lambda asks: None
    """Changes each filter of the shipped ones that asks."""
    on_socket: bool = False
    """Whether our service is asked over a Unix socket, in plaintext."""
    denies: bool | None = True
    """Whether requests without a token are denied; `None` where it is not known."""


def built_in() -> list[Variant]:
    """All but external ones."""
    ours = [
        Variant(
            name=f"tenant-authz, {transport}",
            note=f"this service, transport {transport}, asked by both sidecars over mTLS",
            asks=True,
            transport=transport,
        )
        for transport in Transport
    ]
    kept = Variant(
        name=ANSWERS_KEPT,
        note="the same on http2, and the sidecars give an answer again while it is good",
        asks=True,
        transport=Transport.HTTP2,
        overlay="reuse",
        settings=dict(KEEPING),
    )
    plain = Variant(
        name=PLAIN,
        note="two sidecars and mTLS between them, nothing else",
        denies=False,
    )
    return [plain, *ours, kept, _native(), _lua()]


def cheaper() -> list[Variant]:
    """Other ways to ask, compared only where they are named: what a question would cost then."""
    ways: dict[str, tuple[str, Callable[[Json], object]]] = {
        "joined headers": ("several values of a header in one", _without("encode_raw_headers")),
        "no rules": (
            "an answer may change any header, an error has Envoy's status",
            _without("decoder_header_mutation_rules", "status_on_error"),
        ),
        "Unix socket": ("a service on the node, in plaintext", _without()),
    }
    return [
        Variant(
            name=f"asking otherwise, {name}",
            note=f"the same on http2, but: {note}",
            asks=True,
            transport=Transport.HTTP2,
            changed=changed,
            on_socket=name == "Unix socket",
        )
        for name, (note, changed) in ways.items()
    ]


def _without(*fields: str) -> Callable[[Json], object]:
    return lambda asks: [asks.pop(it, None) for it in fields]


def external(given: str) -> Variant:
    """A variant for `name=host:port`.

    Raises:
        BadPlan: it is not written so, or the host has no IPv4 address.
    """
    name, equals, address = given.partition("=")
    host, colon, port = address.rpartition(":")
    if not (name and equals and host and colon and port.isdecimal() and 0 < int(port) < 65536):
        raise BadPlan(f"target: {given!r} is not name=host:port, such as opa=127.0.0.1:9191")
    try:
        found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise BadPlan(f"target: {host} of {given!r} has no IPv4 address: {error}") from None
    return Variant(
        name=name,
        note=f"ext_authz at {address}, asked by both sidecars in plaintext",
        asks=True,
        target=Endpoint(*found[0][4][:2]),
        denies=None,
    )


def _native() -> Variant:
    secret = secrets.token_urlsafe(32)
    injector = {
        "name": "envoy.filters.http.credential_injector",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.credential_injector.v3.CredentialInjector",
            "overwrite": True,
            "credential": {
                "name": "envoy.http.injected_credentials.generic",
                "typed_config": {
                    "@type": f"{_TYPE}.http.injected_credentials.generic.v3.Generic",
                    "credential": {"name": _SECRET_NAME},
                    "header": TOKEN_HEADER,
                },
            },
        },
    }
    rule = {
        "permissions": [{"any": True}],
        "principals": [{"header": {"name": TOKEN_HEADER, "string_match": {"exact": secret}}}],
    }
    rbac = {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"token": rule}},
        },
    }
    removal = {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [{"remove": TOKEN_HEADER}]},
        },
    }
    return Variant(
        name="credential_injector + RBAC",
        note="Envoy alone: one static secret, put on and compared by its own filters",
        outbound=[injector],
        inbound=[rbac, removal],
        secrets=[
            {"name": _SECRET_NAME, "generic_secret": {"secret": {"inline_string": secret}}},
        ],
    )


def _lua() -> Variant:
    secret = secrets.token_urlsafe(32)
    put = f"""
function envoy_on_request(handle)
  handle:headers():replace("{TOKEN_HEADER}", "{secret}")
end
"""
    compare = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  if headers:get("{TOKEN_HEADER}") ~= "{secret}" then
    handle:respond({{[":status"] = "403"}}, "denied")
    return
  end
  headers:remove("{TOKEN_HEADER}")
end
"""
    return Variant(
        name="Lua per namespace",
        note="a Lua filter in each sidecar of a namespace, with a static secret in its source",
        outbound=[_script(put)],
        inbound=[_script(compare)],
    )


def _script(source: str) -> Json:
    return {
        "name": "envoy.filters.http.lua",
        "typed_config": {
            "@type": f"{_TYPE}.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": source},
        },
    }
