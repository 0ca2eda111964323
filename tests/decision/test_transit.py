"""What passes a hop: every row of `transit`, each denial beside a twin that passes."""

from dataclasses import replace
from typing import Any

import pytest

from authz.domain.facts import Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.policy import (
    Exemption,
    Grant,
    Mode,
)
from authz.domain.reason import Reason
from authz.domain.verdict import Allow, Deny, Ground, HeaderAction
from authz.testing import workload
from tests.decision.support import PROBES, ask, transit
from tests.small_mesh import (
    ACTIVATOR,
    AUTOSCALER,
    DB,
    FOREIGN,
    GATEWAY,
    HELLO,
    IN_ISTIO,
    LOCAL_GATEWAY,
    PARTNER,
    POLICY,
    PROMETHEUS,
    RULES,
    SCALING,
    WEB,
    N,
    token,
)

# -- transit -----------------------------------------------------------------------------------


WHERE: list[tuple[Hop, dict[str, Any]]] = [
    (Hop.GATEWAY, {"upstream": IN_ISTIO.format("acme-db")}),
    (
        Hop.GATEWAY,
        {"upstream": LOCAL_GATEWAY, "virtual_service": HELLO.replace("acme-web", "acme-db")},
    ),
    (Hop.ACTIVATOR, {"serving_namespace": ("acme-db",), "serving_revision": ("r",)}),
    (Hop.ACTIVATOR, {"host": "r.acme-db.svc.cluster.local"}),
    (Hop.ACTIVATOR, {"host": "r.acme-db.svc.cluster.local", "serving_namespace": ("globex",)}),
    (Hop.ACTIVATOR, {"host": "r.acme-db.svc.cluster.local", "serving_revision": ("r",)}),
    (Hop.CHANNEL, {"host": "c-kn-channel.acme-db.svc.cluster.local", "path": "/"}),
    (Hop.CHANNEL, {"host": "imc-dispatcher.knative-eventing.svc", "path": "/acme-db/c?x=/"}),
    (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "/acme-db/c"}),
]


@pytest.mark.parametrize(("hop", "facts"), WHERE)
def test_transit_decides_as_verify_would_for_where_the_hop_will_send_it(
    hop: Hop, facts: dict[str, Any]
) -> None:
    assert transit(hop, token("acme-web", "acme-db"), peer=WEB, **facts) is Ground.SAME_TENANT
    assert transit(hop, token("acme-web", "acme-db"), peer=GATEWAY, **facts) is Ground.SAME_TENANT
    assert transit(hop, token("initech", "acme-db"), peer=PARTNER, **facts) is Ground.GRANTED
    assert transit(hop, token("globex", "acme-db"), **facts) is Reason.NO_GRANT
    assert transit(hop, token("globex", "globex"), **facts) is Reason.MEANT_FOR_ANOTHER_NAMESPACE
    assert transit(hop, **facts) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(("hop", "facts"), [it for it in WHERE if it[0] is not Hop.CHANNEL])
def test_a_token_for_the_hop_itself_counts_where_eventing_carries_it_and_nowhere_else(
    hop: Hop, facts: dict[str, Any]
) -> None:
    own = token("acme-web", ACTIVATOR.namespace)
    assert transit(hop, own, peer=WEB, **facts) is Reason.MEANT_FOR_ANOTHER_NAMESPACE


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("acme-web", Ground.SAME_TENANT),
        ("initech", Ground.GRANTED),
        ("globex", Reason.NO_GRANT),  # who made a broker of its own point at this channel
    ],
)
def test_an_event_goes_on_to_the_channel_by_the_token_that_brought_it(
    source: str, expected: Ground | Reason
) -> None:
    hop, facts = WHERE[-1]
    carried = token(source, ACTIVATOR.namespace)
    kept = ask(Question.SIGN, ACTIVATOR, upstream=IN_ISTIO.format("x"), tokens=(carried,))
    assert isinstance(kept, Allow)
    assert kept.header is HeaderAction.KEEP
    assert transit(hop, carried, peer=ACTIVATOR, **facts) is expected
    assert transit(hop, carried, peer=PROMETHEUS, **facts) is Reason.PRESENTED_BY_A_STRANGER


