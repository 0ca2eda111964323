"""Identity: the SPIFFE ID of a workload, and how a proxy in front of us hands it over.

Sources: SPIFFE ID standard, sections 2 and 2.3; Istio's `spiffe://<trust domain>/ns/<namespace>/
sa/<service account>`; Envoy's x-forwarded-client-cert.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from authz.domain.names import LABEL, MAX_NAME, Namespace
from authz.errors import InvalidIdentity

_MAX_TRUST_DOMAIN = 255
_spiffe_id = re.compile(rf"spiffe://([a-z0-9._-]+)/ns/({LABEL})/sa/([a-z0-9.-]+)")
# Kubernetes' DNS-1123 subdomain, whose labels are not limited to 63 characters.
_account = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A workload as mTLS proves it: a service account in a namespace of a trust domain."""

    trust_domain: str
    namespace: Namespace
    service_account: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Read `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

        Raises:
            InvalidIdentity: `uri` has another form. Nothing is normalised: what a certificate
                says must be exactly an ID, or it is none.
        """
        match = _spiffe_id.fullmatch(uri)
        if match is None or len(match[1]) > _MAX_TRUST_DOMAIN or not is_service_account(match[3]):
            raise InvalidIdentity(
                f"{uri[:MAX_NAME]!r} is not a workload's SPIFFE ID: expected "
                "spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
            )
        return cls(match[1], Namespace(match[2]), match[3])

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_service_account(text: str) -> str:
    """Read the name of a service account.

    Raises:
        ValueError: it is none.
    """
    if not is_service_account(text):
        raise ValueError(f"{text!r} is not the name of a service account")
    return text


def is_service_account(text: str) -> bool:
    """Whether Kubernetes would take `text` as the name of a service account."""
    return len(text) <= MAX_NAME and _account.fullmatch(text) is not None


def short_account(service_account: str) -> str:
    """A service account in at most 63 characters, as tokens carry it and grants compare it.

    Longer names (Kubernetes allows 253) become a hash, whose `:` no account's name can hold.
    """
    if len(service_account) <= 63:
        return service_account
    return f"sha256:{hashlib.sha256(service_account.encode()).hexdigest()[:32]}"


def workload_of_uris(uris: Sequence[str]) -> SpiffeId:
    """The workload of a certificate with these URI subject alternative names.

    Raises:
        InvalidIdentity: not exactly one URI, as the X.509-SVID standard (section 2) requires, or
            one that is no workload's SPIFFE ID.
    """
    if len(uris) != 1:
        raise InvalidIdentity(f"the certificate has {len(uris)} URI names, expected exactly one")
    return SpiffeId.parse(uris[0])


def workload_of_xfcc(header: str, *, own: SpiffeId) -> SpiffeId:
    """The client that the proxy in front of us, whose identity is `own`, saw.

    Only the last element of x-forwarded-client-cert counts: the proxy appended it, whatever
    stands before it may come from the client.

    Raises:
        InvalidIdentity: the element is not well-formed, is not by `own`, or has not exactly one
            URI.
    """
    *_, last = _split(header, ",")
    pairs = [pair.strip().partition("=") for pair in _split(last, ";")]
    if [value for key, _, value in pairs if key.lower() == "by"] != [str(own)]:
        raise InvalidIdentity(
            "the last element of x-forwarded-client-cert is not by this service's own proxy: "
            f"expected exactly By={own}"
        )
    return workload_of_uris([_unquote(value) for key, _, value in pairs if key.lower() == "uri"])


def _split(text: str, separator: str) -> Iterator[str]:
    r"""Split where `separator` stands outside double quotes; `\` escapes within them."""
    start, quoted, escaped = 0, False, False
    for position, character in enumerate(text):
        if escaped:
            escaped = False
        elif quoted and character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == separator and not quoted:
            yield text[start:position]
            start = position + 1
    if quoted:
        raise InvalidIdentity("x-forwarded-client-cert has a quotation mark that never closes")
    yield text[start:]


def _unquote(value: str) -> str:
    """Take the quotes off; what was escaped is no SPIFFE ID anyway."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
