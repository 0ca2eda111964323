"""The rules that stop attacks, and the box without each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from authz.lab.world import attacked as worlds
from authz.lab.world.model import Json
from tests.attacks.box import (
    NAMESPACES,
    Documents,
    Without,
    changed_filter,
    policy,
    without_document,
    without_rule,
)
from tests.mutations import MUTATIONS, Mutation

_EXEMPT: Final = "    for exemption in exemptions:"
_TABLES: Final = '"""What each question is decided by."""'
_KNOWN: Final = {mutation.name: mutation for mutation in MUTATIONS}


def _rule(*names: str) -> Without:
    return without_rule(*(_KNOWN[name] for name in names))


def _row(*names: str) -> Without:
    """Without rows of the decision tables."""
    return without_rule(*map(_dropped, names))


def _dropped(name: str) -> Mutation:
    kept = f"{{q: tuple(r for r in rows if r.name != {name!r}) for q, rows in TABLES.items()}}"
    return Mutation(name, "decision", _TABLES, f"{_TABLES}\nTABLES = {kept}  # type: ignore", "")


def _own(name: str, module: str, rule: str, instead: str) -> Without:
    return without_rule(Mutation(name, module, rule, instead, ""))


def _patches(number: int) -> Callable[[Json], None]:
    return lambda spec: spec["configPatches"].pop(number)


def _verify_open(spec: Json) -> None:
    spec["configPatches"][0]["patch"]["value"]["typed_config"]["failure_mode_allow"] = True


def _tells_failure(spec: Json) -> None:
    typed = spec["configPatches"][0]["patch"]["value"]["typed_config"]
    typed["failure_mode_allow_header_add"] = True
    typed["decoder_header_mutation_rules"] = {}


def _no_transit(spec: Json) -> None:
    """What takes away the other filters stays."""
    del spec["configPatches"][:2]


def _nothing_asks(documents: Documents) -> list[Json]:
    ours = {"tenant-authz-verify", "tenant-authz-broker", "tenant-authz-channel"}
    ours |= {"tenant-authz-scrape", "tenant-authz-transit", "tenant-authz-local-gateway"}
    ours |= {"tenant-authz-filter"}
    return [
        document
        for document in documents
        if not (document["kind"] == "EnvoyFilter" and document["metadata"]["name"] in ours)
    ]


# -- what is installed in the mesh --

VICTIMS: Final = ("acme-db/hello", "acme-db/idle", "acme-db/plain")
VERIFY: Final = without_document("tenant-authz-verify", *VICTIMS)
FAILS_OPEN: Final = changed_filter(
    "verify fails open", "tenant-authz-verify", _verify_open, "acme-db/plain"
)
TCP: Final = without_document("tenant-authz-tcp", "acme-db/hello", "acme-db/plain")
HOLD: Final = changed_filter(
    "tcp without `upstream_connect_mode: ON_DOWNSTREAM_DATA`",
    "tenant-authz-tcp",
    _patches(-1),
    "acme-db/plain",
)
SCRAPE: Final = changed_filter(
    "scrape for any principal",
    "tenant-authz-scrape",
    lambda spec: spec["configPatches"][0]["patch"]["value"]["typed_config"]["shadow_rules"][
        "policies"
    ]["scrape"].update(principals=[{"any": True}]),
    "acme-db/hello",
)
SCRAPE_PATH: Final = changed_filter(
    "scrape for any path",
    "tenant-authz-scrape",
    lambda spec: spec["configPatches"][0]["patch"]["value"]["typed_config"]["shadow_rules"][
        "policies"
    ]["scrape"].update(permissions=[{"any": True}]),
    "acme-db/hello",
)
PUBLIC: Final = without_document("tenant-authz-public", "istio-system/gateway")
LOCAL_QUESTION: Final = changed_filter(
    "local-gateway without its question",
    "tenant-authz-local-gateway",
    _patches(0),
    "istio-system/gateway",
)
MUTUAL_GATEWAY: Final = changed_filter(
    "local-gateway without its question, Gateway and DestinationRule",
    "tenant-authz-local-gateway",
    _patches(0),
    "istio-system/gateway",
    left_out="knative-local-gateway",
)
BROKER: Final = Without(
    "without EnvoyFilter `tenant-authz-broker`, with grants into Eventing and out of it",
    without_document("tenant-authz-broker").documents,
    ("knative-eventing/broker-ingress",),
    policy=policy(
        {"to": "knative-eventing", "from": "*"}, {"to": "acme-web", "from": "knative-eventing"}
    ),
)
JOB_SINK: Final = Without(
    "without EnvoyFilter `tenant-authz-job-sink`, with a grant into Eventing for everybody",
    without_document("tenant-authz-job-sink").documents,
    ("knative-eventing/job-sink",),
    policy=policy({"to": "knative-eventing", "from": "*"}),
)
REQUEST_REPLY: Final = Without(
    "without EnvoyFilters `tenant-authz-request-reply` and `tenant-authz-broker`, with grants into "
    "Eventing and out of it",
    lambda documents: [
        document
        for document in documents
        if document["metadata"]["name"] not in {"tenant-authz-request-reply", "tenant-authz-broker"}
    ],
    ("knative-eventing/request-reply", "knative-eventing/broker-ingress"),
    policy=policy(
        {"to": "knative-eventing", "from": "*"}, {"to": "acme-web", "from": "knative-eventing"}
    ),
)
CARRY: Final = changed_filter(
    "the broker's ingress takes what a client says that it carries",
    "tenant-authz-carry",
    _patches(0),
    "knative-eventing/broker-ingress",
)
CHANNEL: Final = Without(
    "without EnvoyFilter `tenant-authz-channel`, and nothing that asks in its place",
    _nothing_asks,
    ("knative-eventing/imc-dispatcher",),
)
CHANNEL_BY_HOST: Final = _rule("a channel is told by its Host alone")
DISPATCHER_ALONE: Final = Without(
    "without AuthorizationPolicy `tenant-authz-filter` and the question of the EnvoyFilter",
    lambda documents: [
        it for it in _nothing_asks(documents) if it["kind"] != "AuthorizationPolicy"
    ],
    ("knative-eventing/broker-filter",),
)
TRIGGER_QUESTION: Final = changed_filter(
    "the broker's filter without its question",
    "tenant-authz-filter",
    _patches(0),
    "knative-eventing/broker-filter",
)


TRANSIT: Final = changed_filter(
    "without EnvoyFilter `tenant-authz-transit`, and nothing that asks in its place",
    "tenant-authz-transit",
    _no_transit,
    "knative-serving/activator",
)
STRICT: Final = Without(
    "PERMISSIVE instead of STRICT, and without EnvoyFilter `tenant-authz-verify`",
    lambda documents: [
        *_nothing_asks(documents),
        worlds.mutual_tls("acme-db", "PERMISSIVE"),
    ],
    VICTIMS,
)
TELLS_FAILURE: Final = changed_filter(
    "sign with `failure_mode_allow_header_add`",
    "tenant-authz-sign",
    _tells_failure,
    "acme-web/plain",
)

# -- what the server decides by --

PRESENTER: Final = _row("stranger")
PRESENTER_AND_DESTINATION: Final = _row("stranger", "meant-for-another")
DESTINATION_AND_GRANT: Final = without_rule(
    _dropped("meant-for-another"), _KNOWN["grants are for everybody"]
)
DESTINATION_AND_PUBLIC: Final = _row("meant-for-another", "not-public")
PUBLIC_PRESENTER: Final = _own(
    "anybody may present a public token, and a namespace alone",
    "entry",
    "return source != PUBLIC and (\n        case.peer.namespace == source or",
    "return source == PUBLIC or (\n        case.peer.namespace == source or",
)
MEANT_FOR: Final = _row("meant-for-another")
SEVERAL: Final = _row("token-repeated")
SIGNATURE: Final = _rule("any signature")
EXPIRY: Final = _rule("expired tokens")
FUTURE: Final = _rule("tokens from the future")
REVOCATION: Final = _rule("revoked generations verify", "old generations verify for ever")
NO_GRANT: Final = _rule("grants are for everybody")
ACCOUNT: Final = _rule("grants are for every account")
ANY_PORT: Final = _rule("grants are for every port")
PORT_OF_THE_ACTIVATOR: Final = _rule("a grant for any port wakes pods")
PORT_OF_EVENTS: Final = _rule("a grant for a port opens hops that go by the path")
ACCOUNT_PATTERN: Final = _own(
    "accounts of grants are patterns",
    "policy",
    "short_account(self.service_account) == service_account)",
    "__import__('re').fullmatch(short_account(self.service_account), service_account))",
)
PREFIX: Final = _own(
    "namespaces that begin alike belong together",
    "policy",
    "if one == other:",
    "if one.startswith(other) or other.startswith(one):",
)
PUBLIC_EVERYWHERE: Final = _row("not-public")
STEERING: Final = _rule("the activator's headers are not looked at")
UNKNOWN_UPSTREAM: Final = _own(
    "what goes to none of our clusters is signed for, too",
    "destination",
    "return None if service is None else service.namespace",
    "return facts.caller.namespace if service is None else service.namespace",
)
SIGN_BY_HOST: Final = _rule("sign by Host")
KEEP_OUTSIDE: Final = _rule("external requests keep what the client sent")
BY_VIRTUAL_SERVICE: Final = _own(
    "at a gateway, the VirtualService tells the destination",
    "destination",
    "if service is None or service not in policy.relays:",
    "if not at_gateway and (service is None or service not in policy.relays):",
)
ANY_ROUTE: Final = _row("not-theirs-to-open")
ASKED_BY_THE_GATEWAY: Final = _row("not-theirs-to-open", "to-ourselves")
ASKED_BY_A_PROXY: Final = _row("not-theirs-to-open", "to-ourselves", "forwarded")
PASSED_ON: Final = _row("forwarded")
TO_OURSELVES: Final = _row("to-ourselves")
ANY_ROUTE_AND_PUBLIC: Final = _row("not-theirs-to-open", "not-public")
UNLISTED: Final = Without(
    "with a policy that lists no Services of initech",
    policy=policy(namespaces={**NAMESPACES, "initech": {"public": True}}),
)
NAMES_TOLD: Final = Without(
    "with a policy that does not say how services are named", policy=policy(host_templates=[])
)
PLATFORMS_ROUTES: Final = Without(
    "with a policy in which istio-system's routes open everybody",
    policy=policy(route_owners=["istio-system"]),
)
ON_BEHALF: Final = _rule("everybody signs on behalf of others")
TRANSIT_ROLE: Final = _row("hop-only")
PUBLIC_ROLE: Final = _row("gateway-only")
ANY_QUESTION: Final = _rule("any question")
ANY_CALLER: Final = _row("caller-untrusted")
ROLE_BY_NAMESPACE: Final = _own(
    "a role is for the whole namespace",
    "policy",
    "return self.roles.get(workload, NO_ROLES)",
    "return next((held for it, held in self.roles.items()"
    " if it.namespace == workload.namespace), NO_ROLES)",
)
PROBE_HEADER: Final = _own(
    "whoever sends K-Network-Probe is exempt",
    "entry",
    _EXEMPT,
    f"    if facts.network_probe:\n        return case.let_in(Ground.EXEMPT)\n{_EXEMPT}",
)
PROBE_AGENT: Final = _own(
    "whoever says that it is a probe is exempt",
    "entry",
    _EXEMPT,
    f'    if "robe" in facts.user_agent:\n        return case.let_in(Ground.EXEMPT)\n{_EXEMPT}',
)
INGRESS_PROBE: Final = _own(
    "a gateway's user agent is exempt",
    "policy",
    'Role.GATEWAY: _probes("Knative-Ingress-Probe", "probe"),',
    'Role.GATEWAY: tuple(Exemption(p, user_agent="Knative-Ingress-Probe") for p in (8012, 8013)),',
)
QUEUE_PROXY: Final = _rule("pods without queue-proxy answer probes")


def probe_and(*names: str) -> Without:
    """Without the rule that a pod must have queue-proxy, and without these of what a probe is."""
    return _rule("pods without queue-proxy answer probes", *names)


PEER_FIRST_FOR_ROLES: Final = Without(
    "a grant to Eventing as a whole, as others have, and no role on-behalf-of",
    policy=policy(
        *({"to": it, "from": "knative-eventing"} for it in ("acme-db", "mallory")),
        roles={
            "transit": [
                "spiffe://cluster.local/ns/knative-serving/sa/activator",
                "spiffe://cluster.local/ns/knative-eventing/sa/imc-dispatcher",
                "spiffe://cluster.local/ns/knative-eventing/sa/mt-broker-ingress",
                "spiffe://cluster.local/ns/knative-eventing/sa/mt-broker-filter",
            ]
        },
    ),
)