@pytest.mark.parametrize(
    ("hop", "path"),
    [
        (Hop.BROKER, "/acme-db/default"),
        (Hop.BROKER, "/acme-db?x"),
        (Hop.TRIGGER, "/triggers/acme-db/trigger/uid"),
        (Hop.TRIGGER, "/triggers/acme-db?x"),
        (Hop.JOB_SINK, "/acme-db/sink"),
        (Hop.JOB_SINK, "/acme-db/sink/"),
        (Hop.JOB_SINK, "/acme-db/sink?x"),
        (Hop.JOB_SINK, "/namespaces/acme-db/name/sink/sources/s%2Ft/ids/1"),
        (Hop.REQUEST_REPLY, "/acme-db/asked"),
        (Hop.REQUEST_REPLY, "/acme-db/asked/reply"),
    ],
)
def test_a_hop_that_goes_by_the_path_is_where_its_tokens_are_made_for(hop: Hop, path: str) -> None:
    """Signing does not look at paths, so each token on the way to Eventing is one for Eventing."""
    own = str(ACTIVATOR.namespace)
    facts = {"path": path}
    assert transit(hop, token("acme-web", own), peer=WEB, **facts) is Ground.SAME_TENANT
    assert transit(hop, token("initech", own), peer=PARTNER, **facts) is Ground.GRANTED
    assert transit(hop, token("globex", own), **facts) is Reason.NO_GRANT
    stolen = token("acme-web", own)
    assert transit(hop, stolen, **facts) is Reason.PRESENTED_BY_A_STRANGER
    meant_for_db = token("acme-web", "acme-db")
    assert transit(hop, meant_for_db, peer=WEB, **facts) is Reason.MEANT_FOR_ANOTHER_NAMESPACE


@pytest.mark.parametrize("hop", [Hop.BROKER, Hop.CHANNEL, Hop.JOB_SINK, Hop.REQUEST_REPLY])
def test_a_grant_for_a_port_opens_no_hop_that_goes_by_the_path(hop: Hop) -> None:
    """No pod asks again: what is taken there, Eventing sends on in the destination's name."""
    rules = replace(RULES, policy=replace(POLICY, grants=(Grant(N("acme-db"), N("initech")),)))
    narrow = replace(
        RULES, policy=replace(POLICY, grants=(Grant(N("acme-db"), N("initech"), port=8012),))
    )
    own = token("initech", ACTIVATOR.namespace)
    for granted, expected in ((rules, Ground.GRANTED), (narrow, Reason.NO_GRANT)):
        facts: dict[str, Any] = {"path": "/acme-db/x", "port": 8012, "rules": granted}
        assert transit(hop, own, peer=PARTNER, **facts) is expected


