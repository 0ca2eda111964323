"""Keys: which secret signs for a namespace now, and which may still verify.

A keyring holds a few root keys and, per namespace, only what differs from the default. The secret
of a namespace is derived from a root, so every namespace has its own from its first request on,
on every replica, without a write or a lookup:

    secret = HKDF-SHA256(root, info = label, namespace, generation)

Selection is by data alone: every replica that holds the same keyring and the same time selects
the same key. Changes are made in `authz.domain.rotation`.

Source: HKDF, RFC 5869.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from authz.domain.names import Namespace
from authz.domain.reason import InvalidToken, Reason
from authz.errors import KeyringError

ROOT_ID: Final = r"[0-9a-f]{8}"
"""A root key's id, as a regular expression without anchors."""

SECRET_BYTES: Final = 32

_INFO = b"tenant-authz namespace secret v1"
_MAX_DERIVED = 8192
_root_id = re.compile(ROOT_ID)


@dataclass(frozen=True, slots=True)
class TokenLife:
    """How long a token is good, in seconds.

    `leeway` is how far the clocks of two replicas may be apart, `reuse` how old a token may be when
    it is put on a request. Tokens are made at multiples of `step` only, so that within one all
    replicas make the same token for the same pair.
    """

    seconds: int = 720
    leeway: int = 30
    reuse: int = 60
    step: int = 1

    def issued_at(self, now: float) -> int:
        """When a token that is made at `now` is said to be made."""
        return int(now) - int(now) % self.step

    @property
    def gone_after(self) -> int:
        """Seconds after which nothing that a key has signed can verify any more, anywhere."""
        return self.seconds + 2 * self.leeway


class KeyId(NamedTuple):
    """Names one derived secret, given its namespace. Written `<root id>-<generation>`."""

    root: str
    generation: int

    def __str__(self) -> str:
        return f"{self.root}-{self.generation}"


class SigningKey(NamedTuple):
    """What a signer needs. Its repr does not show the secret."""

    id: KeyId
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"


def _check_root_id(text: str) -> None:
    if _root_id.fullmatch(text) is None:
        raise KeyringError(f"root key id {text!r} is not 8 hexadecimal digits")


@dataclass(frozen=True, slots=True)
class RootKey:
    """A 256-bit root key. It signs from `sign_from` until a later root does.

    It verifies until `verify_until`; `None` means that no end is set. One that verifies only until
    it would begin to sign was overtaken, and never signs. Times are in seconds since the epoch. A
    revoked root has lost its secret and verifies nothing.
    """

    id: str
    secret: bytes = field(repr=False)
    sign_from: int
    verify_until: int | None = None
    revoked: bool = False

    def __post_init__(self) -> None:
        _check_root_id(self.id)
        if len(self.secret) != (0 if self.revoked else SECRET_BYTES):
            raise KeyringError(f"root key {self.id} does not hold {SECRET_BYTES} secret bytes")

    def verifies(self, now: float) -> bool:
        """Whether tokens signed under this root count at `now`."""
        return not self.revoked and (self.verify_until is None or now < self.verify_until)

    @property
    def ever_signs(self) -> bool:
        """Whether there is, was or will be a time at which it may sign."""
        return not self.revoked and (
            self.verify_until is None or self.sign_from < self.verify_until
        )


@dataclass(frozen=True, slots=True)
class NamespaceKeys:
    """What differs from the default for one namespace.

    `generation` signs from `sign_from`, before that the one below it does. The one below verifies
    until `previous_until`; nothing lower verifies at all. A `previous_until` of 0 says that all
    below `generation` were revoked.
    """

    generation: int = 0
    sign_from: int = 0
    previous_until: int = 0

    def __post_init__(self) -> None:
        if min(self.generation, self.sign_from, self.previous_until) < 0:
            raise KeyringError("a namespace's generation and times cannot be negative")

    def signing_generation(self, now: float) -> int:
        """The generation that signs at `now`."""
        return self.generation if now >= self.sign_from else self.generation - 1


_DEFAULT = NamespaceKeys()


