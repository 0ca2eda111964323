"""A real API server with a tenant, the policies that ship, and whoever asks it something."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx

from authz.lab.controlplane.api import Api
from tests.admission.rows import (
    MALLORY,
    PLATFORM,
    SPACE,
    Account,
    Json,
    Row,
    changed,
    plural,
    thing,
)
from tests.admission.table.namespaces import OWN
from tests.deploy.manifests import DEPLOY, load
from tests.support.waiting import PATIENCE

ADMISSION: Final = DEPLOY / "platform" / "admission"

KNATIVE: Final = {
    "autoscaling.internal.knative.dev/v1alpha1": ["PodAutoscaler"],
    "bindings.knative.dev/v1": ["SinkBinding"],
    "caching.internal.knative.dev/v1alpha1": ["Image"],
    "eventing.knative.dev/v1": ["Broker", "Trigger"],
    "flows.knative.dev/v1": ["Sequence"],
    "internal.kafka.eventing.knative.dev/v1alpha1": ["ConsumerGroup"],
    "messaging.knative.dev/v1": ["Channel", "InMemoryChannel", "Subscription"],
    "networking.internal.knative.dev/v1alpha1": ["Certificate", "Ingress", "ServerlessService"],
    "serving.knative.dev/v1": ["Configuration", "Revision", "Route", "Service"],
    "serving.knative.dev/v1beta1": ["DomainMapping"],
    "sinks.knative.dev/v1alpha1": ["JobSink"],
    "sources.knative.dev/v1": ["ContainerSource", "PingSource"],
}
_OTHERS: Final = {
    "cert-manager.io/v1": ["Certificate", "CertificateRequest"],
    "gateway.networking.k8s.io/v1": [
        *("Gateway", "GRPCRoute", "HTTPRoute", "ListenerSet", "TCPRoute", "TLSRoute", "UDPRoute"),
    ],
    "gateway.networking.k8s.io/v1beta1": ["ReferenceGrant"],
    "networking.istio.io/v1": ["Gateway", "Sidecar", "VirtualService"],
}
CRDS: Final = KNATIVE | _OTHERS
"""Kinds by version. Their objects may have any fields: what is tried here is not their schemas."""

EDIT_OF_KNATIVE: Final = [
    {
        "apiGroups": [
            *("eventing.knative.dev", "messaging.knative.dev", "sources.knative.dev"),
            *("flows.knative.dev", "bindings.knative.dev", "sinks.knative.dev"),
            "serving.knative.dev",
        ],
        "resources": ["*"],
        "verbs": ["create", "update", "patch", "delete"],
    }
]
"""What Serving and Eventing add to Kubernetes' `edit`, by the ClusterRoles that they come with."""


