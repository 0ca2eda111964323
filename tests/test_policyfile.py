"""The policy file: what is good, what is bad, where, and that nothing else ever comes of it."""

import datetime as dt
import re
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.domain.hosts import HostTemplate
from authz.domain.names import Namespace, Service
from authz.domain.policy import Exemption, Grant, Mode, NamespacePolicy, Policy, Role
from authz.errors import BadPolicy
from authz.policysource import file as policyfile
from authz.policysource.file import (
    MAX_BYTES,
    parse_policy,
    parse_policy_as_json,
    policy_of_json,
    read_policy,
)
from authz.policysource.reader import SMALL
from authz.testing import workload
from tests.policy_text import ACTIVATOR, MONITOR, WHOLE


def problems(text: str) -> list[str]:
    with pytest.raises(BadPolicy) as caught:
        parse_policy(text)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


# Good ------------------------------------------------------------------------------------------


def test_every_field_becomes_policy() -> None:
    shop, shop_db = Namespace("shop"), Namespace("shop-db")
    end_of_january = int(dt.datetime(2027, 2, 1, tzinfo=dt.UTC).timestamp())
    assert parse_policy(WHOLE) == Policy(
        cluster_domains=("cluster.local", "corp.example"),
        trust_domains=frozenset({"cluster.local", "old_domain"}),
        relays=frozenset({Service("knative-local-gateway", Namespace("istio-system"))}),
        default_mode=Mode.SHADOW,
        default_public=False,
        route_owners=frozenset({Namespace("ops")}),
        host_templates=(HostTemplate.parse("{{.Name}}.{{.Namespace}}.example.com"),),
        namespaces={
            shop: NamespacePolicy("acme", Mode.ENFORCE),
            shop_db: NamespacePolicy("acme", Mode.OFF, accepts_public=False),
            Namespace("legacy"): NamespacePolicy(plaintext_peers=True, reuse=False),
            Namespace("web"): NamespacePolicy(accepts_public=frozenset({"hello", "api"})),
            Namespace("open"): NamespacePolicy(accepts_public=True),
        },
        grants=(
            Grant(shop, Namespace("partner")),
            Grant(shop, Namespace("*"), "robot", 8080, end_of_january),
        ),
        roles={
            workload("knative-serving", "activator"): frozenset({Role.TRANSIT, Role.GATEWAY}),
            workload("istio-system", "gateway", "old_domain"): frozenset({Role.GATEWAY}),
        },
        exemptions={
            workload("monitoring", "prometheus"): (
                Exemption(9090, "/metrics", "Prometheus/", "probe"),
            )
        },
        hosts={"shop.example": shop},
    )


@pytest.mark.parametrize("text", ["", "\n", "# nothing yet\n", "---\n", "{}", "\ufeff{}", "null"])
def test_an_emptied_file_is_no_policy(text: str) -> None:
    """A disk that is full and a template that rendered to nothing are not told from intent."""
    with pytest.raises(BadPolicy, match="write at least one field"):
        parse_policy(text)


def test_one_field_is_the_default_policy() -> None:
    assert parse_policy("grants: []") == Policy()


def test_several_exemptions_of_one_peer_all_count() -> None:
    text = f"exemptions: [{{peer: '{MONITOR}', port: 1}}, {{peer: '{MONITOR}', port: 2}}]"
    (exemptions,) = parse_policy(text).exemptions.values()
    assert exemptions == (Exemption(1), Exemption(2))


def test_the_mode_of_a_namespace_comes_before_its_tenants_and_that_before_the_default() -> None:
    policy = parse_policy(
        "default_mode: off\n"
        "tenants: {t: {namespaces: [a, b], mode: shadow}}\n"
        "namespaces: {a: {mode: enforce}, c: {}}\n"
    )
    modes = [policy.mode_of(Namespace(name)) for name in ("a", "b", "c", "d")]
    assert modes == [Mode.ENFORCE, Mode.SHADOW, Mode.OFF, Mode.OFF]


def test_off_is_a_mode_and_not_a_boolean() -> None:
    assert parse_policy("default_mode: off").default_mode is Mode.OFF


