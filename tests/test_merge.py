"""File, labels and grants make one policy; what is bad changes nothing but itself."""

from hypothesis import given
from hypothesis import strategies as st

from authz.domain.names import Namespace
from authz.domain.policy import EVERYONE, Grant, Mode, NamespacePolicy, Policy
from authz.policysource.cluster_objects import grant_of, labels_of
from authz.policysource.file import parse_policy
from authz.policysource.merge import MOST_GRANTS, GrantName, Labels, merge

WEB, DB, SHOP, BANK = map(Namespace, ("web", "db", "shop", "bank"))
NOW = 1_800_000_000.0

BASE = parse_policy(
    """
tenants: {acme: {namespaces: [web], mode: shadow}}
namespaces: {shop: {mode: "off"}}
grants: [{to: db, from: bank, port: 8012}]
"""
)


def where(name: str, namespace: Namespace = DB) -> GrantName:
    return GrantName(namespace, name)


def test_nothing_added_is_the_file() -> None:
    merged = merge(BASE, {}, {})
    assert (merged.policy, merged.statuses, merged.problems) == (BASE, {}, ())


def test_labels_put_a_namespace_into_a_tenant_and_a_mode() -> None:
    policy = merge(BASE, {DB: Labels("acme", "shadow"), BANK: Labels("money")}, {}).policy
    assert policy.same_tenant(WEB, DB)
    assert policy.mode_of(DB) is Mode.SHADOW
    assert not policy.same_tenant(BANK, DB)
    assert policy.mode_of(BANK) is Mode.ENFORCE


def test_what_the_file_says_of_a_namespace_stays() -> None:
    policy = merge(BASE, {SHOP: Labels("acme", None)}, {}).policy
    assert policy.of(SHOP) == NamespacePolicy("acme", Mode.OFF)


def test_the_file_beats_labels_and_the_conflict_is_told() -> None:
    merged = merge(BASE, {WEB: Labels("evil", "off"), SHOP: Labels(None, "enforce")}, {})
    assert merged.policy == BASE
    loses = "namespace {}: label tenant-authz.dev/{}: '{}' does not count, the policy file says "
    for problem, words in zip(
        merged.problems,
        [
            ("web", "tenant", "evil", "acme"),
            ("web", "mode", "off", "shadow"),
            ("shop", "mode", "enforce", "off"),
        ],
        strict=True,
    ):
        assert problem == f"{loses.format(*words)}'{words[-1]}': remove one of them"


def test_a_label_that_says_the_same_is_no_conflict() -> None:
    merged = merge(BASE, {WEB: Labels("acme", "shadow")}, {})
    assert (merged.policy, merged.problems) == (BASE, ())


def test_bad_labels_change_nothing_but_themselves() -> None:
    labels = {DB: Labels("No Tenant", "shadow"), BANK: Labels("money", "OFF"), SHOP: Labels("", "")}
    merged = merge(BASE, labels, {})
    assert merged.policy.of(DB) == NamespacePolicy(None, Mode.SHADOW)
    assert merged.policy.of(BANK) == NamespacePolicy("money", None)
    assert merged.policy.of(SHOP) == BASE.of(SHOP)
    assert len(merged.problems) == 4
    assert "use enforce, shadow, off" in merged.problems[1]


def test_a_grant_opens_its_own_namespace() -> None:
    merged = merge(BASE, {}, {where("a"): Grant(DB, SHOP, port=80)})
    assert merged.statuses[where("a")].accepted
    assert merged.policy.granted(SHOP, "any", DB, 80, NOW)
    assert not merged.policy.granted(SHOP, "any", DB, 81, NOW)
    assert not merged.policy.granted(SHOP, "any", WEB, 80, NOW)
    assert not merged.policy.granted(DB, "any", SHOP, 80, NOW)


def test_a_grant_never_opens_another_namespace() -> None:
    merged = merge(BASE, {}, {where("a"): Grant(BANK, DB), where("b"): Grant(BANK, EVERYONE)})
    assert merged.policy == BASE
    assert {status.reason for status in merged.statuses.values()} == {"Invalid"}


def test_the_file_beats_a_grant_for_the_same_pair() -> None:
    merged = merge(BASE, {}, {where("wider"): Grant(DB, BANK), where("other"): Grant(DB, SHOP)})
    assert merged.statuses[where("wider")].reason == "Conflict"
    assert "policy file" in merged.statuses[where("wider")].message
    assert not merged.policy.granted(BANK, "any", DB, 1, NOW)
    assert merged.policy.granted(BANK, "any", DB, 8012, NOW)
    assert merged.policy.granted(SHOP, "any", DB, 1, NOW)


