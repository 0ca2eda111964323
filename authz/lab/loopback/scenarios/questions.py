"""What a tenant learns when it calls the service itself."""

from __future__ import annotations

from authz.lab.loopback import moves
from authz.lab.loopback.client import REFUSED
from authz.lab.loopback.mesh import ACTIVATOR
from authz.lab.loopback.scenarios.row import DENIED, INITECH, Scenario
from authz.wire import HOP

QUESTIONS = [
    Scenario(
        "ask-sign",
        "a tenant asks the service itself for a token: it gets its own",
        "token from mallory to acme-db",
        moves.question("sign"),
    ),
    Scenario(
        "ask-sign-as-another",
        "and nothing that it claims about itself changes that",
        "token from mallory to acme-db",
        moves.question(
            "sign",
            headers=[("kn-namespace", "acme-web"), moves.CLAIMS_ACTIVATOR],
            metadata=[moves.CLAIMS_ACTIVATOR, ("kn-namespace", "acme-web")],
            principal="spiffe://cluster.local/ns/acme-web/sa/default",
        ),
    ),
    Scenario(
        "ask-verify",
        "a tenant asks about itself",
        "allowed, token removed",
        moves.question("verify", principal="spiffe://cluster.local/ns/mallory/sa/default"),
    ),
    Scenario(
        "ask-verify-stolen",
        "a tenant cannot test whether a stolen token is good",
        "denied token-invalid",
        moves.question("verify", token=INITECH, principal=str(ACTIVATOR)),
    ),
    Scenario(
        "ask-transit",
        "a tenant cannot ask what a platform hop asks",
        DENIED,
        moves.question("transit", metadata=[(HOP, "gateway")]),
    ),
    Scenario("ask-public", "nor what the gateway asks", DENIED, moves.question("public")),
    Scenario(
        "ask-tcp",
        "a raw TCP connection of another tenant",
        DENIED,
        moves.question("tcp", principal="spiffe://cluster.local/ns/globex/sa/default"),
    ),
    Scenario(
        "ask-tcp-own",
        "a raw TCP connection of its own",
        "allowed",
        moves.question("tcp", principal="spiffe://cluster.local/ns/mallory/sa/default"),
    ),
    Scenario("ask-unknown", "an unknown question", DENIED, moves.question("admin")),
    Scenario("ask-nothing", "no question", DENIED, moves.question()),
    Scenario("ask-twice", "two questions", DENIED, moves.question("sign", "sign")),
    Scenario(
        "ask-impostor",
        "a certificate of another authority",
        REFUSED,
        moves.question_of_an_impostor,
    ),
]
