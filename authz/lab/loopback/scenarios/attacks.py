"""Tokens that are wrong or in wrong hands, and callers that go past their sidecar."""

from __future__ import annotations

from authz.lab.loopback import actions, held
from authz.lab.loopback.held import INITECH
from authz.lab.loopback.names import app
from authz.testing import INVALID, MISSING, NO_ANSWER, NOT_ALLOWED, OUTAGE, Case
from authz.wire import TOKEN_HEADER

TOKENS = [
    Case(
        "own-token",
        "a pod speaks mTLS itself and shows its own token at the activator",
        "200 acme-db",
        actions.past_sidecar("initech", "acme-db", INITECH, hop=True),
    ),
    Case(
        "forged-behind-sidecar",
        "the sidecar replaces a token that the app made up",
        NOT_ALLOWED,
        actions.through_sidecar("mallory", app("acme-db"), [(TOKEN_HEADER, "v1.forged")]),
    ),
    Case(
        "forged",
        "a token that is right in all but the secret",
        INVALID,
        actions.past_sidecar("mallory", "acme-db", held.forged("mallory", "acme-db")),
    ),
    Case(
        "forged-through-hop",
        "the same for a source that is allowed, at the activator",
        INVALID,
        actions.past_sidecar("initech", "acme-db", held.forged("initech", "acme-db"), hop=True),
    ),
    Case(
        "nearly-expired",
        "a token that is about to expire",
        "200 acme-db",
        actions.past_sidecar(
            "initech", "acme-db", held.aged("initech", "acme-db", expires_in=30), hop=True
        ),
    ),
    Case(
        "expired",
        "the same a little later",
        INVALID,
        actions.past_sidecar(
            "initech", "acme-db", held.aged("initech", "acme-db", expires_in=-1), hop=True
        ),
    ),
    Case(
        "duplicated",
        "two tokens, both good",
        INVALID,
        actions.past_sidecar("initech", "acme-db", INITECH, INITECH, hop=True),
    ),
    Case(
        "stolen",
        "another tenant presents a good token",
        INVALID,
        actions.past_sidecar("mallory", "acme-db", INITECH),
    ),
    Case(
        "stolen-through-hop",
        "the same at the activator",
        INVALID,
        actions.past_sidecar("mallory", "acme-db", INITECH, hop=True),
    ),
    Case(
        "stolen-through-hop-by-friend",
        "the same by a tenant that may call the pod itself, but not as somebody else",
        INVALID,
        actions.past_sidecar("initech", "acme-db", held.fresh("acme-web", "acme-db"), hop=True),
    ),
    Case(
        "stolen-from-gateway",
        "a tenant presents the gateway's token",
        INVALID,
        actions.past_sidecar("mallory", "acme-web", held.public("acme-web")),
    ),
    Case(
        "replayed-elsewhere",
        "the owner shows a token to another namespace than it was made for",
        INVALID,
        actions.past_sidecar("initech", "globex", INITECH),
    ),
    Case(
        "replayed-elsewhere-through-hop",
        "the same at the activator",
        INVALID,
        actions.past_sidecar("initech", "acme-web", INITECH, hop=True),
    ),
]

NO_SIDECAR = [
    Case(
        "own-tls-own-tenant",
        "a pod speaks mTLS itself to its own tenant: the certificate proves enough",
        "200 acme-db",
        actions.past_sidecar("acme-web", "acme-db"),
    ),
    Case(
        "own-tls-foreign",
        "a pod speaks mTLS itself to another tenant",
        MISSING,
        actions.past_sidecar("mallory", "acme-db"),
    ),
    Case(
        "own-tls-hop",
        "the same at the activator",
        MISSING,
        actions.past_sidecar("mallory", "acme-db", hop=True),
    ),
    Case(
        "own-tls-hop-steered",
        "its own token, but headers that send the activator to another tenant",
        INVALID,
        actions.past_sidecar("mallory", "acme-db", held.fresh("mallory", "mallory"), hop=True),
    ),
    Case(
        "own-tls-claims-platform",
        "a pod says in x-forwarded-client-cert that it is the activator",
        MISSING,
        actions.past_sidecar("mallory", "acme-db", headers=[actions.CLAIMS_ACTIVATOR]),
    ),
    Case(
        "no-sidecar-plaintext",
        "a caller without sidecar, in plaintext",
        NO_ANSWER,
        actions.without_identity("acme-db", None),
    ),
    Case(
        "no-sidecar-tls",
        "a caller without sidecar, over TLS without a certificate",
        NO_ANSWER,
        actions.without_identity("acme-db", actions.anonymous_tls),
    ),
    Case(
        "no-sidecar-impostor",
        "a caller with the right name in a certificate of its own making",
        NO_ANSWER,
        actions.without_identity("acme-db", actions.impostor_tls),
    ),
    Case(
        "pod-by-ip-plaintext",
        "a sidecar sends a call by pod IP in plaintext, which the pod refuses, tenant or not",
        OUTAGE,
        actions.to_address("acme-web", actions.pod_of("acme-web")),
    ),
]
