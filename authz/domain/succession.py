"""Which keyring may follow which: a keyring only goes forward.

What was settled stays settled: a root that was revoked or is over, a generation that was left
behind. Changes made in `rotation` never take anything back. An older copy of a keyring does, and so
does whatever is made of it: a revoked key counts again, or one with which somebody signs is
unknown. Versions do not tell: a copy that was changed often enough has the greater one.
"""

from collections.abc import Iterator

from authz.domain.keys import Keyring, NamespaceKeys
from authz.domain.names import Namespace


def missing_roots(held: Keyring, other: Keyring) -> list[str]:
    """Ids of roots that `held` knows and `other` does not.

    Where it was not noted for either when it was changed, a root that ends is not missing: programs
    that do not note it forget roots that are over.
    """
    forgetful = held.changed_at is None and other.changed_at is None
    lasting = {root.id for root in held.roots if root.verify_until is None or not forgetful}
    return sorted((lasting | held.gone) - {root.id for root in other.roots} - other.gone)


def undone(held: Keyring, other: Keyring) -> list[str]:
    """What `held` has settled and `other` takes back, a sentence each; none where it may follow."""
    live = {root.id for root in other.roots if not root.revoked}
    settled = held.gone | {root.id for root in held.roots if root.revoked}
    problems = [
        f"root key {root} counts, though it was revoked or is over" for root in live & settled
    ]
    problems += [f"root key {root} is missing" for root in missing_roots(held, other)]
    if live & {root.id for root in held.roots}:  # else no key that was in use counts any more
        for namespace, keys in held.namespaces.items():
            problems += _undone_keys(namespace, keys, other.keys_of(namespace))
    return sorted(problems)


def _undone_keys(namespace: Namespace, held: NamespaceKeys, other: NamespaceKeys) -> Iterator[str]:
    if other.generation < held.generation:
        yield (
            f"namespace {namespace} is at generation {other.generation}, and was at "
            f"{held.generation}"
        )
    elif other.generation == held.generation and other.previous_until > held.previous_until:
        how = "ended earlier" if held.previous_until else "was revoked"
        yield f"namespace {namespace}: generation {held.generation - 1} counts, though it {how}"
