"""The rows of `verify`, `transit` and `tcp`: whether a request is let in, or passed on.

`transit` is asked on a hop in between: behind it every request has the hop's identity, so it is
there that whoever presents a token is checked.
"""

from typing import Final

from authz.domain import exposure, tokens
from authz.domain.case import ASKERS, TO_OURSELVES, Case, Row
from authz.domain.facts import BY_PATH, Hop
from authz.domain.identity import short_account
from authz.domain.names import PUBLIC, Namespace
from authz.domain.policy import (
    ANSWERED_BY_THE_ACTIVATOR,
    RELAYING,
    ROLE_EXEMPTIONS,
    Exemption,
    Role,
)
from authz.domain.reason import InvalidToken, Reason
from authz.domain.verdict import Allow, Deny, Ground

# -- hops --------------------------------------------------------------------------------------


def _no_hop(case: Case) -> Deny | None:
    return None if Role.TRANSIT in case.roles else case.refuse_asker(Reason.ROLE_REQUIRED)


def _nowhere(case: Case) -> Deny | None:
    if case.destination is not None:
        return None
    if case.hop is Hop.GATEWAY and (upstream := case.unreadable):
        case.parties = case.parties._replace(upstream=upstream)
        return case.deny(Reason.UPSTREAM_UNREADABLE)
    return case.deny(Reason.DESTINATION_UNKNOWN)


def _probe_of_the_hop(case: Case) -> Allow | None:
    """Others would be passed on: they could wake a pod, and bring somebody's token to it."""
    if case.hop is not Hop.ACTIVATOR:
        return None
    answered = [
        each for each in _exemptions(case) if each.network_probe in ANSWERED_BY_THE_ACTIVATOR
    ]
    return _exempt_by(answered, case)


# -- peers -------------------------------------------------------------------------------------


def _exempt(case: Case) -> Allow | None:
    if case.peer_roles and not case.facts.queue_proxy:  # the app would see what only it answers
        return None
    return _exempt_by(_exemptions(case), case)


def _exempt_by(exemptions: list[Exemption], case: Case) -> Allow | None:
    facts = case.facts
    for exemption in exemptions:
        if exemption.covers(
            port=facts.port,
            path=facts.path,
            user_agent=facts.user_agent,
            network_probe=facts.network_probe,
            method=facts.method,
        ):
            return case.let_in(Ground.EXEMPT)
    return None


def _exemptions(case: Case) -> list[Exemption]:
    """For a peer with a role only those of its role: what it brings may be anybody's."""
    if case.peer is None:
        return []
    if case.peer_roles:
        return [known for role in case.peer_roles for known in ROLE_EXEMPTIONS.get(role, ())]
    return list(case.policy.exemptions.get(case.peer, ()))


def _peer_of_tenant(case: Case) -> Allow | None:
    peer = case.peer
    if peer is None or case.peer_roles or not case.of_tenant(peer.namespace):
        return None
    return case.let_in(Ground.PROVEN_PEER)


def _peer_granted(case: Case) -> Allow | None:
    peer = case.peer
    if peer is None or case.peer_roles:
        return None
    grant = case.grant_to(peer.namespace, short_account(peer.service_account))
    return None if grant is None else case.let_in(Ground.PROVEN_PEER, grant=grant)


def _peer_unproven(case: Case) -> Deny:
    return case.deny(Reason.PEER_UNPROVEN)


# -- tokens ------------------------------------------------------------------------------------


def _no_token(case: Case) -> Deny | None:
    return None if case.facts.tokens else case.deny(Reason.TOKEN_MISSING)


def _several_tokens(case: Case) -> Deny | None:
    return case.deny(Reason.TOKEN_REPEATED) if len(case.facts.tokens) > 1 else None


def _bad_token(case: Case) -> Deny | None:
    """Whoever passes here gives the rows below its claims; without it they let nobody in."""
    rules, parties = case.rules, case.parties
    try:
        received = tokens.parse(case.facts.tokens[0])
        case.parties = parties._replace(key=received.key, claimed_source=received.claims.source)
        verified = tokens.verify(received, keyring=rules.keyring, now=case.now, life=rules.life)
    except InvalidToken as error:
        return case.deny(error.reason)
    claims = case.claims = verified.claims
    case.parties = parties._replace(
        source=claims.source, service_account=claims.service_account, key=received.key
    )
    return None


def _meant_for_another(case: Case) -> Deny | None:
    if case.claims is None or case.claims.destination in _meant_for(case):
        return None
    return case.deny(Reason.MEANT_FOR_ANOTHER_NAMESPACE)


def _meant_for(case: Case) -> tuple[Namespace | None, ...]:
    """The namespaces for one of which a token must be made.

    Where the hop chooses by the path, a token was made for the hop itself: whoever signed saw
    where the request goes, and not what its path means there. The broker's ingress carries it
    on to the channel.
    """
    if case.hop is Hop.CHANNEL:
        return case.destination, case.facts.caller.namespace
    if case.hop in BY_PATH:
        return (case.facts.caller.namespace,)
    return (case.destination,)


