"""Our own port, asked by others' proxies: the gateway's, the activator's, Eventing's."""

from __future__ import annotations

from typing import Final

from authz.testing import NOT_ALLOWED
from tests.attacks import rules
from tests.attacks.actions import (
    TTL,
    asked_twice,
    asks,
    asks_through,
    call,
    denied_for,
    past,
    ping,
    post,
    signed,
    steered,
    subscription,
    under,
    upstream,
)
from tests.attacks.box import (
    CHECK,
    NAMESPACES,
    Action,
    Without,
    check_message,
    grpc_call,
    policy,
)
from tests.attacks.row import Attack, Played

UPSTREAM: Final = ("x-authz-upstream", upstream("hello-00001.acme-db"))
AS_GATEWAY: Final = (("x-authz-question", "public"), UPSTREAM)
AS_SIDECAR: Final = (("x-authz-question", "sign"), UPSTREAM)
AUTHZ: Final = "authz.authz-system.svc.cluster.local"
OURS: Final = f"http://{AUTHZ}:9000{CHECK}"
CHANNEL: Final = "http://events-kn-channel.mallory.svc.cluster.local/"
NEVER: Final = "nothing that others pass on goes to our own namespace, whatever the policy"
MARKED: Final = "with mTLS, a question that a proxy passed on is denied: Envoy marks it"


def _by_route(name: str, *, http2: bool = True) -> Action:
    """A whole Check to us, by a route of mallory's at the public gateway."""
    url = f"http://{name}.example.com"
    return asks_through("outside/server", url, *AS_GATEWAY, http2=http2)


def _asks_by(
    name: str,
    does: str,
    stopped_by: str,
    action: Action,
    *,
    outcome: str = NOT_ALLOWED,
    without: Without | None = rules.ASKED_BY_A_PROXY,
    gets: str = "answered: token from @public to acme-db",
    noticed: str = "",
) -> Attack:
    twin = Played(asks("acme-web/plain", *AS_SIDECAR), "token from acme-web to acme-db")
    if without is None:
        gets = ""
    attack = Played(action, outcome)
    return Attack(f"ask-by-{name}", does, stopped_by, attack, twin, without, gets, noticed)


ROWS: Final = [
    *(
        _asks_by(
            name,
            f"asks with the gateway's certificate, by {does}",
            f"public: {NEVER}",
            _by_route(host, http2=http2),
            without=without,
        )
        for name, host, http2, without, does in (
            (
                "ingress",
                "authz",
                True,
                rules.ASKED_BY_A_PROXY,
                "an Ingress to an alias of our port",
            ),
            ("ingress-http1", "authz", False, rules.ASKED_BY_A_PROXY, "the same, with HTTP/1.1"),
            ("route", "route-authz", True, rules.ASKED_BY_A_PROXY, "an HTTPRoute to that alias"),
            (
                "route-http1",
                "route-authz",
                False,
                rules.ASKED_BY_A_PROXY,
                "the same, with HTTP/1.1",
            ),
            (
                "stripped",
                "route-stripped",
                True,
                rules.ASKED_BY_THE_GATEWAY,
                "an HTTPRoute that removes whatever marks what a proxy passes on",
            ),
            (
                "stripped-http1",
                "route-stripped",
                False,
                rules.ASKED_BY_THE_GATEWAY,
                "the same, with HTTP/1.1",
            ),
        )
    ),
    _asks_by(
        "open-route",
        "the same by an Ingress, where the policy lets such routes into our namespace",
        f"public: {NEVER}",
        under(
            policy(
                route_owners=["mallory"],
                namespaces={**NAMESPACES, "authz-system": {"public": True}},
            ),
            _by_route("authz"),
        ),
    ),
    _asks_by(
        "shadow",
        "the same by an HTTPRoute that removes the marks, while nothing is enforced yet",
        f"public: {NEVER}, in shadow mode, too",
        under(policy(default_mode="shadow"), _by_route("route-stripped")),
        without=rules.TO_OURSELVES,
    ),
    _asks_by(
        "domain-mapping",
        "the same by a DomainMapping, which leads to port 80",
        "Istio: our Service has no such port",
        _by_route("mapped-authz"),
        outcome="503",
        without=None,
        noticed="tests/lab/test_routes.py::test_a_domain_mapping_to_our_port_leads_nowhere",
    ),
    _asks_by(
        "copy",
        "copies each request of an HTTPRoute of its own to our port, without the marks: we answer"
        " the gateway, and nobody hears it",
        "Envoy throws the answer to a copy away; nothing but admission keeps copies off",
        asked_twice(
            "public",
            call(
                "outside/server",
                "http://route-asked.example.com" + CHECK,
                http2=True,
                **grpc_call(check_message(route_of="acme-db"), AS_GATEWAY),
            ),
        ),
        outcome="200, asked twice",
        without=None,
        noticed="tests/lab/test_routes.py::test_a_copy_goes_to_where_an_alias_leads",
    ),
    _asks_by(
        "own-sidecar",
        "asks by way of its own sidecar",
        MARKED,
        asks_through("mallory/plain", "http://authz.authz-system:9000", *AS_SIDECAR),
        outcome="answered: 403 not-allowed",
        without=rules.PASSED_ON,
        gets="answered: token from mallory to acme-db",
    ),
    _asks_by(
        "activator",
        "steers the activator to our namespace",
        f"transit: {NEVER}",
        denied_for(
            "for-ourselves",
            past(
                "mallory/plain",
                "knative-serving/activator:8012",
                headers=steered("authz-system"),
                token=signed("mallory/plain", "idle-00001.mallory"),
            ),
        ),
        outcome=f"{NOT_ALLOWED}, for-ourselves",
        without=rules.TO_OURSELVES,
        gets="403 token-invalid, none denied",
    ),
    _asks_by(
        "local-gateway",
        "names our Service at the local gateway",
        "Istio: the local gateway has Knative's routes and no other",
        past("mallory/plain", "istio-system/gateway:8081", host=AUTHZ, path=CHECK),
        outcome="404",
        without=None,
        noticed="tests/mesh/test_paths.py::test_what_is_private_has_no_route_from_outside",
    ),
    _asks_by(
        "subscription",
        "creates a Subscription whose subscriber is our port, so that the dispatcher asks",
        f"sign: {NEVER}",
        denied_for("for-ourselves", subscription(OURS, post("mallory/plain", CHANNEL, TTL))),
        outcome="500, for-ourselves",
        without=rules.TO_OURSELVES,
        gets="500, none denied",
    ),
    _asks_by(
        "pingsource",
        "creates a PingSource whose sink is our port",
        f"sign: {NEVER}",
        denied_for("for-ourselves", ping("mallory", OURS)),
        outcome="403, for-ourselves",
        without=rules.TO_OURSELVES,
        gets="415, none denied",
    ),
]
