"""Tokens that are wrong, old, in wrong hands or in the wrong place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from authz.testing import INVALID, MISSING, NOT_ALLOWED
from tests.attacks import rules
from tests.attacks.actions import (
    ATTACKER,
    call,
    leaks,
    minted,
    often,
    past,
    public,
    raw_http,
    replayed,
    revoked,
    signed,
    steered,
)
from tests.attacks.box import TOKEN, Action, TokenSource, Without
from tests.attacks.row import MUTATION, Attack, Played

HELLO: Final = "200 acme-db/hello"
IDLE: Final = "200 acme-db/idle"

OWN: Final = signed("initech/plain", "hello-00001.acme-db")
STOLEN: Final = signed("acme-web/plain", "hello-00001.acme-db")
DIRECT: Final = "acme-db/hello:8012"
ACTIVATOR: Final = "knative-serving/activator:8012"
GATEWAY: Final = "istio-system/gateway:8081"
INTERNAL: Final = "hello.acme-db.svc.cluster.local"


def _hop(who: str, token: TokenSource | str, headers: Sequence[tuple[str, str]] = ()) -> Action:
    """A token shown at the activator, where only the token counts."""
    return past(who, ACTIVATOR, token=token, headers=[*steered("acme-db"), *headers])


TWIN: Final = Played(_hop("initech/plain", OWN), IDLE)


def _bad(name: str, does: str, stopped_by: str, token: TokenSource, without: Without) -> Attack:
    """A bad token of a source that is granted, at the activator."""
    attack = Played(_hop("initech/plain", token), INVALID)
    return Attack(name, does, stopped_by, attack, TWIN, without, IDLE)


def _twice(headers: Sequence[tuple[str, str]], token: TokenSource) -> Action:
    async def action(box: object) -> str:
        value = await token(box)  # type: ignore[arg-type]
        again = [(key, value) for key, _ in headers]
        return await _hop("initech/plain", value, again)(box)  # type: ignore[arg-type]

    return action


ROWS: Final = [
    _bad(
        "forged",
        "a token that is right in all but the secret",
        "the MAC",
        minted("initech/plain", "acme-db", guessed=True),
        rules.SIGNATURE,
    ),
    _bad(
        "expired",
        "a token of 13 minutes ago",
        "its expiry",
        minted("initech/plain", "acme-db", age=780),
        rules.EXPIRY,
    ),
    _bad(
        "future",
        "a token that was made with a clock in the future",
        "issued-at, with 30 s of leeway",
        minted("initech/plain", "acme-db", age=-300),
        rules.FUTURE,
    ),
    _bad(
        "revoked",
        "a token from before its namespace was revoked",
        "the generation of the namespace's key",
        revoked("initech/plain", "hello-00001.acme-db"),
        rules.REVOCATION,
    ),
    _bad(
        "elsewhere",
        "a token for another namespace",
        "the token's destination",
        signed("initech/plain", "hello-00001.acme-web"),
        rules.MEANT_FOR,
    ),
    Attack(
        "twice",
        "two good tokens",
        "one token, or none counts",
        Played(_twice([(TOKEN, "")], OWN), INVALID),
        TWIN,
        rules.SEVERAL,
        IDLE,
        source="CVE-2021-32777, CVE-2026-26308",
    ),
    Attack(
        "twice-other-case",
        "the same, in another case",
        "Envoy's header names know no case; one token, or none counts",
        Played(_twice([("X-Tenant-TOKEN", "")], OWN), INVALID),
        TWIN,
        rules.SEVERAL,
        IDLE,
    ),
    Attack(
        "underscores",
        "the header's name with underscores",
        "it is another header",
        Played(past("mallory/plain", DIRECT, headers=[("x_tenant_token", "v1.x")]), MISSING),
        Played(past("acme-web/plain", DIRECT, headers=[("x_tenant_token", "v1.x")]), HELLO),
        rules.VERIFY,
        HELLO,
    ),
    Attack(
        "joined",
        "two tokens in one value, by a comma",
        "the token's grammar is matched whole",
        Played(_hop("initech/plain", "v1.a-0.x.y,v1.a-0.x.y"), INVALID),
        TWIN,
        noticed="tests/test_tokens.py::test_no_text_is_a_token",
    ),
    Attack(
        "folded",
        "a token on two lines (obs-fold)",
        "Envoy joins or refuses; the token's grammar is matched whole",
        Played(
            raw_http(
                "mallory/plain",
                "plain.acme-db:80",
                f"GET / HTTP/1.1\nHost: plain.acme-db\n{TOKEN}: v1.a-0\n .x.y",
            ),
            "403",
        ),
        Played(
            raw_http(
                "acme-web/plain",
                "plain.acme-db:80",
                f"GET / HTTP/1.1\nHost: plain.acme-db\n{TOKEN}: v1.a-0\n .x.y",
            ),
            "200 acme-db/plain",
        ),
        rules.VERIFY,
        "200 acme-db/plain",
    ),
    Attack(
        "made-up-behind-sidecar",
        "the app sends a token that it has stolen, through its own sidecar",
        "sign replaces whatever the app sent",
        Played(call("mallory/plain", "http://idle.acme-db/", token=STOLEN), NOT_ALLOWED),
        Played(call("initech/plain", "http://idle.acme-db/", token="v1.nonsense"), IDLE),
        noticed=f"{MUTATION}[everybody passes tokens on]",
    ),
    Attack(
        "connection",
        "names the token in `Connection`, so that a proxy on the way removes it",
        "a token that is lost is missing",
        Played(
            call("mallory/plain", "http://idle.acme-db/", headers=[("connection", TOKEN)]),
            NOT_ALLOWED,
        ),
        Played(
            call("initech/plain", "http://idle.acme-db/", headers=[("connection", TOKEN)]), IDLE
        ),
        noticed="tests/knative/test_activator.py::test_connection_removes_what_it_names",
    ),
    Attack(
        "seen-by-the-app",
        "the app of the destination looks for tokens to use as its callers",
        "verify removes the token, and so does a second filter",
        Played(
            leaks(call("initech/plain", "http://idle.acme-db/"), "acme-db/idle"),
            "200 acme-db/idle, no token",
        ),
        Played(call("initech/plain", "http://idle.acme-db/"), IDLE),
        noticed=f"{MUTATION}[the app sees the token]",
    ),
    # -- in wrong hands --
    Attack(
        "stolen",
        "shows somebody else's good token at the pod",
        "presenter: a token counts from its source or the platform",
        Played(past("mallory/plain", DIRECT, token=STOLEN), INVALID),
        Played(past("initech/plain", DIRECT, token=OWN), HELLO),
        rules.PRESENTER,
        HELLO,
    ),
    Attack(
        "stolen-activator",
        "shows it at the activator, behind which everything has the activator's identity",
        "transit at the activator: presenter",
        Played(_hop("mallory/plain", STOLEN), INVALID),
        TWIN,
        rules.TRANSIT,
        IDLE,
    ),
    Attack(
        "stolen-activator-rule",
        "the same",
        "presenter, as the server decides it",
        Played(_hop("mallory/plain", STOLEN), INVALID),
        TWIN,
        rules.PRESENTER,
        IDLE,
    ),
    Attack(
        "stolen-local-gateway",
        "shows it at Knative's local gateway, behind which everything has the gateway's identity",
        "transit at the local gateway: presenter",
        Played(past("mallory/plain", GATEWAY, host=INTERNAL, token=STOLEN), INVALID),
        Played(past("initech/plain", GATEWAY, host=INTERNAL, token=OWN), HELLO),
        rules.LOCAL_QUESTION,
        HELLO,
    ),
    Attack(
        "stolen-local-gateway-plaintext",
        "the same in plaintext, without saying who it is",
        "the Gateway takes mutual TLS only; transit: plaintext proves nobody",
        Played(
            call(
                ATTACKER,
                f"http://{INTERNAL}/",
                via="istio-system/gateway:8081",
                token=STOLEN,
            ),
            "no answer",
        ),
        Played(past("initech/plain", GATEWAY, host=INTERNAL, token=OWN), HELLO),
        rules.MUTUAL_GATEWAY,
        HELLO,
    ),
    Attack(
        "stolen-public",
        "shows it at the public gateway, for a private service that somebody put there",
        "public: the client's token is removed and replaced by one of @public; acme-db takes none",
        Played(call("outside/server", "http://slip.example.com/", token=STOLEN), NOT_ALLOWED),
        Played(
            call("outside/server", "http://hello.acme-web.example.com/", token="v1.nonsense"),
            "200 acme-web/hello",
        ),
        rules.PUBLIC,
        HELLO,
    ),
    Attack(
        "stolen-by-friend",
        "a granted namespace shows another tenant's token at the activator",
        "presenter counts even for a peer that is allowed itself",
        Played(_hop("initech/hello", STOLEN), INVALID),
        TWIN,
        rules.PRESENTER,
        IDLE,
    ),
    Attack(
        "stolen-from-gateway",
        "shows a token of @public that leaked from the gateway",
        "a token of @public counts from the gateway and hops alone",
        Played(
            past("mallory/plain", "acme-web/plain:8000", token=public("plain.acme-web")), INVALID
        ),
        Played(call("outside/server", "http://hello.acme-web.example.com/"), "200 acme-web/hello"),
        rules.PUBLIC_PRESENTER,
        "200 acme-web/plain",
    ),
    Attack(
        "platform-namespace",
        "another workload of the gateway's namespace shows a token of @public",
        "a role belongs to a service account",
        Played(
            past(
                "spiffe://cluster.local/ns/istio-system/sa/kiali",
                "acme-web/plain:8000",
                token=public("plain.acme-web"),
            ),
            INVALID,
        ),
        Played(
            past("istio-system/gateway", "acme-web/plain:8000", token=public("plain.acme-web")),
            "200 acme-web/plain",
        ),
        rules.ROLE_BY_NAMESPACE,
        "200 acme-web/plain",
    ),
    # -- own tokens, no rights --
    Attack(
        "no-grant",
        "a good token of its own",
        "policy: another tenant without a grant",
        Played(_hop("mallory/plain", signed("mallory/plain", "idle-00001.acme-db")), NOT_ALLOWED),
        TWIN,
        rules.NO_GRANT,
        IDLE,
    ),
    Attack(
        "sibling-account",
        "another service account of the granted namespace",
        "policy: the grant names one account; the token carries it",
        Played(call("initech/hello", "http://idle.acme-db/"), NOT_ALLOWED),
        Played(call("initech/plain", "http://idle.acme-db/"), IDLE),
        rules.ACCOUNT,
        IDLE,
    ),
    Attack(
        "account-pattern",
        "an account `readxer`, where the grant names `read.er`",
        "policy: names are compared whole, and are no patterns",
        Played(past("spiffe://cluster.local/ns/initech/sa/readxer", DIRECT), MISSING),
        Played(past("spiffe://cluster.local/ns/initech/sa/read.er", DIRECT), HELLO),
        rules.ACCOUNT_PATTERN,
        HELLO,
        source="CVE-2026-39350",
    ),
    Attack(
        "public-of-private",
        "comes from outside to a namespace that is not public, by a route that should not be there",
        "policy: `public: false`",
        Played(call("outside/server", "http://slip.example.com/"), NOT_ALLOWED),
        Played(call("outside/server", "http://hello.acme-web.example.com/"), "200 acme-web/hello"),
        rules.PUBLIC_EVERYWHERE,
        HELLO,
    ),
    # -- where a token must not go --
    Attack(
        "lure-address",
        "gets acme-web to fetch a URL with the attacker's pod address",
        "sign: no cluster of ours, no token",
        Played(
            leaks(call("acme-web/plain", "http://x/", via="mallory/bare:8000")),
            "200 mallory/bare, no token",
        ),
        Played(call("acme-web/plain", "http://plain.acme-db/"), "200 acme-db/plain"),
        noticed=f"{MUTATION}[numbers are names]",
    ),
    *(
        Attack(
            f"lure-{name}",
            does,
            "sign: D is where Envoy sends it; none of our clusters, no token",
            Played(
                leaks(call("acme-web/plain", "http://x/", headers=[("host", host)], via=via), to),
                out,
            ),
            Played(call("acme-web/plain", "http://plain.acme-db/"), "200 acme-db/plain"),
            rules.UNKNOWN_UPSTREAM,
            out.replace("no token", "token acme-web→acme-web"),
        )
        for name, host, via, to, out, does in (
            (
                "pod-name",
                "10-244-0-99.acme-web.pod.cluster.local",
                "outside/server:80",
                "outside/server",
                "200 outside/server, no token",
                "gets acme-web to fetch a pod's DNS name in its namespace: any address has one",
            ),
            (
                "top-level-domain",
                "shop.acme-web",
                "outside/server:80",
                "outside/server",
                "200 outside/server, no token",
                "a public name that reads like <service>.<namespace>",
            ),
        )
    ),
    Attack(
        "lure-own-token",
        "gets acme-web's app to send a token out of the mesh",
        "sign removes it",
        Played(
            leaks(call("acme-web/plain", "http://outside.test/", token=STOLEN), "outside/server"),
            "200 outside/server, no token",
        ),
        Played(call("acme-web/plain", "http://outside.test/"), "200 outside/server"),
        rules.KEEP_OUTSIDE,
        "200 outside/server, token acme-web→acme-db",
    ),
    Attack(
        "lure-external-name",
        "a name of acme-web's own that leads to a service of mallory's",
        "sign: D is where Envoy sends it; what arrives is worth nothing elsewhere",
        Played(
            leaks(call("acme-web/plain", "http://payments.acme-web.svc.cluster.local/")),
            "200 mallory/bare, token acme-web→mallory",
        ),
        Played(call("acme-web/plain", "http://database.acme-web/"), "200 acme-db/plain"),
        rules.SIGN_BY_HOST,
        "200 mallory/bare, token acme-web→acme-web",
    ),
    Attack(
        "lure-weighted",
        "a route of acme-web's own that sends some requests to mallory's service",
        "sign: each request's own cluster",
        Played(
            often(leaks(call("acme-web/plain", "http://split.acme-web.svc.cluster.local/"))),
            "200 acme-db/hello, no token | 200 mallory/bare, token acme-web→mallory",
        ),
        Played(call("acme-web/plain", "http://hello.acme-db/"), HELLO),
        rules.SIGN_BY_HOST,
        "200 acme-db/hello, no token | 200 mallory/bare, token acme-web→acme-web",
    ),
    Attack(
        "lure-mirror",
        "a route of acme-web's own that mirrors to mallory's service, which shows the copied token",
        "presenter: the copy is worth nothing in mallory's hands",
        Played(
            replayed(
                call("acme-web/plain", "http://copied.acme-web.svc.cluster.local/"),
                lambda token: past("mallory/plain", DIRECT, token=token),
            ),
            "token acme-web→acme-db, 403 token-invalid",
        ),
        Played(call("acme-web/plain", "http://copied.acme-web.svc.cluster.local/"), HELLO),
        rules.PRESENTER,
        "token acme-web→acme-db, 200 acme-db/hello",
    ),
    Attack(
        "lure-replayed",
        "a token that acme-web brought to mallory's service, shown to acme-web",
        "the token's destination is mallory; presenter",
        Played(
            replayed(
                call("acme-web/plain", "http://trap.mallory/"),
                lambda token: past("mallory/plain", "acme-web/plain:8000", token=token),
            ),
            "token acme-web→mallory, 403 token-invalid",
        ),
        Played(call("acme-web/plain", "http://trap.mallory/"), "200 mallory/bare"),
        rules.PRESENTER_AND_DESTINATION,
        "token acme-web→mallory, 200 acme-web/plain",
    ),
    Attack(
        "hijacked-ingress",
        "adds an Ingress for the victim's public host, with its own service behind",
        "public: D is where the gateway sends it, and the VirtualService, the oldest Ingress's, may"
        " not open it",
        Played(
            leaks(call("outside/server", "http://hijacked.example.com/")),
            "403 not-allowed, no token",
        ),
        Played(call("outside/server", "http://hijacked.example.com/shop"), "200 acme-web/plain"),
        rules.BY_VIRTUAL_SERVICE,
        "200 mallory/bare, token @public→acme-web",
    ),
]
