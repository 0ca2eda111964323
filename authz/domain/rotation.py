"""Changes to a keyring. Each takes a keyring and returns another; storing it is not done here.

Rotation is data, not coordination. A new key is published first and signs later: `delay` is the
longest time for which a replica may miss the store and still never meet a key that it does not
know. The old key verifies until everything that it signed has expired.

Nothing that was settled is forgotten, for `succession` to tell: roots that are over stay known by
their ids for ever, namespaces by their generations.
"""

import secrets
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Final

from authz.domain.keys import SECRET_BYTES, Keyring, NamespaceKeys, RootKey, TokenLife
from authz.domain.names import Namespace
from authz.errors import ClockBehind, KeyringError

MAX_ROOTS: Final = 16


def create(now: float) -> Keyring:
    """A keyring with one new root, which signs at once."""
    return Keyring((_new_root(int(now)),), changed_at=int(now))


def rotate_root(keyring: Keyring, now: float, *, delay: int, life: TokenLife) -> Keyring:
    """Add a root that signs `delay` seconds from now; the others verify long enough after that.

    A root that was to start later than the new one never signs, but goes on verifying for whoever
    has not heard of this.

    Raises:
        KeyringError: 16 roots are there already.
        ClockBehind: it is earlier than when the keyring was last changed.
    """
    now = _moment(keyring, now, life)
    kept = _unspent(keyring.roots, now)
    if len(kept) >= MAX_ROOTS:
        raise KeyringError(
            f"the keyring holds {MAX_ROOTS} root keys already: wait until the first has expired"
        )
    return _changed(keyring, now, roots=_succeeded(kept, now, delay=delay, life=life))


def rotate_namespace(
    keyring: Keyring, namespace: Namespace, now: float, *, delay: int, life: TokenLife
) -> Keyring:
    """Give one namespace a new secret that signs `delay` seconds from now.

    With a delay of 0, a rotation that has not begun to sign begins now. One that has, and still
    lets the secret before it verify, is cut short: tokens made with that one are refused.

    Raises:
        KeyringError: an earlier rotation is not finished, and there is a delay.
        ClockBehind: it is earlier than when the keyring was last changed.
    """
    now = _moment(keyring, now, life)
    keys = keyring.keys_of(namespace)
    if delay and now < keys.previous_until:
        raise KeyringError(
            f"the last rotation of namespace {namespace} still runs for "
            f"{keys.previous_until - int(now)} s: wait, or end it with --now, which refuses "
            "tokens of the key before"
        )
    sign_from = int(now) + delay
    previous_until = sign_from + life.gone_after
    if now < keys.sign_from:  # pending: what it has promised to end by then, ends by then
        previous_until = min(previous_until, keys.previous_until)
        following = NamespaceKeys(keys.generation, sign_from, previous_until)
    else:
        following = NamespaceKeys(keys.generation + 1, sign_from, previous_until)
    return _changed(keyring, now, namespaces={**keyring.namespaces, namespace: following})


def revoke_namespace(keyring: Keyring, namespace: Namespace, now: float) -> Keyring:
    """Make everything that was ever signed for `namespace` invalid at once; sign with a new key.

    It goes by no clock, so that none can be in the way of a revocation.
    """
    following = NamespaceKeys(keyring.keys_of(namespace).generation + 1)
    return _changed(keyring, now, namespaces={**keyring.namespaces, namespace: following})


def revoke_root(keyring: Keyring, root_id: str, now: float, *, life: TokenLife) -> Keyring:
    """Make everything that was ever signed under a root invalid at once, and forget its secret.

    Where it was signing, the next one to start begins at once; one that has stopped signing never
    signs again. Where no other root would remain, a new one signs at once. The revoked root stays
    listed until the last of its tokens would have expired, so that the log can name the reason.

    Raises:
        KeyringError: no such root, or it is revoked already.
    """
    if not any(root.id == root_id and not root.revoked for root in keyring.roots):
        known = ", ".join(root.id for root in keyring.roots if not root.revoked)
        raise KeyringError(f"there is no root key {root_id!r} to revoke; there are: {known}")
    kept = _unspent(keyring.roots, now)
    roots = tuple(_revoked(root, now, life) if root.id == root_id else root for root in kept)
    if all(root.verify_until is not None for root in roots):
        roots = _succeeded(roots, now, delay=-life.leeway, life=life)
    else:
        for signing, following in pairwise(_plan(kept)):
            if signing.id == root_id:
                roots = _brought_forward(roots, signing, following, now, life)
    return _changed(keyring, now, roots=_outliving(roots, now, life))


