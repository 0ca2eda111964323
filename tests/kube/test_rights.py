"""Who may do what, as a real API server decides it: servers, the Job for keys, the proof, tenants.

What each may do is compared as a whole, so that one right more is a difference; what it may not is
tried, too.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import Final, TypeAlias

import pytest
import pytest_asyncio

from authz.policysource.cluster_objects import CLAIMS
from authz.tenants.file import parse_tenants
from authz.tenants.render import manifests
from tests.admission.cluster import binding
from tests.admission.rows import Account, Json, changed, thing
from tests.deploy.manifests import rendered
from tests.kube.conftest import Installed

pytestmark = [
    pytest.mark.skipif(
        shutil.which("kubectl") is None, reason="there is no kubectl to render with"
    ),
    pytest.mark.timeout(300),
]
session = pytest.mark.asyncio(loop_scope="session")

Rights: TypeAlias = set[tuple[str, str, str, str]]
"""Group, resource, name (or none) and verb."""

HOME: Final = "authz-system"
SHOP: Final = "shop"
SERVERS: Final = Account.of(HOME, "authz")
KEYS: Final = Account.of(HOME, "authz-keys")
PROOF: Final = Account.of(HOME, "authz-conformance")
EDITOR, VIEWER, OWNER = Account("ed"), Account("vi"), Account("ann")
"""Bound in `shop` to Kubernetes' `edit` and `view`; to the rendered Role of the tenant `acme`."""
ACME: Final = "acme-db"
PROOFS: Final = ("tenant-authz-conformance-a", "tenant-authz-conformance-b")

GRANTS: Final = "tenant-authz.dev"
NAME: Final = "right"
ALL: Final = ("get", "list", "watch", "create", "update", "patch", "delete")

POLICY: Final[Rights] = {
    *(("", "namespaces", "", verb) for verb in ("list", "watch")),
    *((GRANTS, "grants", "", verb) for verb in ("list", "watch")),
    *((CLAIMS.group, CLAIMS.plural, "", verb) for verb in ("list", "watch")),
    (GRANTS, "grants/status", "", "update"),
}
"""What the component policy-from-cluster gives the servers, in every namespace."""
IN_PROOF: Final[Rights] = {
    *(("", "pods", "", verb) for verb in ("create", "list", "delete")),
    *(("", it, "", verb) for it in ("configmaps", "services") for verb in ("create", "delete")),
    *(("apps", "deployments", "", verb) for verb in ("create", "list", "delete")),
    *(("serving.knative.dev", "services", "", verb) for verb in ("create", "list", "delete")),
}

MAY: Final[list[tuple[Account, str, Rights]]] = [
    (
        SERVERS,
        HOME,
        POLICY
        | {("", "secrets", "tenant-authz-keys", verb) for verb in ("list", "watch")}
        | {("", "configmaps", "tenant-authz-policy", verb) for verb in ("list", "watch")},
    ),
    (SERVERS, "kube-system", POLICY),
    (SERVERS, SHOP, POLICY),
    (
        KEYS,
        HOME,
        {("", "secrets", "tenant-authz-keys", verb) for verb in ("list", "watch", "update")},
    ),
    (KEYS, "kube-system", set()),
    (KEYS, SHOP, set()),
    (PROOF, HOME, set()),
    (PROOF, SHOP, set()),
    *((PROOF, proof, IN_PROOF) for proof in PROOFS),
    (OWNER, SHOP, set()),
    (OWNER, HOME, set()),
    (EDITOR, HOME, set()),
    (VIEWER, HOME, set()),
    (EDITOR, ACME, set()),
]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rights(installed: Installed) -> AsyncIterator[Installed]:
    """Everything of ours that gives rights, applied, and three who are bound to roles."""
    for folder in ("base", "components/policy-from-cluster", "conformance"):
        await installed.apply(it for it in rendered(folder) if it["kind"] != "Job")
    acme = "tenants: {acme: {namespaces: [acme-db], owners: ['user:ann']}}"
    await installed.apply(manifests(parse_tenants(acme), "acme"))
    for user, role in ((EDITOR, "edit"), (VIEWER, "view")):
        bound = binding("RoleBinding", user.name, role, {"kind": "User", "name": user.name})
        await installed.apply([changed(bound, {"metadata namespace": SHOP})])
    kek = thing("v1", "Secret", "tenant-authz-kek", HOME, data={"kek": "c2VjcmV0"})
    await installed.apply([kek, thing("v1", "ServiceAccount", "default", SHOP)])
    await installed.aggregate()
    await installed.may(grant(SHOP), EDITOR)
    await installed.may(grant(ACME), OWNER)
    yield installed


