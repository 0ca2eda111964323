"""Ways to a pod that is somebody else's: names, addresses, ports, protocols."""

from __future__ import annotations

from typing import Final

from authz.testing import MISSING, NOT_ALLOWED
from tests.attacks import rules
from tests.attacks.actions import (
    ATTACKER,
    HTTP,
    call,
    greeter,
    outage_header,
    past,
    raw_http,
    scoped,
    talks,
    while_down,
)
from tests.attacks.box import TOKEN, Action
from tests.attacks.row import MUTATION, Attack, Played

HELLO: Final = "200 acme-db/hello"
PLAIN: Final = "200 acme-db/plain"
ASK: Final = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


GET: Final = "GET / HTTP/1.1\nHost: plain.acme-db"
POST: Final = "POST / HTTP/1.1\nHost: plain.mallory\nTransfer-Encoding: chunked"
FRAMING: Final = (
    (
        "absolute",
        "GET http://plain.acme-db/ HTTP/1.1\nHost: plain.mallory",
        PLAIN,
        "an absolute target of the victim under an own Host",
    ),
    (
        "h2c-upgrade",
        f"{GET}\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABk",
        PLAIN,
        "an upgrade to HTTP/2",
    ),
    (
        "websocket",
        f"{GET}\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: eA==",
        "101",
        "a WebSocket",
    ),
    (
        "trailer",
        f"{POST.replace('mallory', 'acme-db')}\nTrailer: {TOKEN}\n\n0\n{TOKEN}: v1.x",
        PLAIN,
        "a token in the trailers",
    ),
    ("case", "GET / HTTP/1.1\nHOST: PLAIN.ACME-DB", PLAIN, "a Host in capitals"),
    ("port", "GET / HTTP/1.1\nHost: plain.acme-db:8", PLAIN, "a Host with another port"),
    # Envoy alone answers 400; as Istio's agent starts it, it cuts the fragment off.
    ("fragment", "GET /#x HTTP/1.1\nHost: plain.acme-db", PLAIN, "a fragment in the target"),
)
"""Heads that are read in several ways: what they reach if nobody is asked."""

MALFORMED: Final = (
    ("two-hosts", f"{GET}\nHost: plain.mallory", "503", "two Hosts"),
    ("connect", "CONNECT plain.acme-db:80 HTTP/1.1\nHost: plain.acme-db", "404", "CONNECT"),
    (
        "smuggle",
        f"{POST}\nContent-Length: 4\n\n0\n\n{GET}",
        "400",
        "a second request hidden by Content-Length and Transfer-Encoding",
    ),
    ("name-space", "GET / HTTP/1.1\nHost : plain.mallory\nHost: x", "400", "a space in a name"),
    ("no-host", "GET / HTTP/1.1", "400", "no Host"),
    ("http-1.0", "GET / HTTP/1.0\nHost: plain.acme-db", "no answer", "HTTP/1.0: raw TCP"),
    ("userinfo", "GET / HTTP/1.1\nHost: plain.mallory@plain.acme-db", "503", "user information"),
    ("encoded-host", "GET / HTTP/1.1\nHost: plain%2eacme-db", "503", "an encoded Host"),
)
"""Heads that reach nobody."""


def _calls(name: str, does: str, url: str, reaches: str, source: str = "") -> Attack:
    """A name that leads past route and activator, by the tenant's own sidecar."""
    return Attack(
        name,
        does,
        "verify at the pod: no grant",
        Played(call("mallory/plain", url), NOT_ALLOWED),
        Played(call("acme-web/plain", url), reaches),
        rules.VERIFY,
        reaches,
        source=source,
    )


def _past(
    name: str,
    does: str,
    to: str,
    reaches: str,
    *,
    alpn: tuple[str, ...] = HTTP,
    path: str = "/",
    http2: bool = False,
) -> Attack:
    """Past the sidecar, with the tenant's own certificate."""

    def by(who: str) -> Action:
        return past(who, to, alpn=alpn, path=path, http2=http2)

    return Attack(
        name,
        does,
        "verify at the pod: an own certificate proves another tenant",
        Played(by("mallory/plain"), MISSING),
        Played(by("acme-web/plain"), reaches),
        rules.VERIFY,
        reaches,
    )


def _talks(
    name: str, does: str, to: str, sent: bytes = ASK, *, comes: str = "200", alpn: tuple[str, ...]
) -> Attack:
    """Raw bytes, past the sidecar."""
    return Attack(
        name,
        does,
        "tcp at the pod: raw bytes carry no token, mTLS proves another tenant",
        Played(talks("mallory/plain", to, sent, alpn=alpn), "nothing"),
        Played(talks("acme-web/plain", to, sent, alpn=alpn), comes),
        rules.TCP,
        comes,
    )


