"""Onboarding: what is rendered, that it is valid, the same each time, and closed by default."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from authz.errors import BadSettings
from authz.policysource.merge import MOST_GRANTS
from authz.tenants.file import Tenants, chosen, parse_tenants
from authz.tenants.manifests import as_yaml
from authz.tenants.render import DOMAINS, EXTERNAL_NAMES, knative_gateways, manifests
from authz.wire import TENANT_LABEL
from tests.admission.rows import PLATFORM
from tests.admission.table.hosts import mapping
from tests.command import Run
from tests.platform.admission import Request, policies
from tests.platform.manifests import needs_kubectl, rendered, validate

FILE = """\
domain: apps.example.com
quota: {apps: 50}
tenants:
  globex-eu:
  acme:
    namespaces: [acme-web, acme-db]
    owners: ["group:acme: the team", "user:ann@acme.example"]
    domains: [acme.example]
    external_names: [stripe.com]
    calls: [globex-eu]
    ports: [9443]
    quota: {instances: 10, cpu: 2, memory: 4Gi}
"""


def of_kind(kind: str, name: str = "acme", file: str = FILE) -> list[dict[str, Any]]:
    """A tenant's objects of one kind."""
    return [one for one in manifests(parse_tenants(file), name) if one["kind"] == kind]


# What is rendered ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [FILE, "{}", "istio_revision: stable\npod_security: restricted"])
def test_all_of_it_is_valid(text: str) -> None:
    file = parse_tenants(text)
    names = chosen(file, [] if file.tenants else ["acme-web"])
    assert validate(one for name in names for one in manifests(file, name)) >= 6


def test_a_namespace_is_labelled_for_sidecars_pod_security_and_its_tenant() -> None:
    web, _ = of_kind("Namespace")
    assert web["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "tenant-authz",
        TENANT_LABEL: "acme",
        "istio-injection": "enabled",
        "pod-security.kubernetes.io/enforce": "baseline",
        "pod-security.kubernetes.io/warn": "baseline",
        "pod-security.kubernetes.io/audit": "baseline",
    }
    assert web["metadata"]["annotations"] == {
        DOMAINS: "acme-web.apps.example.com,acme.example",
        EXTERNAL_NAMES: "stripe.com",
    }


def test_with_a_revision_nothing_else_injects() -> None:
    (namespace,) = of_kind("Namespace", file="istio_revision: stable")
    assert namespace["metadata"]["labels"]["istio.io/rev"] == "stable"
    assert "istio-injection" not in namespace["metadata"]["labels"]


def test_what_is_rendered_passes_the_admission_policies() -> None:
    file = parse_tenants(FILE)
    for name in chosen(file, []):
        for one in manifests(file, name):
            if one["kind"] == "Namespace":
                host = mapping(f"a.{one['metadata']['name']}.apps.example.com")
                for asked in (Request(one, by=PLATFORM), Request(host, namespace=one)):
                    assert not [it for rule in policies().values() for it in rule.refusals(asked)]


def test_a_tenants_own_quota_stands_for_the_whole_of_it() -> None:
    own, _ = of_kind("ResourceQuota")
    common, *_ = of_kind("ResourceQuota", "globex-eu")
    assert own["spec"]["hard"]["pods"] == "10"
    assert own["spec"]["hard"]["requests.cpu"] == "2"
    assert common["spec"]["hard"]["count/services.serving.knative.dev"] == "50"
    assert common["spec"]["hard"]["pods"] == "250"
    assert own["spec"]["hard"]["services.nodeports"] == "0"


def test_a_tenant_may_make_as_many_grants_as_count() -> None:
    for quota, role in zip(of_kind("ResourceQuota"), of_kind("Role"), strict=True):
        assert quota["spec"]["hard"]["count/grants.tenant-authz.dev"] == str(MOST_GRANTS)
        (verbs,) = [it["verbs"] for it in role["rules"] if "grants" in it["resources"]]
        assert {"get", "list", "watch", "create", "update", "patch", "delete"} == set(verbs)
        assert not [it for rule in role["rules"] for it in rule["resources"] if "/status" in it]
    (few,) = of_kind("ResourceQuota", "globex-eu", FILE.replace("{apps: 50}", "{grants: 3}"))
    assert few["spec"]["hard"]["count/grants.tenant-authz.dev"] == "3"


