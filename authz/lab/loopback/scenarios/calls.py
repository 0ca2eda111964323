"""Calls as apps make them: each through the sidecars on its way."""

from __future__ import annotations

from authz.lab.loopback import actions
from authz.lab.loopback.mesh import app_address
from authz.lab.loopback.names import app, idle
from authz.testing import NOT_ALLOWED, Case

CALLS = [
    Case(
        "own-namespace",
        "a call within a namespace",
        "200 acme-web",
        actions.through_sidecar("acme-web", app("acme-web")),
    ),
    Case(
        "own-namespace-by-ip",
        "the same by the service's cluster IP",
        "200 acme-web",
        actions.through_sidecar("acme-web", app_address("acme-web")),
    ),
    Case(
        "own-namespace-through-hop",
        "the same through the activator, which all tenants share",
        "200 acme-web",
        actions.through_sidecar("acme-web", idle("acme-web")),
    ),
    Case(
        "sibling",
        "a call to the tenant's other namespace",
        "200 acme-db",
        actions.through_sidecar("acme-web", app("acme-db")),
    ),
    Case(
        "sibling-through-hop",
        "the same through the activator",
        "200 acme-db",
        actions.through_sidecar("acme-web", idle("acme-db")),
    ),
    Case(
        "sibling-by-short-name",
        "the same by the name hello.acme-db",
        "200 acme-db",
        actions.through_sidecar("acme-web", "hello.acme-db"),
    ),
    Case(
        "foreign",
        "a call to another tenant",
        NOT_ALLOWED,
        actions.through_sidecar("globex", app("acme-db")),
    ),
    Case(
        "foreign-through-hop",
        "the same through the activator, behind which mTLS says nothing",
        NOT_ALLOWED,
        actions.through_sidecar("globex", idle("acme-db")),
    ),
    Case(
        "foreign-by-ip",
        "the same by the service's cluster IP",
        NOT_ALLOWED,
        actions.through_sidecar("globex", app_address("acme-db")),
    ),
    Case(
        "granted",
        "a call that the destination grants",
        "200 acme-db",
        actions.through_sidecar("initech", app("acme-db")),
    ),
    Case(
        "granted-through-hop",
        "the same through the activator",
        "200 acme-db",
        actions.through_sidecar("initech", idle("acme-db")),
    ),
    Case(
        "granted-elsewhere",
        "the grant is for one namespace, not for its tenant",
        NOT_ALLOWED,
        actions.through_sidecar("initech", app("acme-web")),
    ),
    Case(
        "granted-backwards",
        "a grant goes one way",
        NOT_ALLOWED,
        actions.through_sidecar("acme-db", app("initech")),
    ),
    Case(
        "shadow",
        "shadow mode lets a foreign call in, and still takes the token off",
        "200 umbrella",
        actions.through_sidecar("globex", app("umbrella")),
    ),
    Case(
        "shadow-through-hop",
        "the same through the activator",
        "200 umbrella",
        actions.through_sidecar("globex", idle("umbrella")),
    ),
    Case(
        "shadow-outwards",
        "whoever is in shadow mode is not let in elsewhere",
        NOT_ALLOWED,
        actions.through_sidecar("umbrella", app("acme-db")),
    ),
]
