"""A second reading of tokens and keyrings, from what the architecture says and the vectors show.

It imports nothing of ours. A keyring is any object with the fields of the program's own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from functools import lru_cache
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
TIME: Final = r"[1-9][0-9]{0,10}"
TEXT: Final = re.compile(
    r"v1\.([0-9a-f]{8})-(0|[1-9][0-9]{0,8})\.([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]{43}"
)
CLAIMS: Final = re.compile(
    rf"(@public|{LABEL})/([a-z0-9.-]{{0,63}}|sha256:[0-9a-f]{{32}})/({LABEL})/({TIME})/({TIME})"
)


class Token(NamedTuple):
    """What a token says."""

    root: str
    generation: int
    source: str
    account: str
    destination: str
    issued: int
    expires: int


@lru_cache(maxsize=20_000)
def secret(root: bytes, namespace: str, generation: int) -> bytes:
    """A namespace's secret."""
    info = f"tenant-authz namespace secret v1\0{namespace}\0{generation}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(root)


def base64url(data: bytes) -> str:
    """Without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def mac(key: bytes, signed: str) -> str:
    """Over the text of a token up to its last dot."""
    return base64url(hmac.digest(key, b"tenant-authz token\0" + signed.encode(), "sha256"))


def write(token: Token, root: bytes) -> str:
    """The text of a token, under the secret of a root."""
    claims = "/".join(map(str, token[2:])).encode()
    signed = f"v1.{token.root}-{token.generation}.{base64url(claims)}"
    return f"{signed}.{mac(secret(root, token.source, token.generation), signed)}"


def read(text: str) -> Token | None:
    """What a token says; `None` if it does not have the form of one."""
    parts = TEXT.fullmatch(text)
    if parts is None or len(text) > 512:
        return None
    try:
        raw = base64.urlsafe_b64decode(parts[3] + "=" * (-len(parts[3]) % 4))
        claims = CLAIMS.fullmatch(raw.decode("ascii"))
    except ValueError:
        return None
    if claims is None or base64url(raw) != parts[3]:
        return None
    source, account, to, issued, expires = claims.groups()
    return Token(parts[1], int(parts[2]), source, account, to, int(issued), int(expires))


def fault(text: str, token: Token, keyring: Any, now: float, leeway: int) -> str | None:
    """Why a token that has the form of one is bad: key, MAC, times, in this order."""
    root = {it.id: it for it in keyring.roots}.get(token.root)
    if root is None:
        return "key-retired" if token.root in keyring.gone else "key-unknown"
    if root.revoked:
        return "key-revoked"
    if root.verify_until is not None and now >= root.verify_until:
        return "key-retired"
    keys = keyring.namespaces.get(token.source)
    newest = keys.generation if keys else 0
    if token.generation > newest:
        return "key-unknown"
    if keys and token.generation < newest:
        if keys.previous_until == 0:
            return "key-revoked"
        if token.generation < newest - 1 or now >= keys.previous_until:
            return "key-retired"
    signed, _, shown = text.rpartition(".")
    if shown != mac(secret(root.secret, token.source, token.generation), signed):
        return "signature-wrong"
    if now >= token.expires:
        return "token-expired"
    return "token-from-the-future" if token.issued > now + leeway else None


def sign(parties: tuple[str, str, str], keyring: Any, now: float, seconds: int, step: int) -> str:
    """A token by the root that began to sign last, in the generation that signs now.

    `parties` are source, account and destination; it is made at a multiple of `step`.
    """
    roots = [
        it
        for it in keyring.roots
        if not it.revoked
        and it.sign_from <= now
        and (it.verify_until is None or it.verify_until > max(now, it.sign_from))
    ]
    root = max(roots, key=lambda it: it.sign_from)
    keys = keyring.namespaces.get(parties[0])
    generation = keys.generation - (now < keys.sign_from) if keys else 0
    issued = int(now) // step * step
    token = Token(root.id, generation, *parties, issued, issued + seconds)
    return write(token, root.secret)


def short(account: str) -> str:
    """A service account as tokens and grants carry it."""
    if len(account) <= 63:
        return account
    return "sha256:" + hashlib.sha256(account.encode()).hexdigest()[:32]
