"""What tenants' objects may not say: every attack of the table, its twin, what is left alone.

The same table is played on a real API server in tests/admission, where the removals are, too.
"""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.admission.injection import injected
from tests.admission.rows import PLATFORM, Account, Row, changed, thing
from tests.admission.table import ROWS
from tests.admission.table.hosts import OWN as HOST
from tests.admission.table.hosts import mapping
from tests.admission.table.namespaces import OWN, namespace
from tests.admission.table.pods import POD
from tests.deploy import manifests
from tests.platform.admission import TENANT, AdmissionPolicy, Request, policies

POLICIES = policies()


def request(row: Row, what: Mapping[str, Any], by: Account) -> Request:
    """What the policies see of an attack or its twin."""
    old = injected(row.old) if row.old and row.old["kind"] == "Pod" else row.old
    whole = "kind" in what
    new = changed(what, {}) if whole else changed(old or {}, what)
    if whole and new["kind"] == "Pod":
        new = injected(new)
    if new["kind"] == "Service":
        new["spec"].setdefault("type", "ClusterIP")  # the API server's default
    known = None if row.subresource == "binding" else old
    return Request(new, known, row.subresource, by, OWN, by == PLATFORM)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_attack_is_refused_and_its_twin_is_not(row: Row) -> None:
    messages = POLICIES[row.policy].refusals(request(row, row.evil, row.by))
    assert any(row.said in message for message in messages)
    twin = request(row, row.harmless, row.honest)
    assert not [refusal for policy in POLICIES.values() for refusal in policy.refusals(twin)]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_message_names_the_field_or_the_kind_and_no_other_policy_is_needed(row: Row) -> None:
    evil = request(row, row.evil, row.by)
    found = {name: policy.refusals(evil) for name, policy in POLICIES.items()}
    assert [name for name, messages in found.items() if messages] == [row.policy]
    for message in found[row.policy]:
        field, colon, rest = message.partition(": ")
        assert colon, message
        assert " " not in field, message
        assert len(rest) > 20, message


def test_hosts_of_a_namespace_without_domains() -> None:
    bare = changed(OWN, {"metadata annotations": None})
    (message,) = POLICIES["tenant-authz-hosts"].refusals(Request(mapping(HOST), namespace=bare))
    assert "it has none" in message


@pytest.mark.parametrize("policy", POLICIES.values(), ids=lambda it: it.name)
def test_each_policy_denies_fails_closed_and_is_for_tenants(policy: AdmissionPolicy) -> None:
    assert policy.spec["failurePolicy"] == "Fail"
    assert policy.binding == {"policyName": policy.name, "validationActions": ["Deny"]}
    if policy.name != "tenant-authz-namespaces":
        selector = policy.spec["matchConstraints"]["namespaceSelector"]
        assert selector == {"matchExpressions": [{"key": TENANT, "operator": "Exists"}]}


OPEN = namespace("no-tenants", {f"metadata labels {TENANT}": None})


@pytest.mark.parametrize("row", [row for row in ROWS if row.old is None], ids=str)
def test_what_is_no_tenants_is_left_alone(row: Row) -> None:
    if row.policy == "tenant-authz-namespaces":
        return
    evil = request(row, row.evil, row.by)
    elsewhere = Request(evil.obj, None, row.subresource, row.by, OPEN)
    assert not [refusal for policy in POLICIES.values() for refusal in policy.refusals(elsewhere)]


STANDING = [
    (injected(POD), "status"),  # below, without its sidecar
    (namespace("com", {"metadata labels istio-injection": None}), "finalize"),
    (namespace("com", {"metadata labels pod-security.kubernetes.io/enforce": None}), ""),
    (
        thing("networking.k8s.io/v1", "Ingress", "old", spec={"rules": [{"host": "victim.test"}]}),
        "",
    ),
    (
        thing("v1", "Service", "old", spec={"type": "LoadBalancer", "externalIPs": ["192.0.2.1"]}),
        "",
    ),
    (thing("v1", "Service", "old", spec={"type": "ExternalName", "externalName": "db.victim"}), ""),
]


@pytest.mark.parametrize(("old", "way"), STANDING)
def test_what_was_there_before_can_be_finished(old: dict[str, Any], way: str) -> None:
    """A controller takes a finalizer away; whatever else is wrong stays as it is."""
    if old["kind"] == "Pod":
        old = changed(old, {"spec initContainers": None, "metadata annotations": None})
    before = changed(old, {"metadata finalizers": ["example.test/one"]})
    finished = Request(old, before, way, Account("a-controller"), OWN)
    assert not [refusal for policy in POLICIES.values() for refusal in policy.refusals(finished)]


def test_an_expression_over_pods_and_bindings_has_a_type_for_both() -> None:
    """The controller manager types it for each kind, and a Binding has no status."""
    rule = manifests.one(
        manifests.rendered("platform/admission"),
        "ValidatingAdmissionPolicy",
        "tenant-authz-pod-changes",
    )
    texts = [it["expression"] for it in (*rule["spec"]["variables"], *rule["spec"]["validations"])]
    assert any("status" in text for text in texts)
    assert not [it for it in texts if re.search(r"\b(object|oldObject)\.status", it)]
