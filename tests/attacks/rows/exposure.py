"""Routes of a tenant's own at the public gateway that lead to others, and names of others."""

from __future__ import annotations

from typing import Final

from tests.attacks import rules
from tests.attacks.actions import EVENT, call, eventing, reaches
from tests.attacks.box import Action, Without
from tests.attacks.row import Attack, Played

NOT_ALLOWED: Final = "403 not-allowed"
INVALID: Final = "403 token-invalid"
PLAIN: Final = "200 acme-web/plain"
OWNER: Final = "public: a route opens its own tenant, and whoever grants it as a whole"
NO_CLUSTER: Final = "Istio: the gateway has a cluster for names of Services in full, and no other"
SEEN: Final = "tests/lab/test_routes.py::test_other_aliases_and_others_services_lead_nowhere"


def _outside(host: str, path: str = "/", port: int = 80) -> Action:
    scheme = "https" if port == 443 else "http"
    return call("outside/server", f"{scheme}://{host}.example.com{path}")


TWIN: Final = Played(_outside("route-own"), PLAIN)
KNATIVES: Final = Played(_outside("hello.acme-web"), "200 acme-web/hello")
INGRESS: Final = Played(_outside("hijacked", "/shop"), PLAIN)


def _opens(
    name: str,
    does: str,
    action: Action,
    twin: Played,
    *,
    gets: str = PLAIN,
    without: Without = rules.ANY_ROUTE,
) -> Attack:
    return Attack(name, does, OWNER, Played(action, NOT_ALLOWED), twin, without, gets)


ROWS: Final = [
    _opens(
        "route-ingress",
        "an Ingress to an ExternalName of its own, which names a Service of another tenant",
        _outside("public"),
        INGRESS,
    ),
    _opens(
        "route-domain-mapping",
        "a DomainMapping whose Service is such an alias",
        _outside("remapped-alias"),
        Played(_outside("mapped"), "200 acme-web/hello"),
    ),
    _opens(
        "route-virtual-service",
        "a VirtualService straight to the Service, where somebody lets it write one",
        _outside("direct"),
        KNATIVES,
    ),
    _opens(
        "route-http-route",
        "an HTTPRoute to such an alias: its VirtualService has `~` in its name",
        _outside("route-alias"),
        TWIN,
    ),
    _opens(
        "route-private",
        "an Ingress to an alias of a Service whose namespace is not public",
        _outside("aliased"),
        INGRESS,
        gets="200 acme-db/plain",
        without=rules.ANY_ROUTE_AND_PUBLIC,
    ),
    _opens(
        "route-delegate",
        "the platform's VirtualService delegates to the tenant's, and has its own namespace",
        _outside("delegated"),
        KNATIVES,
        without=rules.PLATFORMS_ROUTES,
    ),
    _opens(
        "route-merged",
        "an HTTPRoute with a path under the victim's name: istiod files it under the victim",
        _outside("route-merged", "/trap"),
        Played(_outside("route-merged"), PLAIN),
        gets="200 mallory/bare",
    ),
    _opens(
        "route-older",
        "is first to have an Ingress for a name that others use, too: the victim is denied, and"
        " only admission could have known whose the name is",
        _outside("older"),
        Played(_outside("older", "/mine"), "200 mallory/plain"),
    ),
    Attack(
        "route-listed",
        "a path of its own under the victim's name, to an alias of the victim's private Service:"
        " istiod files it under the victim",
        "policy: `public` of the victim lists its Services; else admission alone",
        Played(_outside("listed", "/private"), NOT_ALLOWED),
        Played(_outside("listed", "/shop"), "200 initech/hello"),
        rules.UNLISTED,
        "200 initech/plain",
    ),
    Attack(
        "route-name",
        "an Ingress for a name under the victim's part of the domain, to a Service of its own",
        "public: a name that tells its namespace leads there",
        Played(_outside("shop.acme-web"), NOT_ALLOWED),
        KNATIVES,
        rules.NAMES_TOLD,
        "200 mallory/bare",
    ),
    Attack(
        "route-snatched",
        "an Ingress to a Service of its own whose EndpointSlice names somebody else's pod",
        "verify: the token is for mallory, not for this pod's namespace",
        Played(_outside("snatched"), INVALID),
        INGRESS,
        rules.DESTINATION_AND_PUBLIC,
        "200 acme-db/hello",
    ),
    Attack(
        "route-mirror",
        "an HTTPRoute to its own Service, of which each request is copied to an alias",
        "verify: the copy has the token of the route, which is for mallory",
        Played(reaches(_outside("route-copied"), "acme-web/plain"), "200 mallory/plain, not seen"),
        TWIN,
        rules.MEANT_FOR,
        "200 mallory/plain, seen",
    ),
    Attack(
        "route-rewrite",
        "an HTTPRoute to an alias of the local gateway, which renames the host to a private one",
        "public: the token is for the namespace of the route; transit at the local gateway",
        Played(_outside("route-renamed"), INVALID),
        Played(_outside("mapped"), "200 acme-web/hello"),
        rules.DESTINATION_AND_PUBLIC,
        "200 acme-db/hello",
    ),
    Attack(
        "route-other-namespace",
        "an HTTPRoute that names a Service of another namespace, without a ReferenceGrant there",
        "Istio: such a route leads nowhere",
        Played(_outside("route-other"), "500"),
        TWIN,
        noticed=SEEN,
    ),
    *(
        Attack(
            f"route-alias-{name}",
            f"an Ingress to an alias that is {does}",
            NO_CLUSTER,
            Played(_outside(name), "503"),
            INGRESS,
            noticed=SEEN,
        )
        for name, does in (
            ("short", "a short name, without the cluster's domain"),
            ("dotted", "a name with a dot at its end"),
            ("elsewhere", "a name in another cluster domain"),
        )
    ),
    Attack(
        "route-broker",
        "an Ingress to an alias of the broker's ingress, and an event for the victim's broker",
        OWNER,
        Played(
            eventing(
                call(
                    "outside/server",
                    "http://broker.example.com/acme-web/default",
                    method="POST",
                    body=b"x",
                    headers=EVENT,
                )
            ),
            f"{NOT_ALLOWED}, 0 events",
        ),
        KNATIVES,
        rules.ANY_ROUTE,
        "202, 1 events",
    ),
    _opens(
        "route-autoscaler",
        "an Ingress to an alias of the platform's own autoscaler",
        _outside("autoscaler"),
        KNATIVES,
        gets="400",  # what it says to whoever speaks no WebSocket
        without=rules.ANY_ROUTE_AND_PUBLIC,
    ),
    _opens(
        "route-authz",
        "an Ingress to an alias of our own port, to be asked with the gateway's certificate",
        call("outside/server", "http://authz.example.com/", http2=True),
        KNATIVES,
        gets="405",  # what we say to a GET
        without=rules.ASKED_BY_THE_GATEWAY,
    ),
]
