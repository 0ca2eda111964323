"""A keyring as one sealed record: how it is written as bytes, and read again.

    offset  bytes
         0      8  magic, b"AUTHZKEY"
         8      2  format, 2
        10      4  id of the KEK
        14      8  version of the keyring, from 1
        22     12  nonce, random
        34         AES-256-GCM of the content under the KEK; the last 16 bytes are its tag

Numbers are big-endian. The first 34 bytes are the associated data, so a record cannot be passed
off as another version, nor as one of another format. The content is JSON without spaces:

    {"roots": [[id, base64 of the secret, sign_from, verify_until or null, revoked], ...],
     "namespaces": [[name, generation, sign_from, previous_until], ...],
     "gone": [id, ...], "changed_at": seconds or null,
     "history": [[version, at, by, what, reason], ...]}

`history` may be missing. Format 1 lacks the last two lines. It is read, and the next change writes
format 2, which a program that knows format 1 only refuses to read and thereby to change: it would
drop what must be kept.

Source: AES-GCM with a random 96-bit nonce, NIST SP 800-38D section 8.2.2; it allows 2^32 records
under one KEK.
"""

import base64
import json
import secrets
import struct
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authz.domain.keys import Keyring, NamespaceKeys, RootKey
from authz.domain.names import Namespace
from authz.errors import KeyringError, KeyStoreError
from authz.keystore import history as past
from authz.keystore.keks import Kek, Keks

FORMAT: Final = 2

_MAGIC = b"AUTHZKEY"
_NONCE_BYTES = 12
_header = struct.Struct(f">8sH4sQ{_NONCE_BYTES}s")


class Unsealed(NamedTuple):
    """What a record held, and the KEK that opened it."""

    keyring: Keyring
    version: int
    kek: Kek
    history: past.History = ()


def seal(keyring: Keyring, version: int, kek: Kek, history: past.History = ()) -> bytes:
    """Make the record of `version`. Two records of the same keyring always differ."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    header = _header.pack(_MAGIC, FORMAT, bytes.fromhex(kek.id), version, nonce)
    return header + AESGCM(kek.secret).encrypt(nonce, _to_json(keyring, history), header)


def unseal(record: bytes, keks: Keks) -> Unsealed:
    """Read a record.

    Raises:
        KeyStoreError: it is damaged, sealed under a KEK that is not among `keks`, or written by a
            newer version of this program.
    """
    damaged = KeyStoreError("the sealed keyring is damaged: restore a backup")
    if len(record) < _header.size:
        raise damaged
    header = record[: _header.size]
    magic, form, kek_bytes, version, nonce = _header.unpack(header)
    if magic != _MAGIC:
        raise damaged
    if form > FORMAT:
        raise KeyStoreError(
            f"the keyring is sealed in format {form} and this program reads up to format "
            f"{FORMAT}: a newer version wrote it, so upgrade this one"
        )
    kek = keks.find(kek_bytes.hex())
    if kek is None:
        raise KeyStoreError(
            f"the keyring is sealed under KEK {kek_bytes.hex()}; readable here: {keks}. "
            "Configure the file of that KEK too"
        )
    try:
        content = AESGCM(kek.secret).decrypt(nonce, record[_header.size :], header)
    except InvalidTag:
        raise damaged from None
    keyring, history = _from_json(content, form, version)
    return Unsealed(keyring, version, kek, history)


def _to_json(keyring: Keyring, history: past.History) -> bytes:
    roots = [
        [
            root.id,
            base64.b64encode(root.secret).decode(),
            root.sign_from,
            root.verify_until,
            root.revoked,
        ]
        for root in keyring.roots
    ]
    namespaces = [
        [name, keys.generation, keys.sign_from, keys.previous_until]
        for name, keys in sorted(keyring.namespaces.items())
    ]
    content = {
        "roots": roots,
        "namespaces": namespaces,
        "gone": sorted(keyring.gone),
        "changed_at": keyring.changed_at,
        **({"history": past.as_json(history)} if history else {}),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _from_json(content: bytes, form: int, version: int) -> tuple[Keyring, past.History]:
    try:
        value: Any = json.loads(content)
        roots = tuple(
            RootKey(root_id, base64.b64decode(secret), sign_from, verify_until, revoked)
            for root_id, secret, sign_from, verify_until, revoked in value["roots"]
        )
        namespaces = {
            Namespace(name): NamespaceKeys(*numbers) for name, *numbers in value["namespaces"]
        }
        if form == 1:
            return Keyring(roots, namespaces), ()
        keyring = Keyring(roots, namespaces, frozenset(value["gone"]), value["changed_at"])
        return keyring, past.from_json(value.get("history"), version)
    except (ValueError, TypeError, LookupError, KeyringError):
        # The tag fits, so this is what somebody with the KEK wrote. The cause may quote secrets.
        raise KeyStoreError(
            "the keyring was sealed by another program, or by a faulty version of this one: "
            "restore a backup"
        ) from None
