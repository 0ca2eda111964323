"""The rows of `sign` and `public`: which token is put on a request."""

from typing import Final

from authz.domain import exposure, tokens
from authz.domain.case import ASKERS, TO_OURSELVES, Case, Row
from authz.domain.destination import only_namespace
from authz.domain.names import PUBLIC as THE_PUBLIC
from authz.domain.policy import Role
from authz.domain.reason import Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction, Parties, SetToken


def _no_gateway(case: Case) -> Deny | None:
    return None if Role.GATEWAY in case.roles else case.refuse_asker(Reason.ROLE_REQUIRED)


def _unreadable(case: Case) -> Allow | None:
    if case.destination is not None or not (upstream := case.unreadable):
        return None
    case.parties = case.parties._replace(upstream=upstream)
    return case.allow(Ground.UPSTREAM_UNREADABLE, HeaderAction.REMOVE)


def _leaves(case: Case) -> Allow | None:
    if case.destination is not None:
        return None
    return case.allow(Ground.LEFT_THE_MESH, HeaderAction.REMOVE)


def _on_behalf(case: Case) -> Allow | None:
    if Role.ON_BEHALF_OF not in case.roles:
        return None
    origin = only_namespace(case.facts.kn_namespace)
    if origin is None:
        return None
    case.parties = Parties(origin, "", case.destination)
    return _signed(case)


def _passed_on(case: Case) -> Allow | None:
    if Role.TRANSIT not in case.roles or not case.facts.tokens or case.destination is None:
        return None
    return case.allow(Ground.PASSED_ON, HeaderAction.KEEP)


def _closed(case: Case) -> Deny | None:
    if case.destination is None:
        return None
    refused = exposure.refusal(case.destination, case.facts, case.policy, case.now)
    if refused is None:
        return None
    owner = exposure.owner_of_route(case.facts)
    case.parties = Parties(THE_PUBLIC, "", case.destination, route_of=owner)
    return case.deny(refused)


def _public(case: Case) -> Allow | None:
    case.parties = Parties(THE_PUBLIC, "", case.destination)
    return _signed(case)


def _signed(case: Case) -> Allow | None:
    """A token from whom the case is told to be, which is S where no row said otherwise."""
    parties, destination = case.parties, case.destination
    if parties.source is None or destination is None:
        return None
    life, now = case.rules.life, case.now
    token = tokens.mint(
        source=parties.source,
        service_account=parties.service_account,
        destination=destination,
        keyring=case.rules.keyring,
        now=now,
        life=life,
    )
    return case.allow(Ground.SIGNED, SetToken(token), good_until=life.issued_at(now) + life.reuse)


_NO_UPSTREAM: Final = Row(
    "upstream-unreadable",
    "D is unknown, and `x-authz-upstream` is no cluster name of istiod's",
    "header removed, and the log says so: a filter is wrong",
    _unreadable,
)
_OUT: Final = Row(
    "leaves-the-mesh",
    "D is unknown",
    "header removed: a token never leaves the mesh",
    _leaves,
    reusable=True,
)

SIGN: Final = (
    *ASKERS,
    _NO_UPSTREAM,
    _OUT,
    TO_OURSELVES,
    # Before the next: what Eventing sends for a tenant carries no token that a tenant slipped in.
    Row(
        "on-behalf-of",
        "S has role `on-behalf-of` and names one valid `Kn-Namespace: N`",
        "token N→D, replacing what it was sent",
        _on_behalf,
    ),
    Row(
        "passed-on",
        "S has role `transit`, and the request carries a token",
        "unchanged: the origin's token passes",
        _passed_on,
    ),
    Row("signed", "else", "token S→D, replacing what the client sent", _signed, reusable=True),
)

PUBLIC: Final = (
    *ASKERS,
    Row(
        "gateway-only",
        "S lacks the role `gateway`",
        "deny `not-allowed`",
        _no_gateway,
        always=True,
    ),
    _NO_UPSTREAM,
    _OUT,
    TO_OURSELVES,
    Row(
        "not-theirs-to-open",
        "the route's owner or the Host's may not open D, or D's list lacks the Service",
        "deny `not-allowed`",
        _closed,
    ),
    Row("public", "else", "token `@public`→D, replacing what the client sent", _public),
)
