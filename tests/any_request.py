"""Any request, from anybody, under any of some policies; and the boundary that answers it."""

from typing import Any

from hypothesis import strategies as st

from authz._proto.ext_authz_pb2 import AttributeContext, CheckRequest
from authz.domain import tokens
from authz.domain.decision import Rules
from authz.domain.facts import Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import Namespace
from authz.domain.policy import Grant, Mode, NamespacePolicy, Policy, Role
from authz.extauthz import AuthorizationService
from authz.testing import NOW, ManualClock, root_key, rules, workload

HEADER = "x-tenant-token"

SHOP, BANK = workload("shop", "till"), workload("bank", "vault")

ACTIVATOR = workload("knative-serving", "activator")

GATEWAY = workload("istio-system", "gateway")

ROLES = {ACTIVATOR: frozenset({Role.TRANSIT}), GATEWAY: frozenset({Role.GATEWAY})}

ENFORCING = rules(Policy(roles=ROLES))

TO_BANK = "outbound|80||vault.bank.svc.cluster.local"


def token(
    source: str = "shop", destination: str = "bank", *, keyring: Keyring | None = None
) -> str:
    return tokens.mint(
        source=Namespace(source),
        service_account="till",
        destination=Namespace(destination),
        keyring=keyring or ENFORCING.keyring,
        now=NOW,
        life=TokenLife(),
    )


def boundary(by: Rules | None, *recorders: Any, clock: Any = None) -> AuthorizationService:
    made = AuthorizationService(
        token_header=HEADER, clock=clock or ManualClock(), recorders=recorders
    )
    made.rules = by
    return made


def http() -> tuple[CheckRequest, AttributeContext.HttpRequest]:
    request = CheckRequest()
    return request, request.attributes.request.http


FOREIGN = SpiffeId.parse("spiffe://elsewhere.example/ns/shop/sa/till")

PEOPLE = [SHOP, BANK, ACTIVATOR, GATEWAY, FOREIGN]

POLICIES = [
    rules(
        Policy(
            roles={**ROLES, workload("knative-eventing"): frozenset({Role.ON_BEHALF_OF})},
            grants=(Grant(Namespace("bank"), Namespace("shop")),),
            default_mode=mode,
            namespaces={Namespace("open"): NamespacePolicy(mode=Mode.OFF)},
            hosts={"shop.example": Namespace("shop")},
        )
    )
    for mode in Mode
] + [ENFORCING]

text = st.text(max_size=20)

some_tokens = st.sampled_from(
    [
        token("shop", "bank"),
        token("bank", "bank"),
        token("bank", "shop"),
        token("shop", "bank", keyring=Keyring((root_key(9),))),
        token("shop", "bank")[:-1],
        "v1.a.b.c",
        "",
    ]
)

names = st.sampled_from(
    [HEADER, "kn-namespace", "knative-serving-namespace", "knative-serving-revision"]
)

values = some_tokens | st.sampled_from(["bank", "shop", "r-1", "a,b"]) | text

hosts = st.sampled_from(["vault.bank.svc.cluster.local", "till.shop.svc", "shop.example"]) | text

upstreams = st.sampled_from([TO_BANK, "PassthroughCluster", "inbound|80||"]) | text

principals = st.sampled_from([*map(str, PEOPLE), ""]) | text


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    request, sent = http()
    request.attributes.source.principal = draw(principals)
    address = request.attributes.destination.address.socket_address
    address.port_value = draw(st.sampled_from([8012, 8013, 80]) | st.integers(0, 2**32 - 1))
    sent.host, sent.path, sent.id = draw(hosts), draw(text), draw(text)
    for name, value in draw(st.lists(st.tuples(names, values), max_size=4)):
        sent.header_map.headers.add(key=name, raw_value=value.encode())
    for name, value in draw(st.dictionaries(names, values, max_size=2)).items():
        sent.headers[name] = value
    if draw(st.booleans()):
        fields = request.attributes.route_metadata_context.filter_metadata["istio"].fields
        fields["config"].string_value = draw(text)
    whole = request.SerializeToString()
    return whole[: draw(st.integers(0, len(whole)))] if draw(st.integers(0, 9)) == 0 else whole


questions = st.sampled_from([question.value for question in Question])

metadatas = st.builds(
    lambda *parts: [pair for part in parts for pair in part],
    st.lists(st.tuples(st.just("x-authz-question"), questions), min_size=1, max_size=1)
    | st.lists(st.tuples(st.just("x-authz-question"), questions | text), max_size=2),
    st.lists(st.tuples(st.just("x-authz-hop"), st.sampled_from([*Hop, "x"])), max_size=2),
    st.lists(st.tuples(st.just("x-authz-upstream"), upstreams), max_size=2),
    st.lists(st.tuples(text, text), max_size=2),
)
