"""The activator, gateways and probes: whoever passes on what others send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from authz.testing import INVALID, MISSING, NOT_ALLOWED
from tests.attacks import rules
from tests.attacks.actions import call, past, signed, steered, wakes
from tests.attacks.box import Action
from tests.attacks.row import MUTATION, ROW, Attack, Played

HELLO: Final = "200 acme-db/hello"
IDLE: Final = "200 acme-db/idle"
ACTIVATOR: Final = "knative-serving/activator:8012"
MALLORYS: Final = signed("mallory/plain", "idle-00001.mallory")


def _at_activator(headers: Sequence[tuple[str, str]], host: str = "x") -> Action:
    return past("mallory/plain", ACTIVATOR, token=MALLORYS, headers=headers, host=host)


TWIN: Final = Played(call("acme-web/plain", "http://idle.acme-db/"), IDLE)
OWN_HOST: Final = "idle-00001.mallory.svc.cluster.local"
PROBE: Final = ("K-Network-Probe", "queue")


ROWS: Final = [
    Attack(
        "steered",
        "steers the activator to somebody else's revision, with a token for its own",
        "transit looks at the same two headers as the activator",
        Played(wakes(_at_activator(steered("acme-db"), OWN_HOST)), "403 token-invalid, asleep"),
        Played(wakes(call("acme-web/plain", "http://idle.acme-db/")), "200 acme-db/idle, woken"),
        rules.STEERING,
        "403 token-invalid, woken",
    ),
    Attack(
        "steered-by-sidecar",
        "the same through its own sidecar",
        "transit: the token is for knative-serving",
        Played(
            call(
                "mallory/plain",
                "http://activator-service.knative-serving/",
                headers=steered("acme-db"),
            ),
            INVALID,
        ),
        TWIN,
        noticed=f"{ROW}[verify-meant-for-another]",
    ),
    *(
        Attack(
            f"steered-{name}",
            f"the activator's headers: {does}",
            "transit denies where it cannot tell the destination",
            Played(_at_activator(headers, host), outcome),
            TWIN,
            noticed="tests/decision/test_transit.py"
            "::test_transit_denies_where_it_cannot_tell_the_destination",
        )
        for name, headers, host, outcome, does in (
            (
                "one",
                steered("acme-db")[:1],
                "idle-00001.acme-db.svc.cluster.local",
                INVALID,
                "one of the two, the victim in the Host",
            ),
            (
                "twice",
                [*steered("mallory"), *steered("acme-db")],
                OWN_HOST,
                NOT_ALLOWED,
                "both twice",
            ),
            (
                "comma",
                [
                    ("Knative-Serving-Namespace", "mallory,acme-db"),
                    ("Knative-Serving-Revision", "idle-00001"),
                ],
                OWN_HOST,
                NOT_ALLOWED,
                "two namespaces by a comma",
            ),
            (
                "revisions",
                [
                    ("Knative-Serving-Namespace", "mallory"),
                    ("Knative-Serving-Revision", "idle-00001,x"),
                ],
                OWN_HOST,
                NOT_ALLOWED,
                "two revisions",
            ),
        )
    ),
    Attack(
        "denied-but-woken",
        "calls a scaled-to-zero service again and again, to keep its pods running",
        "transit at the activator denies before a pod is called for",
        Played(wakes(call("mallory/plain", "http://idle.acme-db/")), "403 not-allowed, asleep"),
        Played(wakes(call("acme-web/plain", "http://idle.acme-db/")), "200 acme-db/idle, woken"),
        rules.TRANSIT,
        "403 not-allowed, woken",
    ),
    Attack(
        "original-host",
        "says in K-Original-Host that it calls its own service",
        "D is the namespace of the pod that asks, whatever the Host says",
        Played(
            past(
                "mallory/plain",
                "acme-db/hello:8012",
                token=MALLORYS,
                headers=[("K-Original-Host", OWN_HOST)],
            ),
            INVALID,
        ),
        Played(past("acme-web/plain", "acme-db/hello:8012"), HELLO),
        rules.VERIFY,
        HELLO,
    ),
    Attack(
        "activators-metrics",
        "the activator's port for metrics, where transit is not asked",
        "verify on the activator's other ports",
        Played(past("mallory/plain", "knative-serving/activator:9090", path="/metrics"), MISSING),
        TWIN,
        noticed="tests/envoy/test_filters.py::test_a_hop_s_other_ports_ask_verify",
    ),
    Attack(
        "autoscaler",
        "reports to the autoscaler as if it were the activator",
        "verify in knative-serving",
        Played(call("mallory/plain", "http://autoscaler.knative-serving:8080/"), NOT_ALLOWED),
        TWIN,
        noticed="tests/mesh/test_paths.py::test_from_sidecar_to_activator_to_pod",
    ),
    *(
        Attack(
            f"probe-{name}",
            does,
            "a probe's headers exempt nobody; an exemption names a peer that passes nothing on,"
            " or is answered by queue-proxy itself",
            Played(past("mallory/plain", f"acme-db/hello:{port}", headers=headers), MISSING),
            Played(call("acme-web/plain", "http://idle.acme-db/"), IDLE),
            without,
            HELLO if gets == "app" else gets,
        )
        for name, port, headers, without, gets, does in (
            ("queue", 8012, [PROBE], rules.PROBE_HEADER, "app", "sends K-Network-Probe: queue"),
            (
                "kubelet-port",
                8080,
                [("User-Agent", "kube-probe/1.33")],
                rules.PROBE_AGENT,
                "app",
                "a kubelet's agent on the app's port",
            ),
            (
                "kubelet-header",
                8012,
                [("K-Kubelet-Probe", "queue"), PROBE],
                rules.PROBE_HEADER,
                "app",
                "sends K-Kubelet-Probe, which queue-proxy passes to the app",
            ),
            (
                "ingress",
                8012,
                [("User-Agent", "Knative-Ingress-Probe")],
                rules.PROBE_AGENT,
                "app",
                "the ingress prober's agent, which queue-proxy passes to the app",
            ),
            (
                "activator",
                8012,
                [("User-Agent", "Knative-Activator-Probe"), PROBE],
                rules.PROBE_AGENT,
                "200",
                "all of the activator's probe",
            ),
        )
    ),
    Attack(
        "probe-through-gateway",
        "the ingress prober's agent, from outside through the gateway",
        "the gateway is exempt for the whole of a probe, which queue-proxy answers itself",
        Played(
            call(
                "outside/server",
                "http://slip.example.com/",
                headers=[("User-Agent", "Knative-Ingress-Probe")],
            ),
            NOT_ALLOWED,
        ),
        Played(
            call(
                "outside/server",
                "http://slip.example.com/healthz",
                headers=[
                    ("User-Agent", "Knative-Ingress-Probe"),
                    ("K-Network-Probe", "probe"),
                    ("K-Network-Hash", "x"),
                ],
            ),
            "200",
        ),
        rules.INGRESS_PROBE,
        HELLO,
    ),
    Attack(
        "probe-through-activator",
        "a probe's agent through the activator, which would pass it on as its own",
        "transit counts none of the activator's exemptions",
        Played(
            past(
                "mallory/plain",
                ACTIVATOR,
                headers=[*steered("acme-db"), ("User-Agent", "Knative-Activator-Probe")],
            ),
            MISSING,
        ),
        TWIN,
        noticed=f"{MUTATION}[an activator's probe may wake pods]",
    ),
    Attack(
        "local-gateway-own-token",
        "names somebody else's private service at the local gateway, with its own token",
        "transit at the local gateway: no grant",
        Played(
            past(
                "mallory/plain",
                "istio-system/gateway:8081",
                host="hello.acme-db.svc.cluster.local",
                token=signed("mallory/plain", "hello-00001.acme-db"),
            ),
            NOT_ALLOWED,
        ),
        Played(
            past(
                "acme-web/plain",
                "istio-system/gateway:8081",
                host="hello.acme-db.svc.cluster.local",
                token=signed("acme-web/plain", "hello-00001.acme-db"),
            ),
            HELLO,
        ),
        rules.NO_GRANT,
        HELLO,
    ),
    Attack(
        "local-gateway-other-host",
        "names somebody else's service there, with a token for its own",
        "transit: D is where the gateway sends it",
        Played(
            past(
                "mallory/plain",
                "istio-system/gateway:8081",
                host="hello.acme-db.svc.cluster.local",
                token=MALLORYS,
            ),
            INVALID,
        ),
        TWIN,
        rules.DESTINATION_AND_GRANT,
        HELLO,
    ),
    Attack(
        "foreign-domain-mapping",
        "maps a public domain of its own to somebody else's private service",
        "public: the token is for the namespace of the mapping; transit at the local gateway",
        Played(call("outside/server", "http://remapped.example.com/"), INVALID),
        Played(call("outside/server", "http://mapped.example.com/"), "200 acme-web/hello"),
        rules.DESTINATION_AND_PUBLIC,
        HELLO,
    ),
    Attack(
        "local-gateway-no-token",
        "the same without a token: the pod would see the gateway's identity",
        "transit and verify: a peer with a role is not let in by its identity",
        Played(
            past(
                "mallory/plain",
                "istio-system/gateway:8081",
                host="hello.acme-db.svc.cluster.local",
            ),
            MISSING,
        ),
        TWIN,
        noticed=f"{MUTATION}[role holders count as ordinary peers]",
    ),
    Attack(
        "internal-host-outside",
        "names an internal host at the public gateway",
        "Istio: the public listener has no such route",
        Played(
            call(
                "outside/server",
                "http://hello.acme-web.example.com/",
                headers=[("host", "hello.acme-db.svc.cluster.local")],
            ),
            "404",
        ),
        Played(call("outside/server", "https://hello.acme-web.example.com/"), "200 acme-web/hello"),
        noticed="tests/mesh/test_paths.py::test_what_is_private_has_no_route_from_outside",
    ),
]