@pytest.mark.parametrize(
    ("day", "last_second"),
    [
        ("1970-01-01", 86_399),
        ("2028-02-29", 1_835_481_599),
        ("9999-12-31", 253_402_300_799),
    ],
)
def test_until_includes_the_day_that_it_names(day: str, last_second: int) -> None:
    grant = parse_policy(f"grants: [{{to: a, from: b, until: {day}}}]").grants[0]
    assert grant.until == last_second + 1
    assert grant.covers("default", 80, last_second)
    assert not grant.covers("default", 80, last_second + 1)


# Bad, one by one -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tenant: {}", "line 1: tenant: there is no such field"),
        ("tenants:\n  acme: {namespace: [a]}", "line 2: tenants.acme.namespaces: is required"),
        (
            "cluster_domains: [cluster.local.]",
            "line 1: cluster_domains.0: 'cluster.local.' is not a cluster domain",
        ),
        ("cluster_domains: [a.svc]", "line 1: cluster_domains.0: 'a.svc' is not a cluster"),
        ("cluster_domains: []", "line 1: cluster_domains: List should have at least 1 item"),
        ("trust_domains: []", "line 1: trust_domains: List should have at least 1 item"),
        ("trust_domains: ['*']", "line 1: trust_domains.0: '*' is not a trust domain such as"),
        ("trust_domains: ['a b']", "line 1: trust_domains.0: 'a b' is not a trust domain"),
        ("trust_domains: cluster.local", "line 1: trust_domains: Input should be a valid list"),
        ("relays: [gateway]", "line 1: relays.0: 'gateway' is not a service: write it as <name>."),
        ("relays: [a.b.c]", "line 1: relays.0: 'a.b.c' is not a service"),
        ("default_mode: on", "line 1: default_mode: Input should be 'enforce', 'shadow' or 'off'"),
        ("default_mode: Off", "line 1: default_mode: Input should be 'enforce', 'shadow' or 'off'"),
        ("roles: {boss: []}", "line 1: roles.boss.[key]: Input should be 'transit', 'gateway' or"),
        ("roles:\n  transit:\n  - me", "line 3: roles.transit.0: 'me' is not a workload's SPIFFE"),
        (f"roles: {{transit: '{ACTIVATOR}'}}", "line 1: roles.transit: Input should be a valid l"),
        ("tenants: {Acme: {namespaces: []}}", "line 1: tenants.Acme.[key]: 'Acme' is not a lower"),
        ("tenants: {a: {namespaces: [A]}}", "line 1: tenants.a.namespaces.0: 'A' is not a namespa"),
        ("tenants: {a: {namespaces: ['@public']}}", "line 1: tenants.a.namespaces.0: '@public' is"),
        ("tenants: {a: {namespaces: ['*']}}", "line 1: tenants.a.namespaces.0: '*' is not a name"),
        ("tenants: {a: }", "line 1: tenants.a: has no value: write one, or leave it out"),
        ("namespaces: {a.b: {}}", "line 1: namespaces.a.b.[key]: 'a.b' is not a namespace"),
        ("namespaces: {a: {mode: on}}", "line 1: namespaces.a.mode: Input should be 'enforce'"),
        ("namespaces: {a: {public: 'no'}}", "line 1: namespaces.a.public: 'no' is not true, fal"),
        ("namespaces: {a: {public: no}}", "line 1: namespaces.a.public: 'no' is not true, false"),
        ("namespaces: {a: {public: 0}}", "line 1: namespaces.a.public: 0 is not true, false or a"),
        ("namespaces: {a: {public: {}}}", "line 1: namespaces.a.public: {} is not true, false o"),
        ("namespaces:\n  a:\n    public: [b.a]", "line 3: namespaces.a.public: 'b.a' is not a Ser"),
        ("namespaces: {a: {public: [hello-*]}}", "line 1: namespaces.a.public: 'hello-*' is not"),
        ("namespaces: {a: {public: [[b]]}}", "line 1: namespaces.a.public: ['b'] is not a Serv"),
        ("namespaces: {a: {public: [1]}}", "line 1: namespaces.a.public: 1 is not a Service's na"),
        ("namespaces: {a: {public: }}", "line 1: namespaces.a.public: has no value"),
        ("default_public: [a]", "line 1: default_public: Input should be a valid boolean, not ["),
        ("route_owners: ops", "line 1: route_owners: Input should be a valid list"),
        ("route_owners: ['*']", "line 1: route_owners.0: '*' is not a namespace"),
        ("route_owners: ['@public']", "line 1: route_owners.0: '@public' is not a namespace"),
        ("host_templates:\n- a.b", "line 2: host_templates.0: 'a.b' does not tell the namespace"),
        ("namespaces: {a: {plaintext_peers: 1}}", "line 1: namespaces.a.plaintext_peers: Input"),
        ("namespaces: {a: {reuse: 2}}", "line 1: namespaces.a.reuse: Input"),
        ("grants: {to: a}", "line 1: grants: Input should be a valid list"),
        ("grants:\n- from: a", "line 2: grants.0.to: is required"),
        ("grants:\n- to: a", "line 2: grants.0.from: is required"),
        ("grants: [{to: '*', from: a}]", "line 1: grants.0.to: '*' is not a namespace"),
        ("grants: [{to: a, from: '@public'}]", "line 1: grants.0.from: '@public' is not a names"),
        ("grants: [{to: a, from: b, from_: c}]", "line 1: grants.0.from_: there is no such field"),
        ("grants: [{to: a, from: b, service_account: A}]", "line 1: grants.0.service_account: 'A'"),
        ("grants: [{to: a, from: b, port: 0}]", "line 1: grants.0.port: Input should be greater t"),
        ("grants: [{to: a, from: b, port: 65536}]", "line 1: grants.0.port: Input should be less"),
        ("grants: [{to: a, from: b, port: '80'}]", "line 1: grants.0.port: Input should be a val"),
        ("grants: [{to: a, from: b, port: true}]", "line 1: grants.0.port: Input should be a val"),
        ("grants: [{to: a, from: b, port: .nan}]", "line 1: grants.0.port: Input should be a val"),
        ("grants: [{to: a, from: b, port: .inf}]", "line 1: grants.0.port: Input should be a val"),
        ("grants: [{to: a, from: b, port: 80.0}]", "line 1: grants.0.port: Input should be a val"),
        (
            "grants:\n- to: a\n  from: b\n  until: '2027-02-30'",
            "line 4: grants.0.until: write a day without time, such as 2027-01-31",
        ),
        (
            "grants: [{to: a, from: b, until: 2027-01-31T12:00:00Z}]",
            "line 1: grants.0.until: write a day without time",
        ),
        (
            "tenants: {acme: {namespaces: [0123]}}",
            "line 1: tenants.acme.namespaces.0: 0123 is text",
        ),
        (
            "tenants:\n  acme:\n    namespaces:\n    - 1.50",
            "line 4: tenants.acme.namespaces.0: 1.50",
        ),
        ("namespaces:\n  0456: {mode: shadow}", "line 2: namespaces.456: 0456 is text here, and "),
        ("tenants: {a: {namespaces: [2027-01-31]}}", "line 1: tenants.a.namespaces.0: 2027-01-31 "),
        ("", "the policy has no field: an emptied file is not taken"),
        ("# all gone\n", "the policy has no field: an emptied file is not taken"),
        ("{}", "the policy has no field: an emptied file is not taken"),
        ("grants: [{to: a, from: b, until: 2027-W05-7}]", "line 1: grants.0.until: write a day"),
        ("grants: [{to: a, from: b, until: '20270131'}]", "line 1: grants.0.until: write a day"),
        ("grants: [{to: a, from: b, until: 2027}]", "line 1: grants.0.until: write a day without"),
        (
            "grants:\n- to: a\n  from: b\n  service_account:",
            "line 4: grants.0.service_account: has no",
        ),
        ("grants: [{to: a, from: b, port: ~}]", "line 1: grants.0.port: has no value: write one"),
        ("grants: [{to: a, from: b, until: null}]", "line 1: grants.0.until: has no value"),
        (
            f"exemptions: [{{peer: '{MONITOR}', port: 1, path: }}]",
            "line 1: exemptions.0.path: has no value",
        ),
        ("namespaces: {a: {mode: }}", "line 1: namespaces.a.mode: has no value"),
        ("relays: [null]", "line 1: relays.0: has no value"),
        ("grants:", "line 1: grants: has no value"),
        ("x: 1\ny: 2027-02-30", "line 2: not valid YAML: day is out of range for month"),
        ("\ny: 2027-13-01", "line 2: not valid YAML: month must be in 1..12"),
        ("exemptions: [{port: 1}]", "line 1: exemptions.0.peer: is required"),
        (f"exemptions: [{{peer: '{MONITOR}'}}]", "line 1: exemptions.0.port: is required"),
        ("exemptions: [{peer: me, port: 1}]", "line 1: exemptions.0.peer: 'me' is not a workload"),
        (
            f"exemptions: [{{peer: '{MONITOR}', port: 1, path: metrics}}]",
            "line 1: exemptions.0.path: 'metrics' is the path of no request: it begins with '/'",
        ),
        *(
            (f"exemptions: [{{peer: '{MONITOR}', port: 1, path: '{path}'}}]", problem)
            for path in ("/a/../b", "/.", "/a#b", "/a b", "/ä", "/a\\\\b")
            for problem in ("line 1: exemptions.0.path: '/",)
        ),
        ("grants: [{to: a, from: b, port: 8_0}]", "line 1: not valid YAML: 8_0: write a number"),
        (
            f"exemptions: [{{peer: '{MONITOR}', port: 1, path: '/a?b'}}]",
            "line 1: exemptions.0.path: '/a?b' is the path of no request: it begins with '/'",
        ),
        (
            f"exemptions: [{{peer: '{MONITOR}', port: 1, user_agent: ''}}]",
            "line 1: exemptions.0.user_agent: String should have at least 1 character",
        ),
        (
            f"exemptions: [{{peer: '{MONITOR}', port: 1, network_probe: ''}}]",
            "line 1: exemptions.0.network_probe: String should have at least 1 character",
        ),
        ("hosts: {Shop.example: shop}", "line 1: hosts.Shop.example.[key]: 'Shop.example' is not"),
        ("hosts: {shop.example: Shop}", "line 1: hosts.shop.example: 'Shop' is not a namespace"),
        ("hosts: {shop.example: '@public'}", "line 1: hosts.shop.example: '@public' is not a na"),
        ("1: 2", "line 1: 1: Keys should be strings"),
        ("[]", "line 1: the policy must be a mapping, such as 'tenants: {}'"),
        ("policy", "line 1: the policy must be a mapping"),
        ("false", "line 1: the policy must be a mapping"),
        ("a: [", "line 1: not valid YAML"),
        ("a: b\n---\nc: d", "line 2: not valid YAML"),
        ("hosts: {}\nhosts: {}", 'line 2: not valid YAML: found duplicate key "hosts"'),
        ("hosts:\n  a: b\n  a: c", 'line 3: not valid YAML: found duplicate key "a"'),
        ("hosts: {a: b, 'a': c}", 'line 1: not valid YAML: found duplicate key "a"'),
        ("%YAML 1.1\n---\ndefault_mode: off", "line 3: default_mode: Input should be 'enforce'"),
        ("a: \0", "not valid YAML: unacceptable character"),
    ],
)
def test_a_bad_value_is_told_with_its_line_and_field(text: str, problem: str) -> None:
    (said,) = [line for line in problems(text) if "namespace: there is no" not in line]
    assert said.startswith(problem)