def revoke_all(
    keyring: Keyring, now: float, *, life: TokenLife, lost: Collection[str] = ()
) -> Keyring:
    """Make everything that was ever signed invalid at once; a new root signs at once.

    Args:
        keyring: perhaps an older copy, which does not know what was revoked since.
        now: in seconds since the epoch.
        life: of tokens.
        lost: ids of roots that were made since, and are lost with the newer copies.
    """
    kept = _unspent(keyring.roots, now)
    roots = tuple(root if root.revoked else _revoked(root, now, life) for root in kept)
    known = replace(keyring, gone=keyring.gone | set(lost) - {root.id for root in keyring.roots})
    return _changed(known, now, roots=_succeeded(roots, now, delay=-life.leeway, life=life))


# -- parts of a change -------------------------------------------------------------------------


def _moment(keyring: Keyring, now: float, life: TokenLife) -> float:
    """When a change is made that goes by the clock; not before the last one."""
    if keyring.changed_at is None:
        return now
    if now + life.leeway < keyring.changed_at:
        raise ClockBehind(now=now, changed_at=keyring.changed_at)
    return max(now, keyring.changed_at)


def _changed(
    keyring: Keyring,
    now: float,
    *,
    roots: tuple[RootKey, ...] | None = None,
    namespaces: dict[Namespace, NamespaceKeys] | None = None,
) -> Keyring:
    """Of roots past their `verify_until`, only the id is kept; of generations, the number."""
    roots = _unspent(keyring.roots, now) if roots is None else roots
    return Keyring(
        roots,
        keyring.namespaces if namespaces is None else namespaces,
        keyring.gone | {root.id for root in keyring.roots} - {root.id for root in roots},
        max(int(now), keyring.changed_at or 0),
    )


def _succeeded(
    roots: Sequence[RootKey], now: float, *, delay: int, life: TokenLife
) -> tuple[RootKey, ...]:
    """A new root, and the others such that it follows them.

    A delay of `-leeway` means at once by every clock: no root that has retired must fill the gap
    where a clock runs behind.
    """
    successor = _new_root(_after_all(roots, int(now) + delay, now, life))
    return (*_retired(roots, successor, life), successor)


def _after_all(roots: Iterable[RootKey], moment: int, now: float, life: TokenLife) -> int:
    """The moment, or when the last of the roots that have started did, whichever is later."""
    # By a clock that runs ahead, a root that is about to start has started.
    reached = now + life.leeway
    started = [root.sign_from for root in roots if root.ever_signs and root.sign_from <= reached]
    return max([moment, *started])


def _retired(roots: Iterable[RootKey], successor: RootKey, life: TokenLife) -> Iterator[RootKey]:
    for root in roots:
        if not root.ever_signs:
            yield root
        elif root.sign_from > successor.sign_from:
            end = root.sign_from + life.gone_after
            yield replace(root, sign_from=end, verify_until=end)
        elif root.verify_until is None:
            yield replace(root, verify_until=successor.sign_from + life.gone_after)
        else:
            yield root


def _revoked(root: RootKey, now: float, life: TokenLife) -> RootKey:
    return RootKey(root.id, b"", root.sign_from, int(now) + life.gone_after, revoked=True)


def _brought_forward(
    roots: tuple[RootKey, ...], signing: RootKey, following: RootKey, now: float, life: TokenLife
) -> tuple[RootKey, ...]:
    """Let the root that follows start at once by every clock, if the one before signs by any.

    It is known everywhere, and those before them have retired.
    """
    plan = _plan(roots)
    earlier = plan[: plan.index(following)]
    start = max([int(now) - life.leeway, *map(_sign_from, earlier)])
    if signing.sign_from > now + life.leeway or start >= following.sign_from:
        return roots
    return tuple(replace(root, sign_from=start) if root is following else root for root in roots)


def _outliving(roots: Sequence[RootKey], now: float, life: TokenLife) -> tuple[RootKey, ...]:
    """Let roots that now sign for longer, since their successor is gone, verify for longer, too."""
    plan = _plan(roots)
    plan = plan[plan.index(Keyring(tuple(roots)).primary(now)) :]
    ends = {root.id: after.sign_from + life.gone_after for root, after in pairwise(plan)}
    return tuple(
        replace(root, verify_until=max(root.verify_until, ends[root.id]))
        if root.verify_until is not None and root.id in ends
        else root
        for root in roots
    )


def _plan(roots: Iterable[RootKey]) -> list[RootKey]:
    """Roots in the order in which they sign; the newest last where several start at once."""
    return sorted((root for root in roots if root.ever_signs), key=_sign_from)


def _sign_from(root: RootKey) -> int:
    return root.sign_from


def _new_root(sign_from: int) -> RootKey:
    return RootKey(secrets.token_hex(4), secrets.token_bytes(SECRET_BYTES), sign_from)


def _unspent(roots: Iterable[RootKey], now: float) -> tuple[RootKey, ...]:
    """Those that are not past their `verify_until`."""
    return tuple(root for root in roots if root.verify_until is None or now < root.verify_until)
