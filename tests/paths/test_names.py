"""Within a tenant, every name by which a service can be called."""

from __future__ import annotations

import pytest

from authz.lab.box.istio.mesh import Mesh
from tests.paths.conftest import in_the_box

pytestmark = in_the_box

LONG = "acme-db.svc.cluster.local"


@pytest.mark.parametrize("caller", ["acme-db/plain", "acme-web/hello"])
@pytest.mark.parametrize(
    ("host", "to"),
    [
        *((f"hello.{form}", "hello") for form in ("acme-db", "acme-db.svc", LONG, f"{LONG}:80")),
        *((f"idle.{form}", "idle") for form in ("acme-db", "acme-db.svc", LONG, f"{LONG}:80")),
        *((f"plain.{form}", "plain") for form in ("acme-db", LONG, f"{LONG}.", f"{LONG}.:80")),
        (f"hello-00001.{LONG}", "hello"),
        (f"hello-00001-private.{LONG}.", "hello"),
        ("canary-idle.acme-db.svc", "idle"),
    ],
)
async def test_a_name(mesh: Mesh, caller: str, host: str, to: str) -> None:
    answer = await mesh.call(caller, f"http://{host}/")
    assert (answer.status, answer.app) == (200, f"acme-db/{to}")


@pytest.mark.parametrize("form", ["acme-db", "acme-db.svc"])
async def test_a_revision_goes_by_its_full_name_where_the_activator_is_in_the_way(
    mesh: Mesh, form: str
) -> None:
    """To shorter ones Knative's own activator says 404."""
    answer = await mesh.call("acme-db/plain", f"http://idle-00001.{form}/")
    assert (answer.status, answer.reason) == (403, "not-allowed")
    answer = await mesh.call("acme-db/plain", f"http://hello-00001.{form}/")  # straight to the pod
    assert (answer.status, answer.app) == (200, "acme-db/hello")


@pytest.mark.parametrize("host", ["plain", "hello-00001", "hello-00001-private"])
async def test_a_short_name_within_the_namespace(mesh: Mesh, host: str) -> None:
    answer = await mesh.call("acme-db/plain", f"http://{host}/")
    assert answer.status == 200
    assert answer.app.startswith("acme-db/")


async def test_a_pods_own_address_within_the_tenant_with_its_certificate(mesh: Mesh) -> None:
    """By IP, sidecars speak plaintext; who speaks mutual TLS itself needs no token."""
    to = f"{mesh.address('acme-db/hello')}:8012"
    tls = mesh.tls("acme-web/plain", alpn=["istio-http/1.1", "istio"])
    answer = await mesh.call("acme-web/plain", "http://x/", via=to, tls=tls, through_sidecar=False)
    assert (answer.status, answer.app) == (200, "acme-db/hello")