@dataclass(frozen=True)
class Keyring:
    """All keys of the mesh, immutable: a change makes another keyring.

    `gone` has the ids of former roots. They are kept for ever: that is how a keyring is told from
    an older copy, in which such a root still counts. `changed_at` is when the keyring was last
    changed, in seconds since the epoch by the clock of whoever did; `None` where nobody noted it.

    Raises:
        KeyringError: there is no root that verifies without end, or two with one id.
    """

    roots: tuple[RootKey, ...]
    """In the order in which they were made."""
    namespaces: Mapping[Namespace, NamespaceKeys] = field(default_factory=dict, repr=False)
    gone: frozenset[str] = field(default=frozenset(), repr=False)
    changed_at: int | None = None
    _by_id: dict[str, RootKey] = field(init=False, repr=False, compare=False)
    _derived: dict[tuple[Namespace, KeyId], bytes] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "namespaces", MappingProxyType(dict(self.namespaces)))
        object.__setattr__(self, "_by_id", {root.id: root for root in self.roots})
        if len(self._by_id) != len(self.roots) or self.gone & self._by_id.keys():
            raise KeyringError("two root keys of the keyring have the same id")
        for root_id in self.gone:
            _check_root_id(root_id)
        if not any(root.verify_until is None and not root.revoked for root in self.roots):
            raise KeyringError(
                "no root key without verify_until remains: run authz keys rotate --root"
            )

    @classmethod
    def of(cls, *roots: RootKey, **namespaces: NamespaceKeys) -> Self:
        """Make a keyring, for tests and examples."""
        return cls(roots, {Namespace(name): keys for name, keys in namespaces.items()})

    def keys_of(self, namespace: Namespace) -> NamespaceKeys:
        """The namespace's generation and windows; the default where nothing was ever changed."""
        return self.namespaces.get(namespace, _DEFAULT)

    @cached_property
    def revocations(self) -> int:
        """Another number after each revocation, the same on all that hold this keyring; 48 bits.

        A rotation of a namespace that was revoked gives the number of before, which does no harm:
        whoever keeps answers asks once more. 48 bits a float takes, as which protobuf's Struct
        sends it.
        """
        revoked = [root.id for root in self.roots if root.revoked]
        revoked += [
            f"{name}/{keys.generation}"
            for name, keys in self.namespaces.items()
            if keys.generation and not keys.previous_until
        ]
        return int.from_bytes(sha256("\n".join(sorted(revoked)).encode()).digest()[:6])

    def next_change(self, now: float) -> float:
        """When a key next begins to sign or ends to verify; infinity if no change is to come."""
        moments = [time for root in self.roots for time in (root.sign_from, root.verify_until)]
        for keys in self.namespaces.values():
            moments += keys.sign_from, keys.previous_until
        return min((time for time in moments if time is not None and time > now), default=inf)

    def primary(self, now: float) -> RootKey:
        """The root that signs at `now`: of those that have started, the one that started last."""
        # The newest comes first, and is taken where several start at once.
        usable = [root for root in reversed(self.roots) if root.ever_signs and root.verifies(now)]
        if len(usable) == 1:
            return usable[0]
        # Where a clock runs behind and none has started, the first to start is already known to
        # every verifier, so signing with it is right and refusing to sign is not.
        return max(
            (root for root in usable if root.sign_from <= now),
            key=lambda root: root.sign_from,
            default=min(usable, key=lambda root: root.sign_from),
        )

    def signing_key(self, namespace: Namespace, now: float) -> SigningKey:
        """The one key that signs for `namespace` at `now`."""
        generation = self.keys_of(namespace).signing_generation(now)
        key = KeyId(self.primary(now).id, generation)
        return SigningKey(key, self._secret(namespace, key))

    def verifying_secret(self, namespace: Namespace, key: KeyId, now: float) -> bytes:
        """The secret that `key` names for `namespace`, if it still counts at `now`.

        Raises:
            InvalidToken: it is unknown, revoked or rotated out.
        """
        root = self._by_id.get(key.root)
        if root is None:
            raise InvalidToken(Reason.KEY_RETIRED if key.root in self.gone else Reason.KEY_UNKNOWN)
        if root.revoked:
            raise InvalidToken(Reason.KEY_REVOKED)
        if not root.verifies(now):
            raise InvalidToken(Reason.KEY_RETIRED)
        keys = self.keys_of(namespace)
        if key.generation > keys.generation:
            raise InvalidToken(Reason.KEY_UNKNOWN)
        if key.generation < keys.generation:
            if keys.previous_until == 0:
                raise InvalidToken(Reason.KEY_REVOKED)
            if key.generation < keys.generation - 1 or now >= keys.previous_until:
                raise InvalidToken(Reason.KEY_RETIRED)
        return self._secret(namespace, key)

    def _secret(self, namespace: Namespace, key: KeyId) -> bytes:
        try:
            return self._derived[namespace, key]
        except KeyError:
            pass
        info = b"\0".join((_INFO, namespace.encode(), str(key.generation).encode()))
        root = self._by_id[key.root].secret
        secret = HKDF(algorithm=SHA256(), length=SECRET_BYTES, salt=None, info=info).derive(root)
        if len(self._derived) >= _MAX_DERIVED:  # made-up source names must not fill the memory
            self._derived.clear()
        self._derived[namespace, key] = secret
        return secret
