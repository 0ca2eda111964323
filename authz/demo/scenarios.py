"""The matrix: who calls whom on which way, and what must come of it.

Each denial has its twin beside it, the nearest call that is right and passes. They are played in
this order: the last ones stop the service, change its keys and go on with what is left.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from authz.demo import moves
from authz.demo.client import REFUSED
from authz.demo.moves import Move, Stage

NOT_ALLOWED: Final = "403 not-allowed"
MISSING: Final = "403 token-missing"
INVALID: Final = "403 token-invalid"
DENIED: Final = "denied not-allowed"
OUTAGE: Final = "503"


@dataclass(frozen=True)
class Scenario:
    """One row: what is played, and what must be seen."""

    name: str
    shows: str
    expected: str
    play: Move


@dataclass(frozen=True)
class Result:
    """What was seen."""

    scenario: Scenario
    seen: str

    @property
    def ok(self) -> bool:
        """Whether it is what was expected."""
        return self.seen == self.scenario.expected


async def played(stage: Stage) -> AsyncIterator[Result]:
    """Play all scenarios, one after the other."""
    for scenario in SCENARIOS:
        try:
            seen = await scenario.play(stage)
        except Exception as error:  # noqa: BLE001 - a scenario that breaks is a difference, not the end
            seen = f"{type(error).__name__}: {error}"
        yield Result(scenario, seen)


def _app(namespace: str) -> str:
    return f"app.{namespace}.svc.cluster.local"


def _idle(namespace: str) -> str:
    """The same app, scaled to zero: requests pass the activator."""
    return f"app-idle.{namespace}.svc.cluster.local"


_INITECH = moves.stolen("initech", "acme-db")

_CALLS = [
    Scenario(
        "own-namespace",
        "a call within a namespace",
        "200 acme-web",
        moves.through_sidecar("acme-web", _app("acme-web")),
    ),
    Scenario(
        "own-namespace-by-ip",
        "the same by the service's cluster IP",
        "200 acme-web",
        moves.through_sidecar("acme-web", "10.96.1.1"),
    ),
    Scenario(
        "own-namespace-through-hop",
        "the same through the activator, which all tenants share",
        "200 acme-web",
        moves.through_sidecar("acme-web", _idle("acme-web")),
    ),
    Scenario(
        "sibling",
        "a call to the tenant's other namespace",
        "200 acme-db",
        moves.through_sidecar("acme-web", _app("acme-db")),
    ),
    Scenario(
        "sibling-through-hop",
        "the same through the activator",
        "200 acme-db",
        moves.through_sidecar("acme-web", _idle("acme-db")),
    ),
    Scenario(
        "sibling-by-short-name",
        "the same by the name app.acme-db",
        "200 acme-db",
        moves.through_sidecar("acme-web", "app.acme-db"),
    ),
    Scenario(
        "foreign",
        "a call to another tenant",
        NOT_ALLOWED,
        moves.through_sidecar("globex", _app("acme-db")),
    ),
    Scenario(
        "foreign-through-hop",
        "the same through the activator, behind which mTLS says nothing",
        NOT_ALLOWED,
        moves.through_sidecar("globex", _idle("acme-db")),
    ),
    Scenario(
        "foreign-by-ip",
        "the same by the service's cluster IP",
        NOT_ALLOWED,
        moves.through_sidecar("globex", "10.96.2.1"),
    ),
    Scenario(
        "granted",
        "a call that the destination grants",
        "200 acme-db",
        moves.through_sidecar("initech", _app("acme-db")),
    ),
    Scenario(
        "granted-through-hop",
        "the same through the activator",
        "200 acme-db",
        moves.through_sidecar("initech", _idle("acme-db")),
    ),
    Scenario(
        "granted-elsewhere",
        "the grant is for one namespace, not for its tenant",
        NOT_ALLOWED,
        moves.through_sidecar("initech", _app("acme-web")),
    ),
    Scenario(
        "granted-backwards",
        "a grant goes one way",
        NOT_ALLOWED,
        moves.through_sidecar("acme-db", _app("initech")),
    ),
    Scenario(
        "shadow",
        "shadow mode lets a foreign call in, and still takes the token off",
        "200 umbrella",
        moves.through_sidecar("globex", _app("umbrella")),
    ),
    Scenario(
        "shadow-through-hop",
        "the same through the activator",
        "200 umbrella",
        moves.through_sidecar("globex", _idle("umbrella")),
    ),
    Scenario(
        "shadow-outwards",
        "whoever is in shadow mode is not let in elsewhere",
        NOT_ALLOWED,
        moves.through_sidecar("umbrella", _app("acme-db")),
    ),
]

_OUTSIDE = [
    Scenario(
        "external",
        "a call out of the mesh arrives, and the token that the app adds does not",
        "200 external",
        moves.to_address("acme-web", moves.external, "api.example.org"),
    ),
    Scenario(
        "hostile-pod-by-ip",
        "a webhook to the IP of a hostile pod that listens past its sidecar: no token arrives",
        "200 mallory",
        moves.to_address("acme-web", moves.process_of("mallory")),
    ),
    Scenario(
        "hostile-pod-by-name",
        "the same by a DNS name that any IP has in any namespace",
        "200 mallory",
        moves.to_address(
            "acme-web", moves.process_of("mallory"), "10-1-2-3.acme-db.pod.cluster.local"
        ),
    ),
    Scenario(
        "public",
        "a request from outside through the public gateway",
        "200 acme-web",
        moves.from_outside("acme-web.example.com"),
    ),
    Scenario(
        "public-through-hop",
        "the same to a pod that sleeps, through gateway and activator",
        "200 acme-web",
        moves.from_outside("idle.acme-web.example.com"),
    ),
    Scenario(
        "public-refused",
        "a namespace that is not public, though a route leads to it",
        NOT_ALLOWED,
        moves.from_outside("acme-db.example.com"),
    ),
    Scenario(
        "public-with-stolen-token",
        "the gateway replaces a token that comes from outside, even a real one",
        NOT_ALLOWED,
        moves.from_outside("acme-db.example.com", moves.stolen("acme-web", "acme-db")),
    ),
]

_TOKENS = [
    Scenario(
        "own-token",
        "a pod speaks mTLS itself and shows its own token at the activator",
        "200 acme-db",
        moves.past_sidecar("initech", "acme-db", _INITECH, hop=True),
    ),
    Scenario(
        "forged-behind-sidecar",
        "the sidecar replaces a token that the app made up",
        NOT_ALLOWED,
        moves.through_sidecar("mallory", _app("acme-db"), [(moves.TOKEN_HEADER, "v1.forged")]),
    ),
    Scenario(
        "forged",
        "a token that is right in all but the secret",
        INVALID,
        moves.past_sidecar("mallory", "acme-db", moves.forged("mallory", "acme-db")),
    ),
    Scenario(
        "forged-through-hop",
        "the same for a source that is allowed, at the activator",
        INVALID,
        moves.past_sidecar("initech", "acme-db", moves.forged("initech", "acme-db"), hop=True),
    ),
    Scenario(
        "expired",
        "a real token that is too old",
        INVALID,
        moves.past_sidecar("initech", "acme-db", moves.expired("initech", "acme-db"), hop=True),
    ),
    Scenario(
        "duplicated",
        "two tokens, both good",
        INVALID,
        moves.past_sidecar("initech", "acme-db", _INITECH, _INITECH, hop=True),
    ),
    Scenario(
        "stolen",
        "another tenant presents a good token",
        INVALID,
        moves.past_sidecar("mallory", "acme-db", _INITECH),
    ),
    Scenario(
        "stolen-through-hop",
        "the same at the activator",
        INVALID,
        moves.past_sidecar("mallory", "acme-db", _INITECH, hop=True),
    ),
    Scenario(
        "stolen-from-gateway",
        "a tenant presents the gateway's token",
        INVALID,
        moves.past_sidecar("mallory", "acme-web", moves.public("acme-web")),
    ),
    Scenario(
        "replayed-elsewhere",
        "the owner shows a token to another namespace than it was made for",
        INVALID,
        moves.past_sidecar("initech", "globex", _INITECH),
    ),
    Scenario(
        "replayed-elsewhere-through-hop",
        "the same at the activator",
        INVALID,
        moves.past_sidecar("initech", "acme-web", _INITECH, hop=True),
    ),
]

_NO_SIDECAR = [
    Scenario(
        "own-tls-own-tenant",
        "a pod speaks mTLS itself to its own tenant: the certificate proves enough",
        "200 acme-db",
        moves.past_sidecar("acme-web", "acme-db"),
    ),
    Scenario(
        "own-tls-foreign",
        "a pod speaks mTLS itself to another tenant",
        MISSING,
        moves.past_sidecar("mallory", "acme-db"),
    ),
    Scenario(
        "own-tls-hop",
        "the same at the activator",
        MISSING,
        moves.past_sidecar("mallory", "acme-db", hop=True),
    ),
    Scenario(
        "own-tls-hop-steered",
        "its own token, but headers that send the activator to another tenant",
        INVALID,
        moves.past_sidecar("mallory", "acme-db", moves.fresh("mallory", "mallory"), hop=True),
    ),
    Scenario(
        "own-tls-claims-platform",
        "a pod says in x-forwarded-client-cert that it is the activator",
        MISSING,
        moves.past_sidecar("mallory", "acme-db", headers=[moves.claims_activator()]),
    ),
    Scenario(
        "no-sidecar-plaintext",
        "a caller without sidecar, in plaintext",
        REFUSED,
        moves.without_identity("acme-db", None),
    ),
    Scenario(
        "no-sidecar-tls",
        "a caller without sidecar, over TLS without a certificate",
        REFUSED,
        moves.without_identity("acme-db", moves.anonymous_tls),
    ),
    Scenario(
        "no-sidecar-impostor",
        "a caller with the right name in a certificate of its own making",
        REFUSED,
        moves.without_identity("acme-db", moves.impostor_tls),
    ),
    Scenario(
        "pod-by-ip-plaintext",
        "a sidecar sends a call by pod IP in plaintext, which the pod refuses, tenant or not",
        OUTAGE,
        moves.to_address("acme-web", moves.pod_of("acme-web")),
    ),
]

_QUESTIONS = [
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
            headers=[("kn-namespace", "acme-web"), moves.claims_activator()],
            metadata=[moves.claims_activator(), ("kn-namespace", "acme-web")],
            principal="spiffe://cluster.local/ns/acme-web/sa/app",
        ),
    ),
    Scenario(
        "ask-verify",
        "a tenant asks about itself",
        "allowed, token removed",
        moves.question("verify", principal="spiffe://cluster.local/ns/mallory/sa/app"),
    ),
    Scenario(
        "ask-verify-stolen",
        "a tenant cannot test whether a stolen token is good",
        "denied token-invalid",
        moves.question("verify", token=_INITECH, principal=str(moves.ACTIVATOR)),
    ),
    Scenario(
        "ask-transit",
        "a tenant cannot ask what a platform hop asks",
        DENIED,
        moves.question("transit", metadata=[("x-authz-hop", "gateway")]),
    ),
    Scenario("ask-public", "nor what the gateway asks", DENIED, moves.question("public")),
    Scenario(
        "ask-tcp",
        "a raw TCP connection of another tenant",
        DENIED,
        moves.question("tcp", principal="spiffe://cluster.local/ns/globex/sa/app"),
    ),
    Scenario(
        "ask-tcp-own",
        "a raw TCP connection of its own",
        "allowed",
        moves.question("tcp", principal="spiffe://cluster.local/ns/mallory/sa/app"),
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

_OPERATIONS = [
    Scenario(
        "root-rotated",
        "all keys change; a token of the old ones is still good",
        "200 acme-db",
        moves.after(
            moves.operator("rotate", "--root", "--now", of="initech"),
            moves.past_sidecar("initech", "acme-db", _INITECH, hop=True),
        ),
    ),
    Scenario(
        "root-rotated-new",
        "and so is one of the new keys",
        "200 acme-db",
        moves.through_sidecar("initech", _idle("acme-db")),
    ),
    Scenario(
        "namespace-rotated",
        "one namespace's key changes; a token of the old one is still good",
        "200 acme-db",
        moves.after(
            moves.operator("rotate", "initech", of="initech"),
            moves.past_sidecar("initech", "acme-db", _INITECH, hop=True),
        ),
    ),
    Scenario(
        "namespace-revoked",
        "one namespace's keys are revoked: its old tokens are refused",
        INVALID,
        moves.after(
            moves.operator("revoke", "initech", of="initech"),
            moves.past_sidecar("initech", "acme-db", _INITECH, hop=True),
        ),
    ),
    Scenario(
        "namespace-revoked-new",
        "its new tokens are good",
        "200 acme-db",
        moves.through_sidecar("initech", _idle("acme-db")),
    ),
    Scenario(
        "namespace-revoked-others",
        "and nobody else notices",
        "200 acme-db",
        moves.past_sidecar("acme-web", "acme-db", moves.stolen("acme-web", "acme-db"), hop=True),
    ),
    Scenario(
        "service-down",
        "the service is gone: pods let nobody in",
        OUTAGE,
        moves.after(moves.crash, moves.through_sidecar("acme-web", _app("acme-web"))),
    ),
    Scenario(
        "service-down-hop",
        "nor does the activator",
        OUTAGE,
        moves.through_sidecar("acme-web", _idle("acme-web")),
    ),
    Scenario(
        "service-down-public",
        "nor the public gateway",
        OUTAGE,
        moves.from_outside("acme-web.example.com"),
    ),
    Scenario(
        "service-down-shadow",
        "not even in shadow mode",
        OUTAGE,
        moves.through_sidecar("globex", _app("umbrella")),
    ),
    Scenario(
        "service-down-external",
        "calls out of the mesh go on",
        "200 external",
        moves.plainly_to_external("acme-web"),
    ),
    Scenario(
        "service-back",
        "the service is back",
        "200 acme-web",
        moves.after(moves.restart, moves.through_sidecar("acme-web", _idle("acme-web"))),
    ),
    Scenario(
        "service-back-denies",
        "and denies what it denied before, the revoked token too",
        INVALID,
        moves.past_sidecar("initech", "acme-db", _INITECH, hop=True),
    ),
]

SCENARIOS: Final = (*_CALLS, *_OUTSIDE, *_TOKENS, *_NO_SIDECAR, *_QUESTIONS, *_OPERATIONS)