class Cluster:
    """What may be asked of the API server, and by whom. Nothing that is only tried stays."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._http = api.http

    async def send(
        self, method: str, path: str, by: Account = PLATFORM, body: object = None, **more: Any
    ) -> httpx.Response:
        """A request by an account, which the admin impersonates."""
        headers = [("Impersonate-User", by.name), ("Impersonate-Group", "system:authenticated")]
        headers += [("Impersonate-Group", group) for group in by.groups]
        kind = more.pop("content_type", "application/json")
        return await self._http.request(
            method,
            path,
            headers=[*headers, ("Content-Type", kind)],
            content=json.dumps(body) if body is not None else None,
            **more,
        )

    async def create(self, item: Json, by: Account = PLATFORM, *, really: bool = False) -> str:
        """Create an object, or only try to. The refusal; empty if there is none."""
        path = (await self._api.path(item)).rpartition("/")[0]
        return _refusal(await self.send("POST", path, by, item, params=_dry(really)))

    async def get(self, item: Json) -> Json:
        """An object as it is there."""
        return await self._api.read(await self._api.path(item))

    async def there(self, item: Json) -> bool:
        """Whether an object is there."""
        return (await self.send("GET", await self._api.path(item))).status_code == 200

    async def change(
        self,
        item: Json,
        change: Json,
        by: Account = PLATFORM,
        subresource: str = "",
        *,
        really: bool = False,
    ) -> str:
        """Change an object that is there, or only try to. The refusal; empty if there is none."""
        path = "/".join(filter(None, [await self._api.path(item), subresource]))
        new = changed(await self.get(item), change)
        return _refusal(await self.send("PUT", path, by, new, params=_dry(really)))

    async def apply(self, objects: Iterable[Json]) -> None:
        """Have objects, as the platform."""
        await self._api.apply(objects)

    async def aggregate(self) -> None:
        """Give `edit` its rules, as a controller does that is not here."""
        base = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        for role in ("view", "edit"):
            found = (await self.send("GET", base)).json()["items"]
            key = f"rbac.authorization.k8s.io/aggregate-to-{role}"
            rules = [
                rule
                for it in found
                if it["metadata"].get("labels", {}).get(key) == "true"
                for rule in it["rules"] or []
            ]
            kind = "application/merge-patch+json"
            answer = await self.send(
                "PATCH", f"{base}/{role}", body={"rules": rules}, content_type=kind
            )
            assert answer.status_code == 200, answer.text

    async def delete(self, objects: Iterable[Json]) -> None:
        """Have them no more."""
        await self._api.delete(objects)

    async def play(self, row: Row) -> str:
        """Try an attack. The refusal; empty if there is none."""
        return await self._try(row, row.evil, row.by)

    async def play_twin(self, row: Row) -> str:
        """Try the honest one instead."""
        return await self._try(row, row.harmless, row.honest)

    async def _try(self, row: Row, what: Json, by: Account) -> str:
        if row.old is None:
            return await self.create(what, by)
        if not await self.there(row.old):
            assert not await self.create(row.old, row.honest, really=True)
        if row.subresource == "binding":
            path = f"{await self._api.path(row.old)}/binding"
            return _refusal(await self.send("POST", path, by, what, params=_dry(really=False)))
        return await self.change(row.old, what, by, row.subresource)

    @asynccontextmanager
    async def without(self, policy: str, row: Row) -> AsyncIterator[None]:
        """Take a policy away as long as the block lasts; `row` tells when the server knows it."""
        (binding,) = (
            it for it in policies() if it["kind"].endswith("Binding") and named(it, policy)
        )
        await self.delete([binding])
        await self.until(row, refused=False)
        try:
            yield
        finally:
            await self.apply([binding])
            await self.until(row, refused=True)

    async def until(self, row: Row, *, refused: bool) -> None:
        """Try an attack again until it is refused, or is not: policies count after a while."""
        deadline = time.monotonic() + PATIENCE
        while bool(answer := await self.play(row)) != refused:
            assert time.monotonic() < deadline, f"waited in vain: {answer!r}"
            await asyncio.sleep(0.05)

    async def may(self, item: Json, by: Account) -> None:
        """Wait until a right counts: a binding does so a moment after it was made."""
        deadline = time.monotonic() + PATIENCE
        while answer := await self.create(item, by):
            assert time.monotonic() < deadline, f"waited in vain: {answer!r}"
            await asyncio.sleep(0.05)


def policies() -> list[Json]:
    """The policies and bindings that ship."""
    (kustomization,) = load(ADMISSION / "kustomization.yaml")
    return [it for name in kustomization["resources"] for it in load(ADMISSION / name)]


def named(item: Json, name: str) -> bool:
    """Whether an object has this name."""
    return bool(item["metadata"]["name"] == name)


def world() -> Iterator[Json]:
    """Kinds, namespaces and rights that are there before any policy."""
    yield from (_crd(version, kind) for version, kinds in CRDS.items() for kind in kinds)
    for name in ("istio-system", "knative-serving", "knative-eventing", "victim-db"):
        yield thing("v1", "Namespace", name, None)
    yield OWN
    yield thing("v1", "ServiceAccount", "default")
    everything = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
    rbac = "rbac.authorization.k8s.io/v1"
    more = thing(rbac, "ClusterRole", "knative-edit", None, rules=EDIT_OF_KNATIVE)
    yield changed(more, {"metadata labels rbac.authorization.k8s.io/aggregate-to-edit": "true"})
    yield thing(rbac, "ClusterRole", "everything", None, rules=[everything])
    yield binding("RoleBinding", "devs", "everything", {"kind": "Group", "name": MALLORY.groups[0]})
    spaces = ("kube-system", "cert-manager", "knative-serving", "knative-eventing")
    for kind, name in (
        ("User", "system:kube-controller-manager"),
        ("Group", "system:nodes"),
        *(("Group", f"system:serviceaccounts:{space}") for space in spaces),
    ):
        of = name.replace(":", "-")
        yield binding("ClusterRoleBinding", of, "cluster-admin", {"kind": kind, "name": name})


def binding(kind: str, name: str, role: str, subject: Json) -> Json:
    """Gives somebody a ClusterRole, everywhere or in the tenant's namespace."""
    group = "rbac.authorization.k8s.io"
    return thing(
        f"{group}/v1",
        kind,
        name,
        SPACE if kind == "RoleBinding" else None,
        roleRef={"apiGroup": group, "kind": "ClusterRole", "name": role},
        subjects=[{"apiGroup": group, **subject}],
    )


def _crd(version: str, kind: str) -> Json:
    group, _, number = version.partition("/")
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    made = thing(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        f"{plural(kind)}.{group}",
        None,
        spec={
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural(kind)},
            "versions": [
                {
                    "name": number,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                }
            ],
        },
    )
    made["metadata"]["annotations"] = {"api-approved.kubernetes.io": "unapproved, for tests"}
    return made


def _dry(really: bool) -> dict[str, str]:
    return {} if really else {"dryRun": "All"}


def _refusal(answer: httpx.Response) -> str:
    if answer.status_code in {200, 201}:
        return ""
    return f"{answer.status_code}: {answer.json().get('message', answer.text)}"
