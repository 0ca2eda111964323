"""Tokens: which namespace a request comes from, and which it is meant for.

    v1.<key id>.<claims>.<mac>

`claims` is base64url of `<source>/<service account>/<destination>/<issued at>/<expires at>`, the
MAC is HMAC-SHA-256 over a label, the version, the key id and the claims. The version fixes the
algorithm: nothing in a token chooses how it is checked. A token is bound to one destination and,
by the decision, to whoever may present it, so it is worth nothing to a receiver or a thief.

Sources: HMAC, RFC 2104; base64url without padding, RFC 4648 section 5.
"""

import binascii
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Final

from authz.domain.identity import short_account
from authz.domain.keys import ROOT_ID, KeyId, Keyring, TokenLife
from authz.domain.names import LABEL, PUBLIC, Namespace
from authz.domain.reason import InvalidToken, Reason

MAX_LENGTH: Final = 512
"""Longest token, in bytes."""

_VERSION = "v1"
_MAC_LABEL = b"tenant-authz token\0"
_GENERATION = r"0|[1-9][0-9]{0,8}"
_SECONDS = r"[1-9][0-9]{0,10}"
_token = re.compile(
    rf"{_VERSION}\.({ROOT_ID})-({_GENERATION})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{{43}})"
)
_claims = re.compile(
    rf"({LABEL}|{PUBLIC})/([a-z0-9.-]{{1,63}}|sha256:[0-9a-f]{{32}}|)/({LABEL})"
    rf"/({_SECONDS})/({_SECONDS})"
)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. Times are in seconds since the epoch.

    `service_account` is in its short form (`identity.short_account`), and empty where no account
    is known: for `@public` and for events.
    """

    source: Namespace
    service_account: str
    destination: Namespace
    issued_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class ReceivedToken:
    """A token that has the right form. Nothing that it says may be believed."""

    key: KeyId
    claims: Claims
    signed: str = field(repr=False)
    mac: str = field(repr=False)


class VerifiedToken:
    """A token that was found good. Only `verify` makes one: to hold it is to have verified it."""

    __slots__ = ("claims", "key")

    def __init__(self, received: ReceivedToken, *, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("only tokens.verify() makes a VerifiedToken")
        self.key = received.key
        self.claims = received.claims


_PROOF = object()


def mint(
    *,
    source: Namespace,
    service_account: str,
    destination: Namespace,
    keyring: Keyring,
    now: float,
    life: TokenLife,
) -> str:
    """Make a token with the key that signs for `source` at `now`.

    `service_account` is the full name, or empty where none is known.
    """
    key = keyring.signing_key(source, now)
    issued_at = life.issued_at(now)
    account = short_account(service_account)
    claims = f"{source}/{account}/{destination}/{issued_at}/{issued_at + life.seconds}"
    signed = f"{_VERSION}.{key.id}.{_encode(claims.encode())}"
    return f"{signed}.{_mac(key.secret, signed)}"


def parse(token: str) -> ReceivedToken:
    """Read what a token says without checking who signed it.

    Raises:
        InvalidToken: it does not have the form of a token.
    """
    match = _token.fullmatch(token) if len(token) <= MAX_LENGTH else None
    claims = None if match is None else _claims.fullmatch(_decode(match[3]))
    if match is None or claims is None:
        raise InvalidToken(Reason.TOKEN_MALFORMED)
    source, account, destination, issued_at, expires_at = claims.groups()
    return ReceivedToken(
        KeyId(match[1], int(match[2])),
        Claims(Namespace(source), account, Namespace(destination), int(issued_at), int(expires_at)),
        signed=token[: match.start(4) - 1],
        mac=match[4],
    )


def verify(
    received: ReceivedToken, *, keyring: Keyring, now: float, life: TokenLife
) -> VerifiedToken:
    """Check key, signature and times, in this order.

    Raises:
        InvalidToken: with the first reason not to believe the token.
    """
    claims = received.claims
    secret = keyring.verifying_secret(claims.source, received.key, now)
    # Comparing what the MAC must look like also refuses any second spelling of the same bytes.
    if not hmac.compare_digest(_mac(secret, received.signed), received.mac):
        raise InvalidToken(Reason.SIGNATURE_WRONG)
    if now >= claims.expires_at:
        raise InvalidToken(Reason.TOKEN_EXPIRED)
    if claims.issued_at > now + life.leeway:
        raise InvalidToken(Reason.TOKEN_FROM_THE_FUTURE)
    return VerifiedToken(received, proof=_PROOF)


def _mac(secret: bytes, signed: str) -> str:
    return _encode(hmac.digest(secret, _MAC_LABEL + signed.encode(), "sha256"))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> str:
    """Undo `_encode`; the empty string, which matches nothing, for any other spelling."""
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return data.decode("ascii") if _encode(data) == text else ""
    except (binascii.Error, UnicodeDecodeError):
        return ""
