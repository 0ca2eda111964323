"""A second reading of which answers a proxy may keep, and how long; it imports nothing of ours."""

from __future__ import annotations

from calendar import timegm
from collections.abc import Iterator
from datetime import date
from math import inf
from typing import Any, Final

from tests.oracle.oracle import Answer, answer, proven
from tests.oracle.policy_file import World, roles, said
from tests.oracle.token_format import read
from tests.oracle.where_to import behind, routed

ROWS: Final = {
    "sign": {"leaves-the-mesh", "signed"},
    "verify": {"peer-of-tenant", "peer-granted", "from-outside", "same-tenant", "granted"},
    "transit": {"from-outside", "same-tenant", "granted"},
}


def with_kept(question: str, facts: Any, world: World) -> Answer:
    """The answer, and for how many seconds it may be kept."""
    found = answer(question, facts, world)
    return found._replace(kept=kept(found, question, facts, world))


def kept(found: Answer, question: str, facts: Any, world: World) -> int:
    """How long an answer may be kept, in whole seconds."""
    if found.why == "not-enforced" or found.row not in ROWS.get(question, ()) or not found.allowed:
        return 0
    if question == "transit" and facts.hop != "activator":
        return 0
    if question != "transit" and roles(world.policy, str(facts.caller)):
        return 0
    peer = proven(world.policy, facts.principal)
    if question != "sign" and peer.namespace is None:
        return 0
    source: str | None = facts.caller.namespace
    to: str | None = facts.caller.namespace
    sign, entry = world.reuse
    most, ends = entry, inf
    if question == "sign":
        most, to = sign, routed(facts, world.policy, gateway=False)
    elif found.row.startswith("peer"):
        source = peer.namespace
    if question == "transit":
        to = behind(facts, world.policy)
    shown = found.header if question == "sign" else "".join(facts.tokens[:1])
    if not found.row.startswith("peer") and (token := read(shown)):
        ends = token.issued + max(60, 2 * sign) if found.row == "signed" else token.expires
        source = token.source
    if any(it and not said(world.policy, it, "reuse", True) for it in (source, to)):
        return 0
    later = (moment for moment in moments(world) if moment > world.now)
    return max(0, int(min(most, ends - world.now, min(later, default=inf) - world.now)))


def moments(world: World) -> Iterator[float]:
    """When a key or a grant begins or ends to count."""
    for root in world.keyring.roots:
        yield root.sign_from
        yield inf if root.verify_until is None else root.verify_until
    for keys in world.keyring.namespaces.values():
        yield keys.sign_from
        yield keys.previous_until
    for grant in world.policy.get("grants", []):
        if "until" in grant:
            yield timegm(date.fromisoformat(str(grant["until"])).timetuple()) + 86_400
