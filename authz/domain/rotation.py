"""Changes to a keyring. Each takes a keyring and returns another; storing it is not done here.

Rotation is data, not coordination. A new key is published first and signs later: `delay` is the
longest time for which a replica may miss the store and still never meet a key that it does not
know. The old key verifies until everything that it signed has expired.
"""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from authz.domain.keys import SECRET_BYTES, Keyring, NamespaceKeys, RootKey, TokenLife
from authz.domain.names import Namespace
from authz.errors import KeyringError

MAX_ROOTS: Final = 16


def create(now: float) -> Keyring:
    """A keyring with one new root, which signs at once."""
    return Keyring((_new_root(int(now)),))


def rotate_root(keyring: Keyring, now: float, *, delay: int, life: TokenLife) -> Keyring:
    """Add a root that signs `delay` seconds from now; the others verify long enough after that.

    A root that was to start later than the new one never signs, but goes on verifying for whoever
    has not heard of this.

    Raises:
        KeyringError: 16 roots are there already.
    """
    kept = _without_spent(keyring.roots, now)
    if len(kept) >= MAX_ROOTS:
        raise KeyringError(
            f"the keyring holds {MAX_ROOTS} root keys already: wait until the first has expired"
        )
    # By a clock that runs ahead, a root that is about to start has started.
    started = [root.sign_from for root in kept if root.sign_from <= now + life.leeway]
    successor = _new_root(max([int(now) + delay, *started]))
    return Keyring((*_retired(kept, successor, life), successor), keyring.namespaces)


def rotate_namespace(
    keyring: Keyring, namespace: Namespace, now: float, *, delay: int, life: TokenLife
) -> Keyring:
    """Give one namespace a new secret that signs `delay` seconds from now.

    With a delay of 0, a rotation that has not begun to sign begins now. One that has, and still
    lets the secret before it verify, is cut short: tokens made with that one are refused.

    Raises:
        KeyringError: an earlier rotation is not finished, and there is a delay.
    """
    keys = keyring.keys_of(namespace)
    if delay and now < keys.previous_until:
        raise KeyringError(
            f"the last rotation of namespace {namespace} still runs for "
            f"{keys.previous_until - int(now)} s: wait, or end it with --now, which refuses "
            "tokens of the key before"
        )
    pending = now < keys.sign_from
    sign_from = int(now) + delay
    generation = keys.generation if pending else keys.generation + 1
    following = NamespaceKeys(generation, sign_from, sign_from + life.gone_after)
    return _with_namespace(keyring, namespace, following, now)


def revoke_namespace(keyring: Keyring, namespace: Namespace, now: float) -> Keyring:
    """Make everything that was ever signed for `namespace` invalid at once; sign with a new key."""
    following = NamespaceKeys(keyring.keys_of(namespace).generation + 1)
    return _with_namespace(keyring, namespace, following, now)


def revoke_root(keyring: Keyring, root_id: str, now: float, *, life: TokenLife) -> Keyring:
    """Make everything that was ever signed under a root invalid at once, and forget its secret.

    Where no other root would remain, a new one signs at once. The revoked root stays listed until
    the last of its tokens would have expired, so that the log can name the reason.

    Raises:
        KeyringError: no such root, or it is revoked already.
    """
    if not any(root.id == root_id and not root.revoked for root in keyring.roots):
        known = ", ".join(root.id for root in keyring.roots if not root.revoked)
        raise KeyringError(f"there is no root key {root_id!r} to revoke; there are: {known}")
    roots = [
        RootKey(root.id, b"", root.sign_from, int(now) + life.gone_after, revoked=True)
        if root.id == root_id
        else root
        for root in _without_spent(keyring.roots, now)
    ]
    if not any(root.verify_until is None for root in roots):
        roots.append(_new_root(int(now)))
    return Keyring(tuple(_outliving(roots, life)), keyring.namespaces)


def _retired(roots: tuple[RootKey, ...], successor: RootKey, life: TokenLife) -> Iterator[RootKey]:
    for root in roots:
        if root.revoked:
            yield root
        elif root.sign_from > successor.sign_from:
            end = root.sign_from + life.gone_after
            yield replace(root, sign_from=end, verify_until=end)
        elif root.verify_until is None:
            yield replace(root, verify_until=successor.sign_from + life.gone_after)
        else:
            yield root


def _outliving(roots: list[RootKey], life: TokenLife) -> Iterator[RootKey]:
    """Let roots that now sign for longer, since their successor is gone, verify for longer, too."""
    starts = sorted(root.sign_from for root in roots if not root.revoked)
    for root in roots:
        successor = next((start for start in starts if start > root.sign_from), None)
        end = root.verify_until
        if root.revoked or end is None or successor is None or end <= root.sign_from:
            yield root
        else:
            yield replace(root, verify_until=max(end, successor + life.gone_after))


def _new_root(sign_from: int) -> RootKey:
    return RootKey(secrets.token_hex(4), secrets.token_bytes(SECRET_BYTES), sign_from)


def _with_namespace(
    keyring: Keyring, namespace: Namespace, keys: NamespaceKeys, now: float
) -> Keyring:
    roots = _without_spent(keyring.roots, now)
    return Keyring(roots, {**keyring.namespaces, namespace: keys})


def _without_spent(roots: tuple[RootKey, ...], now: float) -> tuple[RootKey, ...]:
    """Drop roots past their `verify_until`. Generations stay for ever: they must not restart."""
    return tuple(root for root in roots if root.verify_until is None or now < root.verify_until)
