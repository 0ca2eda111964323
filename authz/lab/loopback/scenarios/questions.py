"""What a tenant learns when it calls the service itself."""

from __future__ import annotations

from typing import Final

from authz.lab.loopback import actions
from authz.lab.loopback.actions import Action
from authz.lab.loopback.held import INITECH
from authz.lab.loopback.mesh import ACTIVATOR
from authz.testing import INVALID, NO_ANSWER, NOT_ALLOWED, Case
from authz.wire import HOP

QUESTIONS: Final[list[Case[Action]]] = [
    Case(
        "ask-sign",
        "a tenant asks the service itself for a token: it gets its own",
        "token from mallory to acme-db",
        actions.question("sign"),
    ),
    Case(
        "ask-sign-as-another",
        "and nothing that it claims about itself changes that",
        "token from mallory to acme-db",
        actions.question(
            "sign",
            headers=[("kn-namespace", "acme-web"), actions.CLAIMS_ACTIVATOR],
            metadata=[actions.CLAIMS_ACTIVATOR, ("kn-namespace", "acme-web")],
            principal="spiffe://cluster.local/ns/acme-web/sa/default",
        ),
    ),
    Case(
        "ask-verify",
        "a tenant asks about itself",
        "allowed, token removed",
        actions.question("verify", principal="spiffe://cluster.local/ns/mallory/sa/default"),
    ),
    Case(
        "ask-verify-stolen",
        "a tenant cannot test whether a stolen token is good",
        INVALID,
        actions.question("verify", token=INITECH, principal=str(ACTIVATOR)),
    ),
    Case(
        "ask-transit",
        "a tenant cannot ask what a platform hop asks",
        NOT_ALLOWED,
        actions.question("transit", metadata=[(HOP, "gateway")]),
    ),
    Case("ask-public", "nor what the gateway asks", NOT_ALLOWED, actions.question("public")),
    Case(
        "ask-tcp",
        "a raw TCP connection of another tenant",
        NOT_ALLOWED,
        actions.question("tcp", principal="spiffe://cluster.local/ns/globex/sa/default"),
    ),
    Case(
        "ask-tcp-own",
        "a raw TCP connection of its own",
        "allowed",
        actions.question("tcp", principal="spiffe://cluster.local/ns/mallory/sa/default"),
    ),
    Case("ask-unknown", "an unknown question", NOT_ALLOWED, actions.question("admin")),
    Case("ask-nothing", "no question", NOT_ALLOWED, actions.question()),
    Case("ask-twice", "two questions", NOT_ALLOWED, actions.question("sign", "sign")),
    Case(
        "ask-impostor",
        "a certificate of another authority",
        NO_ANSWER,
        actions.question_of_an_impostor,
    ),
]