@pytest.mark.parametrize("host", ["a.b.svc.cluster.local", "b.svc", "svc.cluster.local", "svc"])
def test_no_service_is_given_to_another_namespace_by_its_name(host: str) -> None:
    told = f"line 2: hosts.{host}: a Service's name says its namespace itself"
    (problem,) = problems(f"hosts:\n  {host}: other\n  a.svc.example: other\n")
    assert problem.startswith(told)


def test_all_problems_are_told_at_once() -> None:
    text = "default_mode: maybe\ntenants:\n  a: {namespaces: [B, C]}\ngrants:\n- {to: a}\nx: 1\n"
    told = [problem.partition(":")[0] for problem in problems(text)]
    assert sorted(told) == ["line 1", "line 3", "line 3", "line 5", "line 6"]


def test_a_field_of_one_kind_is_not_a_field_of_another() -> None:
    """`mode` is a tenant's, `to` is a grant's."""
    assert len(problems("mode: off\nto: a\nnamespaces: {a: {namespaces: []}}")) == 3


# Contradictions --------------------------------------------------------------------------------


def test_a_namespace_in_two_tenants_is_told_at_the_second() -> None:
    assert problems("tenants:\n  a:\n    namespaces: [x, y]\n  b:\n    namespaces: [z, y]\n") == [
        "line 5: tenants.b.namespaces: y is in tenant a already; a namespace belongs to one tenant"
    ]


