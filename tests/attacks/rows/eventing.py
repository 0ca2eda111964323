"""Knative Eventing: whatever a tenant may create makes the platform send requests."""

from __future__ import annotations

from typing import Final

from tests.attacks import rules
from tests.attacks.actions import (
    TTL,
    broker_at,
    eventing,
    ping,
    post,
    signed,
    sinks,
    smuggling,
    steered,
    subscription,
    trigger_of,
    triggers,
)
from tests.attacks.row import MUTATION, ROW, Attack, Played

DOMAIN: Final = "svc.cluster.local"
BROKER: Final = f"http://broker-ingress.knative-eventing.{DOMAIN}"
CHANNEL: Final = "http://events-kn-channel.{}." + DOMAIN + "/"
TWIN: Final = Played(
    eventing(post("acme-web/plain", f"{BROKER}/acme-web/default")), "202, 1 events"
)
MINE: Final = post("mallory/plain", CHANNEL.format("mallory"), TTL)
SINK: Final = f"http://job-sink.knative-eventing.{DOMAIN}"
REPLY: Final = f"http://request-reply.knative-eventing.{DOMAIN}"
JOBS: Final = "knative-eventing/job-sink"
SINK_TWIN: Final = Played(
    eventing(sinks(post("acme-db/plain", f"{SINK}/acme-web/jobs")), JOBS), "202, 1 events"
)

