"""Keys change, and the service dies and comes back. To be played last."""

from __future__ import annotations

from authz.lab.loopback import actions, held
from authz.lab.loopback.held import INITECH
from authz.lab.loopback.names import app, idle
from authz.testing import INVALID, OUTAGE, Case

OPERATIONS = [
    Case(
        "root-rotated",
        "all keys change; a token of the old ones is still good",
        "200 acme-db",
        actions.after(
            actions.operator("rotate", "--root", "--now", of="initech"),
            actions.past_sidecar("initech", "acme-db", INITECH, hop=True),
        ),
    ),
    Case(
        "root-rotated-new",
        "and so is one of the new keys",
        "200 acme-db",
        actions.through_sidecar("initech", idle("acme-db")),
    ),
    Case(
        "namespace-rotated",
        "one namespace's key changes; a token of the old one is still good",
        "200 acme-db",
        actions.after(
            actions.operator("rotate", "initech", "--now", of="initech"),
            actions.past_sidecar("initech", "acme-db", INITECH, hop=True),
        ),
    ),
    Case(
        "namespace-revoked",
        "one namespace's keys are revoked: its old tokens are refused",
        INVALID,
        actions.after(
            actions.operator("revoke", "initech", of="initech"),
            actions.past_sidecar("initech", "acme-db", INITECH, hop=True),
        ),
    ),
    Case(
        "namespace-revoked-new",
        "its new tokens are good",
        "200 acme-db",
        actions.through_sidecar("initech", idle("acme-db")),
    ),
    Case(
        "namespace-revoked-others",
        "and nobody else notices",
        "200 acme-db",
        actions.past_sidecar("acme-web", "acme-db", held.stolen("acme-web", "acme-db"), hop=True),
    ),
    Case(
        "service-down",
        "the service is gone: pods let nobody in",
        OUTAGE,
        actions.after(actions.crash, actions.through_sidecar("acme-web", app("acme-web"))),
    ),
    Case(
        "service-down-hop",
        "nor does the activator",
        OUTAGE,
        actions.through_sidecar("acme-web", idle("acme-web")),
    ),
    Case(
        "service-down-public",
        "nor the public gateway",
        OUTAGE,
        actions.from_outside("hello.acme-web.example.com"),
    ),
    Case(
        "service-down-shadow",
        "not even in shadow mode",
        OUTAGE,
        actions.through_sidecar("globex", app("umbrella")),
    ),
    Case(
        "service-down-external",
        "calls out of the mesh go on",
        "200 external",
        actions.to_address("acme-web", actions.external, "api.example.org"),
    ),
    Case(
        "service-back",
        "the service is back",
        "200 acme-web",
        actions.after(actions.restart, actions.through_sidecar("acme-web", idle("acme-web"))),
    ),
    Case(
        "service-back-denies",
        "and denies what it denied before, the revoked token too",
        INVALID,
        actions.past_sidecar("initech", "acme-db", INITECH, hop=True),
    ),
]