def test_a_namespace_twice_in_one_tenant_is_told() -> None:
    assert len(problems("tenants: {a: {namespaces: [x, x]}}")) == 1


@pytest.mark.parametrize("role", Role)
def test_a_peer_with_a_role_cannot_be_exempt(role: Role) -> None:
    text = f"roles:\n  {role}: ['{MONITOR}']\nexemptions:\n- port: 1\n  peer: {MONITOR}\n"
    (problem,) = problems(text)
    assert problem.startswith(f"line 5: exemptions.0.peer: {MONITOR} has a role")


@pytest.mark.parametrize("role", Role)
def test_a_role_holder_outside_the_trust_domains_is_told(role: Role) -> None:
    holder = "spiffe://elsewhere/ns/a/sa/b"
    assert problems(f"roles:\n  {role}:\n  - {ACTIVATOR}\n  - {holder}\n") == [
        f"line 4: roles.{role}.1: {holder} is not of a trust domain in trust_domains"
    ]
    assert parse_policy(f"trust_domains: [elsewhere]\nroles: {{{role}: ['{holder}']}}").roles


def test_an_exempt_peer_outside_the_trust_domains_is_told() -> None:
    peer = "spiffe://elsewhere/ns/a/sa/b"
    assert problems(f"exemptions:\n- peer: {peer}\n  port: 1\n") == [
        f"line 2: exemptions.0.peer: {peer} is not of a trust domain in trust_domains"
    ]