ROWS: Final = [
    Attack(
        "trigger",
        "creates a Trigger whose subscriber is somebody else's private service",
        "Eventing signs for the namespace that the Trigger belongs to; verify: no grant",
        Played(eventing(MINE), "500, 0 events"),
        TWIN,
        rules.PEER_FIRST_FOR_ROLES,
        "202, 1 events",
    ),
    Attack(
        "pingsource",
        "creates a PingSource whose sink is somebody else's private service",
        "the PingSource signs for its namespace; verify: no grant",
        Played(eventing(ping("mallory", f"http://hello.acme-db.{DOMAIN}/")), "403, 0 events"),
        Played(eventing(ping("acme-web", f"http://hello.acme-db.{DOMAIN}/")), "202, 1 events"),
        rules.PEER_FIRST_FOR_ROLES,
        "202, 1 events",
    ),
    Attack(
        "names-namespace",
        "says in Kn-Namespace that it sends for acme-web, from its own pod",
        "sign: only Eventing's accounts may speak for others",
        Played(
            eventing(
                post(
                    "mallory/plain",
                    f"http://hello.acme-db.{DOMAIN}/",
                    ("Kn-Namespace", "acme-web"),
                )
            ),
            "403 not-allowed, 0 events",
        ),
        Played(
            eventing(post("acme-web/plain", f"http://hello.acme-db.{DOMAIN}/")), "202, 1 events"
        ),
        noticed=f"{MUTATION}[everybody signs on behalf of others]",
    ),
    Attack(
        "names-namespace-event",
        "sends Kn-Namespace with an event, for Eventing to pass on",
        "Eventing sets the header itself",
        Played(
            eventing(
                post("mallory/plain", CHANNEL.format("mallory"), TTL, ("Kn-Namespace", "acme-web"))
            ),
            "500, 0 events",
        ),
        TWIN,
        noticed="tests/knative/test_eventing.py::test_the_trigger_s_namespace_replaces_what_was_sent",
    ),
    Attack(
        "broker",
        "sends an event into somebody else's broker",
        "transit at broker-ingress: the namespace in the path",
        Played(
            eventing(post("mallory/plain", f"{BROKER}/acme-web/default")),
            "403 not-allowed, 0 events",
        ),
        TWIN,
        rules.BROKER,
        "202, 1 events",
    ),
    Attack(
        "broker-path",
        "the same by a path that is read in two ways",
        "Envoy normalises; transit takes the first segment or denies",
        Played(
            eventing(post("mallory/plain", f"{BROKER}/mallory/../acme-web/default")),
            "403 not-allowed, 0 events",
        ),
        TWIN,
        rules.BROKER,
        "202, 1 events",
    ),
    *(
        Attack(
            f"broker-path-{name}",
            "the same by a path that Envoy leaves alone",
            "transit takes a first segment that is a namespace, or denies",
            Played(eventing(post("mallory/plain", f"{BROKER}{path}")), f"{status}, 0 events"),
            TWIN,
            noticed="tests/decision/test_transit.py"
            "::test_transit_denies_where_it_cannot_tell_the_destination",
        )
        for name, path, status in (
            ("slashes", "//acme-web/default", "403 not-allowed"),
            ("encoded", "/acme%2dweb/default", "403 not-allowed"),
            ("encoded-slash", "/mallory%2f..%2facme-web/default", "403 not-allowed"),
            ("fragment", "/acme-web/default#/../../mallory/default", "403 not-allowed"),
        )
    ),
    Attack(
        "broker-elsewhere",
        "writes somebody else's channel into its own broker's status, and sends an event",
        "transit at the dispatcher: the broker's ingress carries the token of whoever sent",
        Played(
            eventing(
                broker_at(
                    CHANNEL.format("acme-web"), post("mallory/plain", f"{BROKER}/mallory/default")
                )
            ),
            "403, 0 events",
        ),
        TWIN,
        rules.CHANNEL,
        "202, 1 events",
    ),
    Attack(
        "broker-smuggled",
        "the same, with a stolen token under the name by which the broker's ingress carries one",
        "what a client wrote under that name is replaced by the token that transit let pass",
        Played(
            eventing(
                broker_at(
                    CHANNEL.format("acme-web"),
                    smuggling(
                        "mallory/plain",
                        f"{BROKER}/mallory/default",
                        signed("acme-web/plain", "broker-ingress.knative-eventing"),
                    ),
                )
            ),
            "403, 0 events",
        ),
        TWIN,
        rules.CARRY,
        "202, 1 events",
    ),
    Attack(
        "broker-outside",
        "writes an address outside the mesh into its own broker's status, to collect the tokens of"
        " whoever sends events",
        "sign removes the token on the way out of the mesh, of a hop too",
        "tests/decision/test_signing.py"
        "::test_a_transit_hop_takes_its_requests_token_off_on_the_way_out_of_the_mesh",
        "tests/decision/test_signing.py::test_a_transit_hop_passes_its_requests_token_on_untouched",
        noticed=f"{ROW}[sign-leaves-the-mesh]",
    ),
    Attack(
        "channel",
        "sends an event into somebody else's channel",
        "transit at the dispatcher: the namespace in the Host",
        Played(
            eventing(post("mallory/plain", CHANNEL.format("acme-web"), TTL)),
            "403 not-allowed, 0 events",
        ),
        Played(eventing(post("acme-web/plain", CHANNEL.format("acme-web"), TTL)), "202, 1 events"),
        rules.CHANNEL,
        "202, 1 events",
    ),
    Attack(
        "dispatcher",
        "the same by the dispatcher's own Service, with the channel's Host",
        "transit at the dispatcher: the namespace in the Host",
        Played(
            eventing(
                post(
                    "mallory/plain",
                    f"http://imc-dispatcher.knative-eventing.{DOMAIN}/",
                    ("host", f"events-kn-channel.acme-web.{DOMAIN}"),
                    TTL,
                )
            ),
            "403 not-allowed, 0 events",
        ),
        TWIN,
        rules.CHANNEL,
        "202, 1 events",
    ),
    Attack(
        "dispatcher-path",
        "the same with a Host of its own: the dispatcher believes the path",
        "transit at the dispatcher: the namespace in the path, before that in the Host",
        Played(
            eventing(
                post(
                    "mallory/plain",
                    f"http://imc-dispatcher.knative-eventing.{DOMAIN}/acme-web/events",
                    ("host", f"events-kn-channel.mallory.{DOMAIN}"),
                    TTL,
                )
            ),
            "403 token-invalid, 0 events",
        ),
        Played(
            eventing(
                post(
                    "acme-web/plain",
                    f"http://imc-dispatcher.knative-eventing.{DOMAIN}/acme-web/events",
                    ("host", f"events-kn-channel.acme-web.{DOMAIN}"),
                    TTL,
                )
            ),
            "202, 1 events",
        ),
        rules.CHANNEL_BY_HOST,
        "202, 1 events",
    ),
    Attack(
        "trigger-path",
        "sends an event to the broker's filter, at somebody else's trigger",
        "an AuthorizationPolicy lets in the dispatcher alone, and transit asks for the trigger's"
        " namespace",
        Played(
            eventing(post("mallory/plain", trigger_of("acme-web"), TTL)),
            "403 not-allowed, 0 events",
        ),
        TWIN,
        rules.DISPATCHER_ALONE,
        "202, 1 events",
    ),
    Attack(
        "deputy-trigger",
        "creates a Subscription whose subscriber is somebody else's trigger: the dispatcher sends"
        " there, and the filter would go on in the trigger's name",
        "transit at the broker's filter: the Subscription's namespace may not call the trigger's",
        Played(eventing(subscription(trigger_of("acme-web"), MINE)), "500, 0 events"),
        TWIN,
        rules.TRIGGER_QUESTION,
        "202, 1 events",
    ),
    Attack(
        "deputy-broker",
        "creates a Subscription whose subscriber is somebody else's broker",
        "the dispatcher signs for the Subscription's namespace; transit at broker-ingress",
        Played(eventing(subscription(f"{BROKER}/acme-web/default", MINE)), "500, 0 events"),
        TWIN,
        rules.BROKER,
        "202, 1 events",
    ),
    Attack(
        "job-sink",
        "sends an event to somebody else's JobSink, to start a Job there",
        "transit at job-sink: the namespace in the path",
        Played(
            eventing(sinks(post("mallory/plain", f"{SINK}/acme-web/jobs")), JOBS),
            "403 not-allowed, 0 events",
        ),
        SINK_TWIN,
        rules.JOB_SINK,
        "202, 1 events",
    ),
    *(
        Attack(
            f"job-sink-path-{name}",
            "the same by a path that is read in two ways, or asks what became of a Job",
            "transit goes by the number of segments, as the job sink does, or denies",
            Played(
                eventing(sinks(post("mallory/plain", f"{SINK}{path}")), JOBS),
                "403 not-allowed, 0 events",
            ),
            SINK_TWIN,
            noticed=f"{MUTATION}[a job sink is told by the first segment]",
        )
        for name, path in (
            ("dots", "/mallory/../acme-web/jobs"),
            ("encoded", "/acme%2dweb/jobs"),
            ("slashes", "//acme-web/jobs"),
            ("fragment", "/acme-web/jobs#/../../mallory/jobs"),
            ("status", "/mallory/acme-web/name/jobs/sources/s/ids/1"),
            ("status-encoded", "/namespaces/acme%2dweb/name/jobs/sources/s/ids/1"),
        )
    ),
    Attack(
        "deputy-job-sink",
        "creates a Subscription whose subscriber is somebody else's JobSink",
        "the dispatcher signs for the Subscription's namespace; transit at job-sink",
        Played(eventing(sinks(subscription(f"{SINK}/acme-web/jobs", MINE)), JOBS), "500, 0 events"),
        SINK_TWIN,
        rules.JOB_SINK,
        "202, 1 events",
    ),
    Attack(
        "request-reply",
        "sends an event to somebody else's RequestReply, which sends it to that one's broker",
        "transit at request-reply: the namespace in the path",
        Played(
            eventing(sinks(post("mallory/plain", f"{REPLY}/acme-web/asked"))),
            "403 not-allowed, 0 events",
        ),
        Played(eventing(sinks(post("acme-web/plain", f"{REPLY}/acme-web/asked"))), "200, 1 events"),
        rules.REQUEST_REPLY,
        "200, 1 events",
    ),
    Attack(
        "deputy-channel",
        "creates a Subscription whose subscriber is somebody else's channel",
        "the dispatcher signs for the Subscription's namespace; transit at the dispatcher",
        Played(eventing(subscription(CHANNEL.format("acme-web"), MINE)), "500, 0 events"),
        TWIN,
        rules.CHANNEL,
        "202, 1 events",
    ),
    Attack(
        "deputy-ping",
        "a PingSource whose sink is somebody else's broker",
        "the PingSource signs for its namespace; transit at broker-ingress",
        Played(eventing(ping("mallory", f"{BROKER}/acme-web/default")), "403, 0 events"),
        Played(eventing(ping("acme-web", f"{BROKER}/acme-web/default")), "202, 1 events"),
        rules.BROKER,
        "202, 1 events",
    ),
    Attack(
        "steered-event",
        "an event with the activator's headers, which Eventing passes on, to a subscriber that is"
        " the activator",
        "transit at the activator: the token is for knative-serving, and of mallory",
        Played(
            eventing(
                triggers(
                    f"http://activator-service.knative-serving.{DOMAIN}/",
                    post(
                        "mallory/plain",
                        CHANNEL.format("mallory"),
                        TTL,
                        *steered("acme-db", "hello-00001"),
                    ),
                )
            ),
            "500, 0 events",
        ),
        TWIN,
        noticed=f"{MUTATION}[the activator's headers are not looked at]",
    ),
    Attack(
        "token-in-event",
        "an event with a stolen token, for Eventing to pass on",
        "its sidecar replaces it, and Eventing passes it on to nobody",
        Played(
            eventing(
                post(
                    "mallory/plain",
                    CHANNEL.format("mallory"),
                    TTL,
                    token=signed("acme-web/plain", "hello-00001.acme-db"),
                )
            ),
            "500, 0 events",
        ),
        TWIN,
        noticed="tests/knative/test_eventing.py::test_only_these_headers_pass_through",
    ),
]