FORBIDDEN = {
    "networking.istio.io": "everything",
    "security.istio.io": "everything",
    "networking.k8s.io": "everything",
    "gateway.networking.k8s.io": "everything",
    "rbac.authorization.k8s.io": "everything",
    "networking.internal.knative.dev": "everything",
}


def test_the_role_keeps_the_tenant_out_of_what_isolates_it() -> None:
    for role in of_kind("Role"):
        for rule in role["rules"]:
            for words in (rule["apiGroups"], rule["resources"], rule["verbs"]):
                assert "*" not in words
            assert not FORBIDDEN.keys() & set(rule["apiGroups"])
            if set(rule["verbs"]) & {"create", "update", "patch"}:
                assert not set(rule["resources"]) & {
                    "namespaces",
                    "resourcequotas",
                    "limitranges",
                    "endpoints",
                    "pods/exec",
                    "pods/ephemeralcontainers",
                }


def test_owners_are_bound_to_the_role_and_to_nothing_wider() -> None:
    for binding in of_kind("RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role"
        assert [(who["kind"], who["name"]) for who in binding["subjects"]] == [
            ("Group", "acme: the team"),
            ("User", "ann@acme.example"),
        ]
    assert of_kind("RoleBinding", "globex-eu") == []


def open_ports(policy: dict[str, Any], labels: dict[str, str]) -> set[int] | None:
    """Ports that a namespace with these labels reaches; `None`: all."""
    ports: set[int] = set()
    for rule in policy["spec"]["ingress"]:
        for peer in rule["from"]:
            wanted = peer["namespaceSelector"].get("matchLabels", {})
            if wanted.items() <= labels.items():
                if "ports" not in rule:
                    return None
                ports |= {port["port"] for port in rule["ports"]}
    return ports


def test_ports_that_no_filter_covers_are_closed_to_others() -> None:
    policy, _ = of_kind("NetworkPolicy")
    assert policy["spec"]["podSelector"] == {}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    name = "kubernetes.io/metadata.name"
    assert open_ports(policy, {name: "globex-eu", TENANT_LABEL: "globex-eu"}) == {8012, 8013, 9443}
    assert open_ports(policy, {name: "acme-db", TENANT_LABEL: "acme"}) is None
    assert open_ports(policy, {name: "knative-serving"}) == {8012, 8013, 9443, 9090}
    assert 15020 in (open_ports(policy, {name: "monitoring"}) or set())


def test_a_sidecar_knows_its_tenant_the_platform_and_whom_it_calls() -> None:
    web, db = of_kind("Sidecar")
    assert web["spec"]["egress"][0]["hosts"] == [
        "./*",
        "acme-db/*",
        "authz-system/*",
        "globex-eu/*",
        "istio-system/*",
        "knative-eventing/*",
        "knative-serving/*",
    ]
    assert "acme-web/*" in db["spec"]["egress"][0]["hosts"]


def test_each_tenant_has_a_certificate_and_gateways_of_its_own() -> None:
    (certificate,) = of_kind("Certificate")
    routes, domains = of_kind("Gateway")
    assert certificate["spec"]["dnsNames"] == [
        "*.acme-db.apps.example.com",
        "*.acme-web.apps.example.com",
        "*.acme.example",
        "acme.example",
    ]
    for gateway in (routes, domains):
        server, redirect = gateway["spec"]["servers"]
        assert redirect["port"] == {"number": 80, "name": "http-acme", "protocol": "HTTP"}
        assert redirect["tls"] == {"httpsRedirect": True}, "what Knative's lister.go does not probe"
        assert redirect["hosts"] == server["hosts"]
        assert server["tls"]["credentialName"] == certificate["spec"]["secretName"]
        assert "cipherSuites" not in server["tls"], "mesh-wide, see istiod-values.yaml"
        # A host without a namespace could be taken by any tenant's VirtualService.
        assert all(host.split("/")[0] in {"acme-web", "acme-db"} for host in server["hosts"])
        assert gateway["metadata"]["namespace"] == "istio-system"


def test_without_a_domain_there_is_no_gateway() -> None:
    assert of_kind("Gateway", file="{}") == of_kind("Certificate", file="{}") == []
    assert knative_gateways(Tenants(), ["acme"]) is None


def test_knative_is_told_which_gateway_serves_whom() -> None:
    told = knative_gateways(parse_tenants(FILE), ["acme", "globex-eu"])
    assert told is not None
    entries = YAML(typ="safe").load(told["data"]["external-gateways"])
    by_name = {entry["name"]: entry for entry in entries}
    assert "labelSelector" not in by_name["knative-ingress-gateway"]
    assert by_name["tenant-acme"]["labelSelector"]["matchExpressions"] == [
        {
            "key": "serving.knative.dev/routeNamespace",
            "operator": "In",
            "values": ["acme-web", "acme-db"],
        }
    ]
    made = {one["metadata"]["name"] for one in of_kind("Gateway")}
    assert made | {"tenant-globex-eu", "knative-ingress-gateway"} == set(by_name)


# The same each time, and quickly ---------------------------------------------------------------


def test_the_order_of_the_file_does_not_matter(run: Run, tmp_path: Path) -> None:
    head, tenants = FILE.split("tenants:\n")
    globex, acme = tenants.split("  acme:")
    (tmp_path / "one.yaml").write_text(FILE)
    (tmp_path / "two.yaml").write_text(f"{head}tenants:\n  acme:{acme}{globex}")
    one, two = (run("tenant", "render", "--file", f"{name}.yaml") for name in ("one", "two"))
    assert one.code == two.code == 0
    assert one.out == two.out


def test_a_hundred_tenants_take_ten_times_as_long_as_ten() -> None:
    file = Tenants(domain="apps.example.com")
    seconds: dict[int, list[float]] = {10: [], 100: []}
    for many in (10, 100) * 3:
        began = time.process_time()
        text = as_yaml(one for n in range(many) for one in manifests(file, f"tenant-{n}"))
        seconds[many].append(time.process_time() - began)
        assert text.count("kind: Namespace\n") == many
    assert min(seconds[100]) < 20 * min(seconds[10])  # with the square: a hundred times


@needs_kubectl
def test_rendering_again_changes_no_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text(FILE)
    arguments = ("tenant", "render", "--file", "tenants.yaml", "--output", "out", "--json")
    first = run(*arguments)
    assert first.json["changed"] == [
        "config-istio.yaml",
        "kustomization.yaml",
        "tenant-acme.yaml",
        "tenant-globex-eu.yaml",
    ]
    assert run(*arguments).json["changed"] == []
    (tmp_path / "tenants.yaml").write_text(FILE.replace("9443", "9444"))
    assert run(*arguments).json["changed"] == ["tenant-acme.yaml"]
    assert validate(rendered(tmp_path / "out")) > 15


def test_one_tenant_does_not_rewrite_the_list_of_all(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text(FILE)
    done = run("tenant", "render", "acme", "--file", "tenants.yaml", "--json")
    assert {one["kind"] for one in done.json} >= {"Namespace", "Gateway"}
    assert not any(one["metadata"]["name"] == "config-istio" for one in done.json)
    assert not any(one["metadata"].get("namespace") == "globex-eu" for one in done.json)


def test_what_is_printed_is_what_json_says(run: Run) -> None:
    text, data = (run("tenant", "render", "acme-web", *more) for more in ((), ("--json",)))
    assert list(YAML(typ="safe").load_all(text.out)) == data.json


# The writer ------------------------------------------------------------------------------------

# ruamel reads "\\U00010000" as two surrogates, so nothing beyond the basic plane here.
characters = st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])
scalars = st.one_of(
    st.text(characters, max_size=20),
    st.integers(-(2**40), 2**40),
    st.booleans(),
    st.none(),
    st.sampled_from(["y", "No", "on", "null", "1e3", "0x10", "- a", "a: b", "#", "a\nb\n", " a\n"]),
)
documents = st.dictionaries(
    st.text(characters, max_size=8),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(characters, max_size=8), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    min_size=1,
    max_size=4,
)