ROWS: Final = [
    _calls("plain-service", "calls a Service of another tenant", "http://plain.acme-db/", PLAIN),
    _calls("knative-service", "calls a Knative Service by name", "http://hello.acme-db/", HELLO),
    _calls(
        "revision-service",
        "calls the revision's own Service, which has no VirtualService",
        "http://hello-00001.acme-db/",
        HELLO,
    ),
    _calls(
        "private-service",
        "calls the revision's private Service, past the activator",
        "http://idle-00001-private.acme-db/",
        "200 acme-db/idle",
    ),
    _calls(
        "private-port",
        "calls queue-proxy's own port by the private Service",
        "http://hello-00001-private.acme-db:8012/",
        HELLO,
    ),
    _calls("tag", "calls a tag's name", "http://canary-hello.acme-db/", HELLO),
    _calls(
        "trailing-dot",
        "a name with a dot at its end",
        "http://plain.acme-db.svc.cluster.local./",
        PLAIN,
    ),
    _calls(
        "alias",
        "makes an ExternalName of its own for somebody else's Service",
        "http://alias.mallory/",
        PLAIN,
        "attack on signing by Host",
    ),
    Attack(
        "snatched-endpoint",
        "makes a Service of its own whose EndpointSlice names somebody else's pod: the token is for"
        " mallory",
        "verify: the token's destination is not this pod's namespace",
        Played(call("mallory/plain", "http://snatch.mallory/"), "403 token-invalid"),
        Played(call("mallory/plain", "http://plain.mallory/"), "200 mallory/plain"),
        rules.VERIFY,
        HELLO,
    ),
    _past("pod-8012", "connects to the pod's port 8012 itself", "acme-db/hello:8012", HELLO),
    _past(
        "pod-8013",
        "connects to the pod's port 8013 itself, in HTTP/2",
        "acme-db/hello:8013",
        HELLO,
        alpn=("istio-h2", "istio", "h2"),
        http2=True,
    ),
    _past("app-port", "connects to the app's port past queue-proxy", "acme-db/hello:8080", HELLO),
    _past("unlisted-port", "connects to a port that no Service names", "acme-db/plain:9999", PLAIN),
    _past(
        "scrape-port",
        "reads queue-proxy's metrics for the autoscaler",
        "acme-db/hello:9090",
        "200",
        path="/metrics",
    ),
    _past(
        "user-metrics",
        "reads queue-proxy's metrics for Prometheus",
        "acme-db/hello:9091",
        "200",
        path="/metrics",
    ),
    _past(
        "admin-port",
        "asks queue-proxy's admin port to drain the pod",
        "acme-db/hello:8022",
        "200",
        path="/drain-complete",
    ),
    _talks(
        "tcp-istio", "ALPN `istio`: the chain for raw TCP", "acme-db/hello:8080", alpn=("istio",)
    ),
    _talks("tcp-no-alpn", "no ALPN: the chain for raw TCP", "acme-db/hello:8080", alpn=()),
    _talks("tcp-unknown-alpn", "an ALPN that nobody knows", "acme-db/plain:9999", alpn=("h3",)),
    _talks(
        "tcp-peer-exchange",
        "ALPN `istio-peer-exchange`",
        "acme-db/plain:9999",
        alpn=("istio-peer-exchange",),
    ),
    _talks(
        "tcp-admin",
        "the admin port by ALPN `istio`",
        "acme-db/hello:8022",
        b"GET /drain-complete HTTP/1.1\r\nHost: x\r\n\r\n",
        alpn=("istio",),
    ),
    Attack(
        "tcp-declared",
        "talks to a raw TCP port of a Service (the greeting of a server that speaks first gets"
        " out: see SECURITY.md)",
        "tcp at the pod",
        Played(talks("mallory/plain", "acme-db/plain:7000", b"mine\r\n"), "greeted"),
        Played(talks("acme-web/plain", "acme-db/plain:7000", b"mine\r\n"), "greeted, echoed"),
        rules.TCP,
        "greeted, echoed",
    ),
    Attack(
        "greeting",
        "connects to an unlisted port and waits: a server that speaks first greets before anybody"
        " is asked",
        "tcp: Envoy connects to the app only after the client has spoken and was let in",
        Played(greeter(talks("mallory/plain", "acme-db/plain:7777", b"")), "nothing"),
        Played(greeter(talks("acme-web/plain", "acme-db/plain:7777", b"hello")), "greeted"),
        rules.HOLD,
        "greeted",
    ),
    *(
        Attack(
            f"http-alpn-{port}",
            f"raw bytes on port {port}, a listed HTTP port, by ALPN `istio`: there is no raw chain",
            "Istio: a listed HTTP port has an HTTP chain only; verify on it",
            Played(talks("mallory/plain", f"acme-db/hello:{port}", ASK), "403"),
            Played(
                talks("acme-web/plain", f"acme-db/hello:{port}", ASK),
                "200" if port < 9000 else "404",
            ),
            rules.VERIFY,
            "200" if port < 9000 else "404",
        )
        for port in (8012, 8013, 9090, 9091)
    ),
    *(
        Attack(
            f"scrape-{name}",
            f"what is open on port 9090 without us: {does}",
            "scrape.yaml opens it to two principals and one path; else verify",
            Played(
                past("mallory/plain", "acme-db/hello:9090", path=path, headers=headers), MISSING
            ),
            Played(
                past("knative-serving/autoscaler", "acme-db/hello:9090", path="/metrics"), "200"
            ),
            rules.SCRAPE if path == "/metrics" else None,
            "200" if path == "/metrics" else "",
            noticed=""
            if path == "/metrics"
            else "tests/envoy/test_scrape.py::test_everybody_else_is_asked_about",
        )
        for name, does, path, headers in (
            (
                "headers",
                "all headers of the autoscaler",
                "/metrics",
                (("accept", "application/protobuf"),),
            ),
            ("dots", "dots in the path", "/x/../metrics", ()),
            ("slashes", "two slashes", "//metrics", ()),
            ("query", "a query", "/metrics?x", ()),
            ("encoded", "an encoded path", "/%6detrics", ()),
        )
    ),
    Attack(
        "scrape-other-path",
        "somebody who may scrape asks for more than /metrics",
        "scrape.yaml: the exact path; verify knows no exemption for it",
        Played(past("monitoring/prometheus", "acme-db/hello:9090", path="/metrics/x"), MISSING),
        Played(past("monitoring/prometheus", "acme-db/hello:9090", path="/metrics"), "200"),
        rules.SCRAPE_PATH,
        "404",
    ),
    Attack(
        "scrape-user-metrics-path",
        "Prometheus asks on port 9091 for more than it is exempt for",
        "policy: an exemption names one exact path",
        Played(past("monitoring/prometheus", "acme-db/hello:9091", path="/metrics/"), MISSING),
        Played(past("monitoring/prometheus", "acme-db/hello:9091", path="/metrics"), "200"),
        noticed=f"{MUTATION}[exempt below a path]",
    ),
    Attack(
        "claims-platform",
        "says in X-Forwarded-Client-Cert that it is the activator",
        "Envoy tells the peer of the connection, whatever headers say",
        Played(
            past(
                "mallory/plain",
                "acme-db/hello:8012",
                headers=[
                    (
                        "x-forwarded-client-cert",
                        "By=x;URI=spiffe://cluster.local/ns/knative-serving/sa/activator",
                    )
                ],
            ),
            MISSING,
        ),
        Played(past("acme-web/plain", "acme-db/hello:8012"), HELLO),
        rules.VERIFY,
        HELLO,
    ),
    Attack(
        "question-headers",
        "sends the metadata of our questions as headers of the request",
        "the filters' own metadata; nothing of a request becomes metadata",
        Played(
            past(
                "mallory/plain",
                "acme-db/hello:8012",
                headers=[
                    ("x-authz-question", "sign"),
                    ("x-authz-hop", "activator"),
                    ("x-authz-upstream", "outbound|80||hello.mallory.svc.cluster.local"),
                    ("x-tenant-authz-reason", "none"),
                ],
            ),
            MISSING,
        ),
        Played(past("acme-web/plain", "acme-db/hello:8012"), HELLO),
        rules.VERIFY,
        HELLO,
    ),
    Attack(
        "no-sidecar",
        "a pod without a sidecar, in plaintext",
        "Istio's STRICT; where it is PERMISSIVE, verify: plaintext proves nobody",
        Played(call(ATTACKER, "http://plain.acme-db/"), "no answer"),
        Played(call("acme-web/plain", "http://plain.acme-db/"), PLAIN),
        rules.STRICT,
        PLAIN,
    ),
    Attack(
        "uid-1337",
        "a process with the sidecar's own uid, past iptables, in plaintext",
        "Istio's STRICT; where it is PERMISSIVE, verify: plaintext proves nobody",
        Played(call("mallory/plain", "http://plain.acme-db/", through_sidecar=False), "no answer"),
        Played(call("acme-web/plain", "http://plain.acme-db/"), PLAIN),
        rules.STRICT,
        PLAIN,
    ),
    Attack(
        "pod-address",
        "calls a pod by address through its sidecar: passed through in plaintext",
        "Istio's STRICT; no token is made for an address",
        Played(call("mallory/plain", "http://x/", via="10.244.0.99:8012"), "503"),
        Played(call("acme-web/plain", "http://plain.acme-db/"), PLAIN),
        noticed="tests/mesh/test_paths.py::test_strict_refuses_plaintext",
    ),
    *(
        Attack(
            f"foreign-domain-{name}",
            does,
            "Istio: a pod's TLS takes the mesh's trust domain only; in the service, only those that"
            " the policy lists",
            Played(past(f"spiffe://{domain}/ns/{who}", "acme-db/hello:8012"), "no answer"),
            Played(past(f"spiffe://cluster.local/ns/{twin}", "acme-db/hello:8012"), HELLO),
            noticed=f"{MUTATION}[peers of any trust domain]",
        )
        for name, domain, who, twin, does in (
            (
                "tenant",
                "other.domain",
                "acme-web/sa/plain",
                "acme-web/sa/plain",
                "the victim's name in a federated trust domain",
            ),
            (
                "prefix",
                "cluster.local.evil",
                "acme-web/sa/plain",
                "acme-web/sa/plain",
                "a trust domain that begins like ours",
            ),
        )
    ),
    *(
        Attack(
            f"namespace-{who}",
            does,
            "policy: names are compared whole",
            Played(
                past(f"spiffe://cluster.local/ns/{who}/sa/plain", "acme-db/hello:8012"), MISSING
            ),
            Played(
                past("spiffe://cluster.local/ns/acme-web/sa/plain", "acme-db/hello:8012"), HELLO
            ),
            rules.PREFIX if "acme-db".startswith(who) or who.startswith("acme-db") else None,
            HELLO,
            noticed="tests/test_names.py::test_namespaces_that_share_a_prefix_are_strangers",
        )
        for who, does in (
            ("acme", "its namespace is a prefix of the victim's, and the tenant's name"),
            ("acme-db-2", "the victim's namespace is a prefix of its own"),
            ("x-acme-db", "its namespace ends with the victim's"),
            ("acmexdb", "its namespace differs where a pattern would not"),
        )
    ),
    Attack(
        "outage",
        "the service is down",
        "verify fails closed",
        Played(while_down(call("mallory/plain", "http://plain.acme-db/")), "503"),
        Played(call("acme-web/plain", "http://plain.acme-db/"), PLAIN),
        rules.FAILS_OPEN,
        PLAIN,
    ),
    Attack(
        "outage-tcp",
        "the same on raw TCP",
        "tcp fails closed",
        Played(while_down(talks("mallory/plain", "acme-db/plain:9999", ASK)), "nothing"),
        Played(while_down(call("acme-web/plain", "http://outside.test/")), "200 outside/server"),
        noticed="tests/envoy/test_tcp.py::test_without_us_the_connection_is_closed",
    ),
    Attack(
        "outage-told",
        "learns from a header of sign's failure mode that the service is down",
        "sign does not set failure_mode_allow_header_add",
        Played(outage_header(), "200 outside/server, no such header"),
        Played(call("acme-web/plain", "http://outside.test/"), "200 outside/server"),
        without=rules.TELLS_FAILURE,
        gets="200 outside/server, the header",
    ),
    *(
        Attack(
            f"framing-{name}",
            does,
            "Envoy frames a request once, for routing, for us and for the app; verify at the pod",
            Played(raw_http("mallory/plain", "plain.acme-db:80", head), "403"),
            Played(raw_http("acme-web/plain", "plain.acme-db:80", head), reaches),
            rules.VERIFY,
            reaches,
        )
        for name, head, reaches, does in FRAMING
    ),
    *(
        Attack(
            f"framing-{name}",
            does,
            "Envoy: refused, or no name of a service",
            Played(raw_http("mallory/plain", "plain.acme-db:80", head), outcome),
            Played(raw_http("acme-web/plain", "plain.acme-db:80", GET), PLAIN),
            noticed="tests/mesh/test_paths.py::test_strict_refuses_plaintext",
        )
        for name, head, outcome, does in MALFORMED
    ),
    Attack(
        "framing-connect-http2",
        "CONNECT in HTTP/2, with a path",
        "Envoy: malformed",
        Played(
            call("mallory/plain", "http://plain.acme-db/", http2=True, method="CONNECT"),
            "no answer",
        ),
        Played(call("acme-web/plain", "http://plain.acme-db/", http2=True), PLAIN),
        noticed="tests/mesh/test_paths.py::test_http2_from_end_to_end",
    ),
    *(
        Attack(
            f"scoped-{name}",
            "calls a Knative Service whose VirtualService a `Sidecar` hides: by the local gateway",
            "transit at the local gateway: no grant",
            Played(scoped("mallory/plain", call("mallory/plain", url)), NOT_ALLOWED),
            Played(scoped("acme-web/plain", call("acme-web/plain", url)), reaches),
            rules.NO_GRANT,
            reaches,
        )
        for name, url, reaches in (
            ("awake", "http://hello.acme-db/", HELLO),
            ("idle", "http://idle.acme-db.svc.cluster.local/", "200 acme-db/idle"),
        )
    ),
]
