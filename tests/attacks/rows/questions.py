"""Our own port: every pod of the mesh can reach it, with its own certificate."""

from __future__ import annotations

from typing import Final

from authz.testing import INVALID, NOT_ALLOWED
from tests.attacks import rules
from tests.attacks.actions import asks, signed, upstream
from tests.attacks.box import Without
from tests.attacks.row import MUTATION, ROW, Attack, Played

UPSTREAM: Final = ("x-authz-upstream", upstream("hello-00001.acme-db"))
TWIN: Final = Played(
    asks("acme-web/plain", ("x-authz-question", "sign"), UPSTREAM), "token from acme-web to acme-db"
)
CLAIMS: Final = (
    "x-forwarded-client-cert",
    "URI=spiffe://cluster.local/ns/knative-serving/sa/activator",
)


def _asks(
    name: str,
    does: str,
    stopped_by: str,
    *metadata: tuple[str, str],
    outcome: str = NOT_ALLOWED,
    without: Without | None = None,
    gets: str = "",
    noticed: str = "",
    **how: object,
) -> Attack:
    return Attack(
        f"ask-{name}",
        does,
        stopped_by,
        Played(asks("mallory/plain", *metadata, **how), outcome),  # type: ignore[arg-type]
        TWIN,
        without,
        gets,
        noticed,
    )


ROWS: Final = [
    _asks(
        "sign-as-another",
        "asks for a token and claims in every way to be acme-web",
        "who asks is the certificate of the connection",
        ("x-authz-question", "sign"),
        UPSTREAM,
        CLAIMS,
        ("kn-namespace", "acme-web"),
        outcome="token from mallory to acme-db",
        principal="spiffe://cluster.local/ns/acme-web/sa/plain",
        headers=[("kn-namespace", "acme-web")],
        without=rules.ON_BEHALF,
        gets="token from acme-web to acme-db",
    ),
    _asks(
        "public",
        "asks for a token of @public",
        "public needs the role gateway",
        ("x-authz-question", "public"),
        UPSTREAM,
        without=rules.PUBLIC_ROLE,
        route_of="acme-db",
        gets="token from @public to acme-db",
    ),
    *(
        _asks(
            f"transit-{hop}",
            f"asks transit as the hop `{hop}`: may acme-web's token pass? (an oracle for grants"
            " and stolen tokens)",
            "transit needs the role transit",
            ("x-authz-question", "transit"),
            ("x-authz-hop", hop),
            UPSTREAM,
            CLAIMS,
            token=signed("acme-web/plain", "hello-00001.acme-db"),
            principal="spiffe://cluster.local/ns/acme-web/sa/plain",
            headers=[
                ("knative-serving-namespace", "acme-db"),
                ("knative-serving-revision", "x"),
            ],
            without=rules.TRANSIT_ROLE if hop in {"gateway", "activator"} else None,
            gets="allowed" if hop in {"gateway", "activator"} else "",
            noticed=""
            if hop in {"gateway", "activator"}
            else "tests/decision/test_modes.py::test_transit_needs_its_role",
        )
        for hop in ("gateway", "activator", "broker", "trigger", "channel")
    ),
    _asks(
        "verify-stolen",
        "asks verify whether a stolen token is good, as if the activator showed it",
        "verify is about the asking namespace; a token for another is invalid",
        ("x-authz-question", "verify"),
        outcome=INVALID,
        token=signed("acme-web/plain", "hello-00001.acme-db"),
        principal="spiffe://cluster.local/ns/knative-serving/sa/activator",
        noticed=f"{ROW}[verify-meant-for-another]",
    ),
    _asks(
        "tcp",
        "asks tcp about acme-web as a peer",
        "tcp is about the asking namespace",
        ("x-authz-question", "tcp"),
        principal="spiffe://cluster.local/ns/acme-web/sa/plain",
        noticed=f"{MUTATION}[every peer is an allowed peer]",
    ),
    _asks(
        "nothing",
        "asks without a question",
        "no question, no answer but a denial",
        without=rules.ANY_QUESTION,
        gets="allowed, token removed",
    ),
    *(
        _asks(
            f"word-{number}",
            f"asks `{', '.join(words)}`",
            "one question out of five",
            *(("x-authz-question", word) for word in words),
            UPSTREAM,
            without=rules.ANY_QUESTION,
            gets="token from mallory to acme-db",
        )
        for number, words in enumerate(
            (
                ("admin",),
                ("SIGN",),
                ("sign", "sign"),
                ("verify", "sign"),
                ("sign,transit",),
                ("explain",),
                ("",),
            )
        )
    ),
    Attack(
        "ask-foreign-domain",
        "asks with a certificate of the same authority in another trust domain",
        "the policy lists the trust domains that count",
        Played(
            asks(
                "spiffe://other.domain/ns/acme-web/sa/plain", ("x-authz-question", "sign"), UPSTREAM
            ),
            NOT_ALLOWED,
        ),
        TWIN,
        rules.ANY_CALLER,
        "token from acme-web to acme-db",
    ),
    _asks(
        "two-upstreams",
        "names two upstreams",
        "a repeated upstream is none",
        ("x-authz-question", "sign"),
        UPSTREAM,
        ("x-authz-upstream", upstream("hello-00001.mallory")),
        outcome="allowed, token removed",
        noticed="tests/test_extauthz.py::test_a_repeated_upstream_is_unreadable_not_absent",
    ),
    Attack(
        "ask-without-certificate",
        "asks without a certificate, or with one of its own authority",
        "TLS: a certificate of the mesh's authority",
        "tests/transport/test_behaviour.py::test_a_client_of_another_authority_is_refused",
        noticed="tests/transport/test_behaviour.py::test_a_client_without_certificate_is_refused",
    ),
]
