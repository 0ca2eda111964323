"""The policy file and what the cluster says, made into one policy.

The file is written by the platform and wins. A namespace's labels count only because tenants cannot
label namespaces. A `Grant` counts for the namespace that it is in and no other, so that a tenant
opens its own door at most. What is bad or loses changes nothing but itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from authz.domain.names import Namespace, is_dns_name
from authz.domain.policy import Grant, Mode, NamespacePolicy, Policy
from authz.wire import MODE_LABEL, TENANT_LABEL

MOST_GRANTS: Final = 100
"""Grants of one namespace that count: nobody fills everybody's memory."""

_MODES: Final = {mode.value: mode for mode in Mode}


class Labels(NamedTuple):
    """What the labels of one namespace say; `None` where there is none."""

    tenant: str | None = None
    mode: str | None = None


class GrantName(NamedTuple):
    """Namespace and name of a `Grant`."""

    namespace: Namespace
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class GrantStatus:
    """Whether a `Grant` counts. `reason` is one word, as conditions have it."""

    accepted: bool
    reason: str
    message: str


ACCEPTED: Final = GrantStatus(True, "Accepted", "this grant counts")


@dataclass(frozen=True)
class Merged:
    """The policy, what became of each grant, and what is wrong with labels, one text each."""

    policy: Policy
    statuses: Mapping[GrantName, GrantStatus]
    problems: tuple[str, ...]


def merge(
    base: Policy,
    labels: Mapping[Namespace, Labels],
    grants: Mapping[GrantName, Grant | str],
    claims: Mapping[str, Namespace] = MappingProxyType({}),
) -> Merged:
    """Add labels, grants and claims to the policy of the file.

    Args:
        base: what the file says.
        labels: of the namespaces that have any of ours.
        grants: the oldest first; a text instead of a grant says what is wrong with it.
        claims: hosts, and the namespace that each is claimed for.
    """
    problems: list[str] = []
    namespaces = dict(base.namespaces)
    for name, said in labels.items():
        namespaces[name] = _labelled(name, base.of(name), said, problems)
    in_file = {(grant.source, grant.destination) for grant in base.grants}
    counted: dict[Namespace, int] = {}
    statuses: dict[GrantName, GrantStatus] = {}
    taken: list[Grant] = []
    for where, grant in grants.items():
        number = counted[where.namespace] = counted.get(where.namespace, 0) + 1
        status = statuses[where] = _judged(where, grant, number, in_file)
        if status.accepted and isinstance(grant, Grant):
            taken.append(grant)
    policy = replace(base, namespaces=namespaces, grants=(*base.grants, *taken), claims=claims)
    return Merged(policy, statuses, tuple(problems))


def _labelled(
    name: Namespace, known: NamespacePolicy, said: Labels, problems: list[str]
) -> NamespacePolicy:
    tenant, mode = known.tenant, known.mode
    if said.tenant is not None:
        if not is_dns_name(said.tenant):
            problems.append(
                f"namespace {name}: label {TENANT_LABEL}: {said.tenant!r} is not the name of a "
                "tenant: use lower-case letters, digits, '-' and '.'"
            )
        elif tenant not in (None, said.tenant):
            problems.append(
                f"namespace {name}: label {TENANT_LABEL}: {said.tenant!r} does not count, the "
                f"policy file says {tenant!r}: remove one of them"
            )
        else:
            tenant = said.tenant
    if said.mode is not None:
        asked = _MODES.get(said.mode)
        if asked is None:
            problems.append(
                f"namespace {name}: label {MODE_LABEL}: {said.mode!r} is not a mode: use "
                f"{', '.join(_MODES)}"
            )
        elif mode not in (None, asked):
            problems.append(
                f"namespace {name}: label {MODE_LABEL}: {said.mode!r} does not count, the policy "
                f"file says '{mode}': remove one of them"
            )
        else:
            mode = asked
    return replace(known, tenant=tenant, mode=mode)


def _judged(
    where: GrantName, grant: Grant | str, number: int, in_file: set[tuple[Namespace, Namespace]]
) -> GrantStatus:
    if isinstance(grant, str):
        return GrantStatus(False, "Invalid", grant)
    if grant.destination != where.namespace:  # whoever made it of an object made a mistake
        return GrantStatus(False, "Invalid", "a grant opens the namespace that it is in, no other")
    if number > MOST_GRANTS:
        return GrantStatus(
            False, "TooMany", f"{where.namespace} has {MOST_GRANTS} older grants: delete some"
        )
    if (grant.source, grant.destination) in in_file:
        return GrantStatus(
            False,
            "Conflict",
            f"the platform's policy file says what {grant.source} may do in "
            f"{grant.destination}, and wins: ask the platform to change or remove it",
        )
    return ACCEPTED