@given(documents)
def test_what_the_writer_writes_is_read_as_the_same(document: dict[str, Any]) -> None:
    assert YAML(typ="safe", pure=True).load(as_yaml([document])) == document


# Mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tenants:\n  Acme:", "line 2: tenants.Acme.[key]: 'Acme' is not a namespace"),
        ("tenants:\n  svc:", "line 2: tenants.svc: 'svc' is reserved"),
        ("tenants:\n  com:", "line 2: tenants.com: 'com' may be a top-level domain"),
        ("tenants:\n  a: {namespaces: [a-1, bank]}", "tenants.a: 'bank' may be a top-level"),
        ("tenants:\n  a: {namespaces: [xn--p1ai]}", "'xn--p1ai' may be a top-level domain"),
        ("plain_names: [svc]\ntenants:\n  svc:", "'svc' is reserved"),
        (
            "cluster_domain: k8s-1.test\ntenants:\n  k8s-1:",
            "'k8s-1' is a part of the cluster's domain",
        ),
        (
            "cluster_domain: k8s.test.org\ntenants:\n  a-1: {domains: [test.org]}",
            "line 3: tenants.a-1: test.org overlaps the cluster's own domain",
        ),
        ("tenants:\n  a-1: {external_names: [10.96.0.1]}", "line 2: tenants.a-1.external_names.0"),
        ("tenants:\n  a: {namespaces: [kube-x]}", "'kube-x' is reserved"),
        ("tenants:\n  a: {namespaces: [x-system]}", "'x-system' is reserved"),
        ("tenants:\n  a: {namespaces: []}", "line 2: tenants.a.namespaces"),
        (
            "plain_names: [x]\ntenants:\n  a: {namespaces: [x]}\n  x:",
            "line 4: tenants.x.namespaces: x is in tenant a",
        ),
        ("tenants:\n  a: {owners: [ann]}", "line 2: tenants.a.owners.0: 'ann' is not an owner"),
        ("tenants:\n  a: {owners: ['robot:x']}", "write group:<name> or user:<name>"),
        ("tenants:\n  a: {domains: [local]}", "'local' is not a domain"),
        ("tenants:\n  a: {domains: [x.svc.cluster.local]}", "inside clusters"),
        ("tenants:\n  a: {domains: ['*.a.b']}", "is not a domain"),
        (f"domain: {'a.' * 70}b", "leaves no room"),
        (
            "tenants:\n  a: {domains: [a.test]}\n  b: {domains: [a.test]}",
            "line 3: tenants.b.domains: a.test is tenant a's already",
        ),
        (
            "tenants:\n  a: {domains: [a.test]}\n  b: {domains: [x.a.test]}",
            "tenants.b.domains: x.a.test lies under a.test, which is tenant a's",
        ),
        ("domain: p.test\ntenants:\n  a: {domains: [b.p.test]}", "overlaps the platform's own"),
        ("domain: x.p.test\ntenants:\n  a: {domains: [p.test]}", "overlaps the platform's own"),
        ("tenants:\n  a: {quota: {apps: -1}}", "line 2: tenants.a.quota.apps"),
        ("tenants:\n  a: {quota: {cpu: lots}}", "line 2: tenants.a.quota.cpu"),
        ("tenants:\n  a: {ports: [70000]}", "line 2: tenants.a.ports.0"),
        ("quota: {aps: 1}", "line 1: quota.aps: there is no such field"),
        ("pod_security: privileged", "line 1: pod_security"),
        ("tenants: {a: , a: }", "not valid YAML"),
        ("tenants: &a {}\nquota: *a", "a tenants file has no aliases"),
        ("- a", "the tenants file must be a mapping"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_renders_nothing(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "tenants.yaml").write_text(text)
    done = run("tenant", "render", "--file", "tenants.yaml")
    assert done.code == 2
    assert said in done.err.replace("\n", " ") or said in done.err
    assert done.out == ""


MISTAKEN_NAMES = [
    ("Acme",),
    ("a.b",),
    ("svc",),
    ("com",),
    ("good-1", "kube-system"),
    ("../x",),
    ("a" * 64,),
]


@pytest.mark.parametrize("names", MISTAKEN_NAMES)
def test_a_wrong_name_renders_nothing(run: Run, names: tuple[str, ...]) -> None:
    done = run("tenant", "render", *names)
    assert (done.code, done.out) == (2, "")
    assert "NAME:" in done.err


def test_a_name_that_the_file_lacks_is_no_tenant(run: Run, tmp_path: Path) -> None:
    (tmp_path / "tenants.yaml").write_text(FILE)
    done = run("tenant", "render", "acmee", "--file", "tenants.yaml")
    assert done.code == 2
    assert "'acmee' is not in the file" in done.err


@pytest.mark.parametrize("arguments", [(), ("--file", "absent.yaml"), ("a", "--output", "file/x")])
def test_what_cannot_be_read_or_written_is_told(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("tenant", "render", *arguments).code == 2


def test_a_file_that_is_too_large_or_no_text_is_refused() -> None:
    with pytest.raises(BadSettings, match="larger than"):
        parse_tenants("#" * (4 * 1024 * 1024 + 1))