def test_a_bad_grant_changes_nothing_but_itself() -> None:
    merged = merge(BASE, {}, {where("bad"): "spec.from: is required", where("b"): Grant(DB, SHOP)})
    assert merged.statuses[where("bad")].message == "spec.from: is required"
    assert merged.policy.grants == (*BASE.grants, Grant(DB, SHOP))


def test_a_namespace_has_a_hundred_grants_the_oldest_and_others_theirs() -> None:
    many: dict[GrantName, Grant | str] = {
        where(f"g{n}"): Grant(DB, Namespace(f"n{n}")) for n in range(MOST_GRANTS + 5)
    }
    many[where("of-shop", SHOP)] = Grant(SHOP, BANK)
    merged = merge(BASE, {}, many)
    late = [name for name, status in merged.statuses.items() if not status.accepted]
    assert late == [where(f"g{n}") for n in range(MOST_GRANTS, MOST_GRANTS + 5)]
    assert {merged.statuses[name].reason for name in late} == {"TooMany"}
    assert merged.policy.granted(BANK, "any", SHOP, 1, NOW)


_text = st.one_of(st.none(), st.text(max_size=8), st.sampled_from(["acme", "off", "shadow"]))
_namespaces = st.sampled_from([WEB, DB, SHOP, BANK])


@given(
    st.dictionaries(_namespaces, st.builds(Labels, _text, _text)),
    st.dictionaries(
        st.builds(GrantName, _namespaces, st.text(max_size=2)),
        st.one_of(st.text(), st.builds(Grant, _namespaces, _namespaces)),
    ),
    _namespaces,
)
def test_what_is_said_of_one_namespace_never_changes_another(
    labels: dict[Namespace, Labels], grants: dict[GrantName, Grant | str], victim: Namespace
) -> None:
    labels.pop(victim, None)
    kept = {name: grant for name, grant in grants.items() if name.namespace != victim}
    policy = merge(BASE, labels, kept).policy
    assert policy.of(victim) == BASE.of(victim)
    assert [g for g in policy.grants if g.destination == victim] == [
        g for g in BASE.grants if g.destination == victim
    ]
    assert (policy.roles, policy.exemptions, policy.hosts) == (Policy().roles, {}, {})


# -- objects ------------------------------------------------------------------------------------


def test_a_spec_is_read_whole() -> None:
    spec = {"from": "shop", "serviceAccount": "reader", "port": 80, "until": "1970-01-02"}
    assert grant_of({"spec": spec}, DB) == Grant(DB, SHOP, "reader", 80, 2 * 86400)
    assert grant_of({"spec": {"from": "*"}}, DB) == Grant(DB, EVERYONE)


def test_what_cannot_be_read_says_which_field_and_is_no_grant() -> None:
    for spec, text in (
        (None, "spec: "),
        ({}, "spec.from: is required"),
        ({"from": "A"}, "spec.from: 'A' is not a namespace"),
        ({"from": "@public"}, "spec.from: '@public' is not a namespace"),
        ({"from": 7}, "spec.from: "),
        ({"from": "shop", "serviceaccount": "reader"}, "spec.serviceaccount: there is no such"),
        ({"from": "shop", "to": "bank"}, "spec.to: there is no such field"),
        ({"from": "shop", "serviceAccount": None}, "spec.serviceAccount: has no value"),
        ({"from": "shop", "port": None}, "spec.port: has no value"),
        ({"from": "shop", "serviceAccount": ""}, "spec.serviceAccount: "),
        ({"from": "shop", "serviceAccount": "a/b"}, "spec.serviceAccount: 'a/b' is not the name"),
        ({"from": "shop", "port": 0}, "spec.port: "),
        ({"from": "shop", "port": True}, "spec.port: "),
        ({"from": "shop", "port": "80"}, "spec.port: "),
        ({"from": "shop", "until": "tomorrow"}, "spec.until: "),
        ({"from": "shop", "until": "2027-02-30"}, "spec.until: "),
        ({"from": "shop", "until": 2027}, "spec.until: "),
        ({"from": "x" * 10_000}, "spec.from: "),
    ):
        read = grant_of({"spec": spec}, DB)
        assert isinstance(read, str), spec
        assert read.startswith(text), read
        assert len(read) <= 300


def test_only_our_labels_are_read() -> None:
    assert labels_of({}) is None
    assert labels_of({"labels": {"tenant": "acme"}}) is None
    assert labels_of({"labels": {"tenant-authz.dev/mode": "off"}}) == Labels(None, "off")
    assert labels_of({"labels": {"tenant-authz.dev/tenant": 7}}) is None
    assert labels_of({"labels": []}) is None