def grant(namespace: str, **content: object) -> Json:
    return thing(f"{GRANTS}/v1alpha1", "Grant", NAME, namespace, spec={"from": "bank"}, **content)


async def allowed(cluster: Installed, who: Account, namespace: str) -> Rights:
    """What an account may do in a namespace, and another that nobody knows may not."""
    stranger = Account.of("nowhere", "nobody") if who.groups else Account("nobody")
    return await _rules(cluster, who, namespace) - await _rules(cluster, stranger, namespace)


async def _rules(cluster: Installed, who: Account, namespace: str) -> Rights:
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    body = {"spec": {"namespace": namespace}}
    answer = (await cluster.send("POST", path, who, body)).json()["status"]
    assert not answer["incomplete"]
    return {
        (group, resource, name, verb)
        for rule in answer["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


@session
@pytest.mark.parametrize(("who", "where", "rights_"), MAY, ids=lambda it: getattr(it, "name", None))
async def test_it_may_do_this_and_no_more(
    rights: Installed, who: Account, where: str, rights_: Rights
) -> None:
    assert await allowed(rights, who, where) == rights_


@session
async def test_tenants_and_grants(rights: Installed) -> None:
    """`edit` and the rendered Role change grants of their namespace, `view` sees them."""
    for who, where, verbs in (
        (EDITOR, SHOP, ALL),
        (OWNER, ACME, ALL),
        (VIEWER, SHOP, ("get", "list", "watch")),
    ):
        ours = {it for it in await allowed(rights, who, where) if it[0] in (GRANTS, "*")}
        assert ours == {(GRANTS, "grants", "", verb) for verb in verbs}


# ---- each is tried ----


def at(namespace: str, kind: str, name: str = "", group: str = "") -> str:
    base = f"/apis/{group}" if group else "/api/v1"
    space = f"/namespaces/{namespace}" if namespace else ""
    return f"{base}{space}/{kind}" + (f"/{name}" if name else "")


def chosen(namespace: str, kind: str, name: str) -> str:
    return f"{at(namespace, kind)}?fieldSelector=metadata.name%3D{name}"


OURS: Final = f"{GRANTS}/v1alpha1"
ISTIO: Final = "networking.istio.io"
RBAC: Final = "rbac.authorization.k8s.io/v1"
OURS_IN: Final = {it: at(it, "grants", group=OURS) for it in (SHOP, ACME)}
EMPTY: Final[Json] = {}
SECRET: Final = thing("v1", "Secret", "tenant-authz-keys", HOME)
TOKEN: Final = thing("authentication.k8s.io/v1", "TokenRequest", "", None, spec={"audiences": []})
POD: Final = thing("v1", "Pod", "mine", HOME, spec={"containers": [{"name": "a", "image": "a:1"}]})

Tried: TypeAlias = tuple[Account, str, str, Json | None, bool]
"""Who, a method, a path, what is sent, and whether it is allowed."""

TRIED: Final[list[Tried]] = [
    # Servers read one Secret, one ConfigMap, namespaces and grants.
    (SERVERS, "GET", chosen(HOME, "secrets", "tenant-authz-keys"), None, True),
    (SERVERS, "GET", chosen(HOME, "configmaps", "tenant-authz-policy"), None, True),
    (SERVERS, "GET", at("", "namespaces"), None, True),
    (SERVERS, "GET", at("", "grants", group=OURS), None, True),
    (SERVERS, "GET", at(HOME, "secrets"), None, False),
    (SERVERS, "GET", at("", "secrets"), None, False),
    (SERVERS, "GET", at(HOME, "secrets", "tenant-authz-keys"), None, False),
    (SERVERS, "GET", at(HOME, "secrets", "tenant-authz-kek"), None, False),
    (SERVERS, "GET", chosen(HOME, "secrets", "tenant-authz-kek"), None, False),
    (SERVERS, "GET", chosen(SHOP, "secrets", "tenant-authz-keys"), None, False),
    (SERVERS, "PUT", at(HOME, "secrets", "tenant-authz-keys"), SECRET, False),
    (SERVERS, "GET", at(HOME, "configmaps"), None, False),
    (SERVERS, "PATCH", at(HOME, "configmaps", "tenant-authz-policy"), EMPTY, False),
    (SERVERS, "GET", at("", "pods"), None, False),
    (SERVERS, "PATCH", at("", "namespaces", SHOP), EMPTY, False),
    (SERVERS, "PATCH", f"{OURS_IN[SHOP]}/{NAME}", EMPTY, False),
    (SERVERS, "DELETE", f"{OURS_IN[SHOP]}/{NAME}", None, False),
    (SERVERS, "POST", OURS_IN[SHOP], grant(SHOP), False),
    (SERVERS, "POST", at(HOME, "serviceaccounts", "authz-keys/token"), TOKEN, False),
    (SERVERS, "POST", at(HOME, "pods"), POD, False),
    # Whoever changes keys: the one Secret.
    (KEYS, "GET", chosen(HOME, "secrets", "tenant-authz-keys"), None, True),
    (KEYS, "PUT", at(HOME, "secrets", "tenant-authz-keys"), SECRET, True),
    (KEYS, "GET", at(HOME, "secrets"), None, False),
    (KEYS, "GET", chosen(HOME, "secrets", "tenant-authz-kek"), None, False),
    (KEYS, "PUT", at(HOME, "secrets", "tenant-authz-kek"), SECRET, False),
    (KEYS, "DELETE", at(HOME, "secrets", "tenant-authz-keys"), None, False),
    (KEYS, "POST", at(HOME, "secrets"), thing("v1", "Secret", "new", HOME), False),
    (KEYS, "GET", chosen(HOME, "configmaps", "tenant-authz-policy"), None, False),
    (KEYS, "GET", at("", "grants", group=OURS), None, False),
    (KEYS, "POST", at(HOME, "pods"), POD, False),
    # The proof: two namespaces that come and go with it.
    *((PROOF, "GET", at(it, "pods"), None, True) for it in PROOFS),
    *((PROOF, "GET", at(it, "secrets"), None, False) for it in PROOFS),
    (PROOF, "GET", at(HOME, "pods"), None, False),
    (PROOF, "GET", chosen(HOME, "secrets", "tenant-authz-keys"), None, False),
    (PROOF, "POST", at(HOME, "pods"), POD, False),
    (PROOF, "GET", at(SHOP, "pods"), None, False),
    # Tenants open their own namespace, and say nothing in our name.
    (EDITOR, "POST", OURS_IN[SHOP], grant(SHOP), True),
    (OWNER, "POST", OURS_IN[ACME], grant(ACME), True),
    (VIEWER, "GET", OURS_IN[SHOP], None, True),
    (VIEWER, "POST", OURS_IN[SHOP], grant(SHOP), False),
    (EDITOR, "POST", OURS_IN[ACME], grant(ACME), False),
    (OWNER, "POST", OURS_IN[SHOP], grant(SHOP), False),
    *(
        (who, method, path, body, False)
        for who, space in ((EDITOR, SHOP), (OWNER, ACME))
        for method, path, body in (
            ("PATCH", f"{OURS_IN[space]}/{NAME}/status", EMPTY),
            ("PATCH", at("", "namespaces", space), EMPTY),
            ("GET", at("", "grants", group=OURS), None),
            ("GET", at(HOME, "configmaps"), None),
            ("GET", at(HOME, "secrets"), None),
            ("PATCH", at("", "clusterroles", "tenant-authz-policy", RBAC), EMPTY),
            ("GET", at(space, "envoyfilters", group=f"{ISTIO}/v1alpha3"), None),
            ("POST", at(space, "sidecars", group=f"{ISTIO}/v1"), EMPTY),
        )
    ),
]


@session
@pytest.mark.parametrize("tried", TRIED, ids=lambda it: f"{it[0].name} {it[1]} {it[2]}")
async def test_a_request(rights: Installed, tried: Tried) -> None:
    who, method, path, body, may = tried
    await _there(rights)
    more = {"content_type": "application/merge-patch+json"} if method == "PATCH" else {}
    way = path if method == "GET" else f"{path}?dryRun=All"
    answer = await rights.send(method, way, who, body, **more)
    assert answer.status_code in ({200, 201, 409} if may else {403}), answer.text
    if not may:
        assert who.name in answer.json()["message"]  # by RBAC, not for what was sent


async def _there(cluster: Installed) -> None:
    """What requests are about is there, so that a refusal is not for want of it."""
    for item in (grant(SHOP), grant(ACME)):
        if not await cluster.there(item):
            assert not await cluster.create(item, really=True)


def test_every_account_that_ships_is_tried() -> None:
    shipped = {
        it["metadata"]["name"]
        for folder in ("base", "conformance", "overlays/deployment", "overlays/xfcc")
        for it in rendered(folder)
        if it["kind"] == "ServiceAccount"
    }
    assert {f"system:serviceaccount:{HOME}:{it}" for it in shipped} == {
        who.name for who, *_ in MAY if who.groups
    }