@pytest.mark.parametrize(
    ("hop", "facts"),
    [
        (None, {"upstream": IN_ISTIO.format("globex")}),
        (Hop.GATEWAY, {"upstream": "PassthroughCluster", "host": "app.globex.svc"}),
        (Hop.GATEWAY, {"upstream": LOCAL_GATEWAY, "host": "app.globex.svc"}),
        # Forms of a name that the activator itself does not know.
        (Hop.ACTIVATOR, {"host": "r.globex"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svc"}),
        (Hop.ACTIVATOR, {"host": "r"}),
        (Hop.ACTIVATOR, {"host": "globex.svc.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "x.r.globex.svc.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svc.cluster.local.svc.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svc.other.domain"}),
        (Hop.ACTIVATOR, {"host": "r.globex.svcx.cluster.local"}),
        (Hop.ACTIVATOR, {"host": "10.1.2.3:8012"}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex", "acme-db"), "serving_revision": ("r",)}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex,acme-db",), "serving_revision": ("r",)}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex",), "serving_revision": ("r", "s")}),
        (Hop.ACTIVATOR, {"serving_namespace": ("globex",), "serving_revision": ("r,s",)}),
        (Hop.ACTIVATOR, {"serving_namespace": (" globex",), "serving_revision": ("r",)}),
        (
            Hop.ACTIVATOR,
            {
                "serving_namespace": ("", "acme-db"),
                "serving_revision": ("r",),
                "host": "r.globex.svc.cluster.local",
            },
        ),
        (Hop.BROKER, {"path": "globex/default"}),
        (Hop.BROKER, {"path": "//globex/default"}),
        (Hop.BROKER, {"path": "/%67lobex/default"}),
        (Hop.BROKER, {"path": "/"}),
        (Hop.BROKER, {"path": ""}),
        (Hop.BROKER, {"path": "/../globex/default"}),
        (Hop.TRIGGER, {"path": "/globex/default"}),
        (Hop.TRIGGER, {"path": "//triggers/globex/t"}),
        (Hop.TRIGGER, {"path": "/triggers//globex"}),
        (Hop.TRIGGER, {"path": "/%74riggers/globex/t"}),
        (Hop.TRIGGER, {"path": "/triggers/glob%65x/t"}),
        (Hop.TRIGGER, {"path": "/triggers"}),
        *(
            (Hop.JOB_SINK, {"path": path})
            for path in (
                "/globex",
                "/",
                "",
                "globex/sink",
                "//globex/sink",
                "/glob%65x/sink",
                "/globex?x/sink",
                "/globex/sink/more",
                "/globex/sink?x=/more",
                # It believes the second segment of nine, whatever the first one says.
                "/globex/acme-db/name/sink/sources/s/ids/1",
                "/globex/acme-db/3/4/5/6/7/8",
                "/namespaces/globex/name/sink/sources/s/ids",
                "/namespaces/glob%65x/name/sink/sources/s/ids/1",
                "/namespaces/globex/name/sink/sources/s/ids/1/more",
                "http://job-sink/globex",
            )
        ),
        (Hop.REQUEST_REPLY, {"path": "/"}),
        (Hop.REQUEST_REPLY, {"path": "//globex/asked"}),
        (Hop.REQUEST_REPLY, {"path": "/glob%65x/asked"}),
        (Hop.REQUEST_REPLY, {"path": "globex/asked"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex", "path": "/"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "//"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "//globex/c"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "/acme%2ddb/c"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "/globex%2f..%2facme-db/c"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": "*"}),
        (Hop.CHANNEL, {"host": "c-kn-channel.globex.svc", "path": ""}),
    ],
)
def test_transit_denies_where_it_cannot_tell_the_destination(
    hop: Hop | None, facts: dict[str, Any]
) -> None:
    """Even with a token that would count, and under a mode that enforces nothing."""
    good = token("globex", "globex")
    assert transit(hop, good, **facts) is Reason.DESTINATION_UNKNOWN
    for mode in Mode:
        rules = replace(RULES, policy=replace(POLICY, default_mode=mode))
        verdict = ask(Question.TRANSIT, ACTIVATOR, rules, hop=hop, **facts)
        assert isinstance(verdict, Deny)


def test_a_forged_header_pair_does_not_open_the_activator() -> None:
    """The caller picks the victim by header and its own namespace by Host."""
    facts: dict[str, Any] = {
        "host": "x-00001.globex.svc.cluster.local",
        "serving_namespace": ("acme-db",),
        "serving_revision": ("hello-00001",),
    }
    assert transit(Hop.ACTIVATOR, token("globex", "globex"), **facts) is (
        Reason.MEANT_FOR_ANOTHER_NAMESPACE
    )
    assert transit(Hop.ACTIVATOR, **facts) is Reason.TOKEN_MISSING


def test_at_a_gateway_a_grant_for_a_port_counts_since_the_port_is_not_known_yet() -> None:
    facts: dict[str, Any] = {"upstream": IN_ISTIO.format("acme-web"), "port": 8012}
    narrow = token("narrow", "acme-web", "reader")
    assert transit(Hop.GATEWAY, narrow, peer=GATEWAY, **facts) is Ground.GRANTED


@pytest.mark.parametrize("peer", [workload("narrow", "reader"), GATEWAY])
def test_the_activator_wakes_no_pod_whose_port_the_grant_does_not_name(peer: SpiffeId) -> None:
    """It asks where it was called, which is the port on which it calls the pod."""
    narrow = token("narrow", "acme-web", "reader")
    facts: dict[str, Any] = {
        "peer": peer,
        "serving_namespace": ("acme-web",),
        "serving_revision": ("idle-00001",),
        "rules": RULES,
    }
    for port in (8012, 8013, 8112):
        assert transit(Hop.ACTIVATOR, narrow, port=port, **facts) is Reason.NO_GRANT
        granted = (Grant(N("acme-web"), N("narrow"), port=port),)
        facts["rules"] = replace(RULES, policy=replace(POLICY, grants=granted))
        assert transit(Hop.ACTIVATOR, narrow, port=port, **facts) is Ground.GRANTED
        facts["rules"] = RULES


def test_on_a_hop_an_allowed_peer_cannot_bring_somebody_elses_token() -> None:
    """The pod would see the hop's identity and the stolen token, and believe both."""
    facts = {"upstream": IN_ISTIO.format("acme-db"), "port": 9091, "path": "/metrics"}
    stolen = token("acme-web", "acme-db")
    for peer in (PARTNER, DB, PROMETHEUS):
        marks = {**facts, "user_agent": "Prometheus/3"}
        assert transit(Hop.GATEWAY, stolen, peer=peer, **marks) is Reason.PRESENTED_BY_A_STRANGER
    assert transit(Hop.GATEWAY, stolen, peer=WEB, **facts) is Ground.SAME_TENANT


def test_on_a_hop_a_peer_without_a_token_wakes_no_pod_that_would_refuse_it() -> None:
    for peer in (WEB, DB, PARTNER):
        assert transit(Hop.GATEWAY, peer=peer, upstream=IN_ISTIO.format("acme-db")) is (
            Reason.TOKEN_MISSING
        )


def test_on_a_hop_no_probe_may_wake_a_pod() -> None:
    where: dict[str, Any] = {"host": "r.acme-db.svc.cluster.local", "queue_proxy": False}
    facts = {**PROBES[ACTIVATOR], **where}
    assert transit(Hop.ACTIVATOR, peer=ACTIVATOR, **facts) is Reason.TOKEN_MISSING
    assert transit(Hop.ACTIVATOR, peer=GATEWAY, **facts) is Reason.TOKEN_MISSING
    # The activator answers this one itself.
    facts = {**PROBES[GATEWAY], **where}
    assert transit(Hop.ACTIVATOR, peer=GATEWAY, **facts) is Ground.EXEMPT
    assert transit(Hop.ACTIVATOR, peer=GATEWAY, **{**facts, "path": "/"}) is Reason.TOKEN_MISSING


@pytest.mark.parametrize("port", [8012, 8013])
def test_the_autoscaler_may_ask_whether_the_activator_is_in_the_way(port: int) -> None:
    """It scales nothing to zero before the activator has answered that itself."""
    facts = {**SCALING, "port": port}
    assert transit(Hop.ACTIVATOR, peer=AUTOSCALER, **facts) is Ground.EXEMPT
    own = token("knative-serving", "acme-db", "controller")
    assert transit(Hop.ACTIVATOR, own, peer=AUTOSCALER, **facts) is Ground.EXEMPT


@pytest.mark.parametrize(
    "change",
    [
        {"method": "POST"},
        {"method": ""},
        {"network_probe": ""},
        {"network_probe": "queue"},
        {"network_probe": "Activator"},
        {"network_probe": "activator,activator"},
        {"network_probe": ",activator"},  # the activator would take the first, which is empty
        {"user_agent": "Go-http-client/1.1"},
        {"user_agent": ""},
        {"path": "/"},
        {"path": "/healthz/"},
        {"path": "/v2/"},  # what the same account asks of a registry that a tenant names
        {"port": 8080},
        {"peer": replace(AUTOSCALER, service_account="autoscaler")},
        {"peer": replace(AUTOSCALER, trust_domain="other")},
        {"peer": FOREIGN},
        {"peer": DB},
        {"peer": ACTIVATOR},
        {"peer": GATEWAY},
        {"peer": ""},
    ],
)
def test_nobody_else_and_nothing_else_passes_the_activator_like_that(
    change: dict[str, Any],
) -> None:
    facts = {"peer": AUTOSCALER, **SCALING, **change}
    assert transit(Hop.ACTIVATOR, **facts) is Reason.TOKEN_MISSING


@pytest.mark.parametrize(
    ("hop", "facts"),
    [
        (Hop.GATEWAY, {"upstream": IN_ISTIO.format("acme-db")}),
        (Hop.BROKER, {"path": "/acme-db/default"}),
        (Hop.CHANNEL, {"path": "/acme-db/c"}),
        (Hop.JOB_SINK, {"path": "/acme-db/sink"}),
        (Hop.REQUEST_REPLY, {"path": "/acme-db/asked"}),
    ],
)
def test_no_other_hop_takes_that_probe_whatever_the_policy_says(
    hop: Hop, facts: dict[str, Any]
) -> None:
    """None of them answers it: it would be passed on."""
    sloppy = replace(POLICY, exemptions={AUTOSCALER: (Exemption(8012, network_probe="activator"),)})
    asked = {**SCALING, **facts, "rules": replace(RULES, policy=sloppy), "peer": AUTOSCALER}
    assert transit(hop, **asked) is Reason.TOKEN_MISSING
    assert transit(Hop.ACTIVATOR, **{**asked, "host": SCALING["host"]}) is Ground.EXEMPT


def test_no_exemption_of_the_policy_counts_at_the_activator_but_for_what_it_answers_itself() -> (
    None
):
    for sloppy in (Exemption(8012), Exemption(8012, "/healthz", "Knative-", "queue")):
        rules = replace(RULES, policy=replace(POLICY, exemptions={AUTOSCALER: (sloppy,)}))
        facts = {**SCALING, "network_probe": sloppy.network_probe or "", "rules": rules}
        assert transit(Hop.ACTIVATOR, peer=AUTOSCALER, **facts) is Reason.TOKEN_MISSING