# Hostile and sloppy ----------------------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefghijklmnopqrst", "bcdefghijklmnopqrstu", strict=True)
)
PLAIN = "a policy has no aliases and no tags, so write it out"


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "cluster_domains: *u",
        "tenants: &a {x: *a}",
        "&a [*a]",
        "a: &a {}\n<<: *a",
        "a: &a []\nb: [*a]",
        "tenants: !!python/object/apply:os.system ['true']",
        "hosts: !!python/object:os.environ {}",
        "hosts: !mine {}",
        "default_mode: !!str off",
        "default_mode: !!binary c2hhZG93",
        "default_mode: !!int abc",
        "default_mode: !!bool abc",
        "hosts: !!set {a, b}",
        "hosts: !!omap [a: b]",
        "!<tag:yaml.org,2002:map> {}",
    ],
)
def test_aliases_and_tags_are_refused(text: str) -> None:
    (problem,) = problems(text)
    assert re.fullmatch(r"line \d+: not valid YAML: (.*)", problem)
    assert problem.endswith(PLAIN)


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 1500 + "]" * 1500,
        "a: " + "{b: " * 1500 + "}" * 1500,
        "".join(f"{' ' * depth}a:\n" for depth in range(1000)),
        "- " * 5000 + "a",
    ],
    ids=["brackets", "braces", "lines", "dashes"],
)
def test_deep_nesting_is_refused(text: str) -> None:
    (problem,) = problems(text)
    assert re.fullmatch(r"line \d+: not valid YAML: it is nested more than 16 deep", problem)