def _stranger(case: Case) -> Deny | None:
    if case.claims is None or _may_present(case, case.claims.source):
        return None
    return case.deny(Reason.PRESENTED_BY_A_STRANGER)


def _may_present(case: Case, source: Namespace) -> bool:
    """A token counts only from its source or from the platform: a thief has nothing."""
    if case.peer is None:
        if case.facts.principal or case.destination is None:
            return False
        return case.policy.of(case.destination).plaintext_peers
    if case.peer_roles & RELAYING:
        return True
    return source != PUBLIC and (
        case.peer.namespace == source or Role.ON_BEHALF_OF in case.peer_roles
    )


def _not_public(case: Case) -> Deny | None:
    if not _from_outside(case) or _accepts_public(case):
        return None
    return case.deny(Reason.NOT_PUBLIC)


def _public(case: Case) -> Allow | None:
    if case.claims is None or not _from_outside(case) or case.destination is None:
        return None
    return case.let_in(Ground.FROM_OUTSIDE, good_until=case.claims.expires_at)


def _from_outside(case: Case) -> bool:
    return case.claims is not None and case.claims.source == PUBLIC


def _accepts_public(case: Case) -> bool:
    if case.destination is None:
        return False
    return exposure.is_open(case.policy.accepts_public(case.destination), _service_behind(case))


def _service_behind(case: Case) -> str | None:
    """The Service that a hop sends a request to; empty if it is none, `None` if it was seen before.

    The activator is a Service's endpoint and a pod is its end. An event goes to none.
    """
    if case.hop is Hop.GATEWAY:
        return exposure.called_service(case.facts, case.policy)
    return "" if case.hop in BY_PATH else None


def _same_tenant(case: Case) -> Allow | None:
    if case.claims is None or not case.of_tenant(case.claims.source):
        return None
    return case.let_in(Ground.SAME_TENANT, good_until=case.claims.expires_at)


def _granted(case: Case) -> Allow | None:
    claims = case.claims
    if claims is None:
        return None
    grant = case.grant_to(claims.source, claims.service_account)
    if grant is None:
        return None
    return case.let_in(Ground.GRANTED, grant=grant, good_until=claims.expires_at)


def _no_grant(case: Case) -> Deny:
    return case.deny(Reason.NO_GRANT)


# -- tables ------------------------------------------------------------------------------------

_TOKEN: Final = (
    Row("token-missing", "no token", "deny `token-missing`", _no_token),
    Row("token-repeated", "several tokens", "deny `token-invalid`", _several_tokens),
    Row(
        "token-bad",
        "malformed, unknown or revoked key, wrong MAC, expired, from the future",
        "deny `token-invalid`",
        _bad_token,
    ),
    Row(
        "meant-for-another",
        "the token is for another namespace",
        "deny `token-invalid`",
        _meant_for_another,
    ),
    Row(
        "stranger",
        "P is not of the token's source namespace, and has no role (for `@public`: neither "
        "`transit` nor `gateway`)",
        "deny `token-invalid`",
        _stranger,
    ),
    Row("not-public", "source is `@public`, and D refuses it", "deny `not-allowed`", _not_public),
    Row("from-outside", "source is `@public`", "allow", _public, reusable=True),
    Row("same-tenant", "source is of D's tenant", "allow", _same_tenant, reusable=True),
    Row("granted", "D grants the source access", "allow", _granted, reusable=True),
    Row("no-grant", "else", "deny `not-allowed`", _no_grant),
)
_PEER: Final = (
    Row(
        "exempt",
        "an exemption matches P, the port and every other field that it gives; if P holds a role, "
        "the pod has queue-proxy",
        "allow",
        _exempt,
    ),
    Row(
        "peer-of-tenant",
        "P is an ordinary workload of D's tenant",
        "allow, token or not: mTLS proves the origin",
        _peer_of_tenant,
        reusable=True,
    ),
    Row(
        "peer-granted",
        "P is an ordinary workload that D grants access",
        "allow, token or not: mTLS proves the origin",
        _peer_granted,
        reusable=True,
    ),
)

VERIFY: Final = (*ASKERS, *_PEER, *_TOKEN)
TRANSIT: Final = (
    *ASKERS,
    Row(
        "hop-only",
        "S lacks the role `transit`",
        "deny `not-allowed`",
        _no_hop,
        always=True,
    ),
    Row("nowhere", "D is unknown", "deny `not-allowed`", _nowhere, always=True),
    TO_OURSELVES,
    Row(
        "probe",
        "S asks as the activator, and an exemption of P names a `K-Network-Probe` that it answers "
        "itself: `activator` or `probe`",
        "allow",
        _probe_of_the_hop,
    ),
    *_TOKEN,
)
TCP: Final = (
    *ASKERS,
    *_PEER,
    Row("peer-unproven", "else", "deny `not-allowed`: no token opens it", _peer_unproven),
)
