"""Calls out of the mesh, and into it."""

from __future__ import annotations

from authz.lab.loopback import actions, held
from authz.testing import NOT_ALLOWED, Case

OWN = held.fresh("acme-web", "acme-web")

OUTSIDE = [
    Case(
        "external",
        "a call out of the mesh arrives, and the token that the app adds does not",
        "200 external",
        actions.to_address("acme-web", actions.external, "api.example.org", OWN),
    ),
    Case(
        "hostile-pod-by-ip",
        "a webhook to the IP of a hostile pod that listens past its sidecar: no token arrives",
        "200 mallory",
        actions.to_address("acme-web", actions.process_of("mallory"), "", OWN),
    ),
    Case(
        "hostile-pod-by-name",
        "the same by a DNS name that any IP has in any namespace",
        "200 mallory",
        actions.to_address(
            "acme-web", actions.process_of("mallory"), "10-1-2-3.acme-db.pod.cluster.local", OWN
        ),
    ),
    Case(
        "public",
        "a request from outside through the public gateway",
        "200 acme-web",
        actions.from_outside("hello.acme-web.example.com"),
    ),
    Case(
        "public-through-hop",
        "the same to a pod that sleeps, through gateway and activator",
        "200 acme-web",
        actions.from_outside("idle.acme-web.example.com"),
    ),
    Case(
        "public-refused",
        "a namespace that is not public, though a route leads to it",
        NOT_ALLOWED,
        actions.from_outside("acme-db-mapped.example.com"),
    ),
    Case(
        "public-with-stolen-token",
        "the gateway replaces a token that comes from outside, even a real one",
        NOT_ALLOWED,
        actions.from_outside("acme-db-mapped.example.com", held.stolen("acme-web", "acme-db")),
    ),
]