def _costly(size: int) -> dict[str, str]:
    """Texts of this size that make a parser look at the same things again and again."""
    nested = "[" * 14 + "]" * 14 + ","
    return {
        "brackets": "x: " + "[" * size,
        "braces": "x: " + "{a: " * (size // 4),
        "groups": "x: [" + nested * (size // len(nested)) + "]",
        "long lines": "x: [" + "a," * (size // 2) + "]",
        "many lines": "".join(f"a{number}: 1\n" for number in range(size // 10)),
        "dashes": "- " * (size // 2),
        "questions": "? " * (size // 2),
        "colons": "x: " + "a:" * (size // 2),
        "anchors": "x: " + "&a " * (size // 3),
        "escapes": 'x: "' + "\\x41" * (size // 4) + '"',
        "comments": "x: 1 # a\n" * (size // 9),
        "spaces": "x:" + " \n" * (size // 2),
    }


def test_no_small_text_takes_much_longer_than_a_good_one_of_its_size() -> None:
    """What is small is read in the serving process, beside Checks: `reader.SMALL`."""

    def seconds(text: str) -> float:
        began = time.thread_time()
        with suppress(BadPolicy):
            parse_policy(text)
        return time.thread_time() - began

    tenants = "".join(f"  t{n}: {{namespaces: [t{n}-web, t{n}-db]}}\n" for n in range(SMALL // 42))
    good = min(seconds(f"tenants:\n{tenants}") for _ in range(3))
    slow = {name: min(seconds(text), seconds(text)) / good for name, text in _costly(SMALL).items()}
    assert max(slow.values()) < 8, slow


def test_nesting_that_is_just_not_too_deep_for_the_parser_is_refused_too() -> None:
    for depth in range(20, 400, 19):
        assert problems("hosts: " + "[" * depth + "]" * depth)


@pytest.mark.parametrize("port", ["9" * 5000, "-" + "9" * 100, "1e999", "0x" + "f" * 5000, "0o9"])
def test_monstrous_numbers_are_refused(port: str) -> None:
    assert problems(f"grants: [{{to: a, from: b, port: {port}}}]")


def test_a_long_value_is_not_repeated_at_length() -> None:
    (problem,) = problems(f"default_mode: {'x' * 1_000_000}")
    assert len(problem) < 300
    (problem,) = problems("default_mode: [" + "long, " * 10_000 + "]")
    assert len(problem) < 300


@pytest.mark.parametrize("field", ["tenants", "hosts", "namespaces"])
def test_a_long_name_is_refused(field: str) -> None:
    assert problems(f"{field}:\n  ? {'a' * 254}\n  : {{}}\n")


def test_a_huge_text_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policyfile, "MAX_BYTES", 10)
    assert problems("default_mode: off") == ["the policy file is larger than 10 bytes"]


pieces = st.sampled_from(
    [
        *"[]{}:,-?#&*!|>%@`'\"\n\t ~<",
        *("\n  ", ": ", "- ", "---\n", "...\n", "<<: ", "&a ", "*a ", "!!int ", "%YAML 1.1\n"),
        *("tenants", "namespaces", "grants", "to", "from", "until", "port", "roles", "transit"),
        *("a", "1", "0o8", "1_0", "1e5", ".nan", "2027-02-30", "12:30:45", "off", "null", "=", "y"),
        *("\ufeff", "\x85", "\u2028", "é", "\x00", "\U0001f600"),
    ]
)


def policy_or_problems(text: str) -> Policy | tuple[str, ...]:
    try:
        return parse_policy(text)
    except BadPolicy as error:
        return tuple(filter(None, error.problems))


@given(text=st.lists(pieces, max_size=40).map("".join) | st.text(max_size=60))
@example("1: {<<: 1}")
@example("? [a]\n: b")
@example("a: 2001-1-1 24:61:61")
@example("a: 190:20:30:99999999999999999999")
@pytest.mark.filterwarnings("ignore::Warning")
def test_whatever_the_text_is_it_is_a_policy_or_a_bad_policy(text: str) -> None:
    assert policy_or_problems(text)


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 30), st.sampled_from(["", " ", "x", "- "]))
def test_whatever_is_cut_out_of_a_good_policy_it_is_one_or_a_bad_one(
    start: int, length: int, instead: str
) -> None:
    assert policy_or_problems(WHOLE[:start] + instead + WHOLE[start + length :])


# Files -----------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(WHOLE)
    assert read_policy(file) == parse_policy(WHOLE)


def file_problem(file: Path) -> str:
    with pytest.raises(BadPolicy) as caught:
        read_policy(file)
    (problem,) = caught.value.problems
    return problem


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert file_problem(missing) == f"policy_file: {missing}: No such file or directory"
    assert file_problem(tmp_path) == f"policy_file: {tmp_path}: Is a directory"


@pytest.mark.parametrize("content", [b"\xff", b"hosts: {\xc3}", "{}".encode("utf-16")])
def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(content)
    assert file_problem(file) == f"policy_file: {file} is not UTF-8 text"


def test_no_more_than_the_limit_is_read_of_a_huge_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    with file.open("wb") as output:
        output.truncate(1 << 40)  # a terabyte of nothing, which takes no room
    assert file_problem(file) == f"policy_file: {file}: it is larger than {MAX_BYTES} bytes"


@pytest.mark.parametrize(
    "text",
    [
        "grants: [{to: a, from: b, until: 2027-01-31}]",
        "grants: [{to: a, from: b, until: '2027-01-31'}]",
        '{"grants": [{"to": "a", "from": "b", "until": "2027-01-31"}]}',
    ],
)
def test_a_day_is_the_same_in_quotation_marks_and_in_json(text: str) -> None:
    (grant,) = parse_policy(text).grants
    assert grant.until == dt.datetime(2027, 2, 1, tzinfo=dt.UTC).timestamp()
    assert policy_of_json(parse_policy_as_json(text).encode()).grants == (grant,)
