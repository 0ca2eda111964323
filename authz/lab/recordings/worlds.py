"""What was recorded of a world, and the secrets that its proxies ask for."""

from __future__ import annotations

from collections.abc import Iterable

from authz.lab.harness.certs import Certificate
from authz.lab.recordings.playing import Files, Secrets
from authz.lab.recordings.reading import Recordings, Variant
from authz.lab.world import objects
from authz.lab.world.model import Json, World


def variant(world: World, documents: Iterable[Json]) -> Variant:
    """What istiod sent where these documents were in the cluster of that world.

    Raises:
        NotRecorded: it was not recorded with these.
    """
    return Recordings.of().find(objects.rendered(world, documents))


def secrets(own: Certificate, public: Certificate) -> Secrets:
    """A pod's certificate, and what the gateway shows to clients outside."""
    return {
        "default": Files(own.cert_file, own.key_file),
        "ROOTCA": Files(authority=own.ca_file),
        "kubernetes://public": Files(public.cert_file, public.key_file),
    }


def runtime(istio: str = "") -> Json:
    """What Istio's agent switches in every Envoy, such as that a path may have a fragment.

    Args:
        istio: one of `versions.ISTIODS`; by default the newest that was recorded.
    """
    found: Json = Recordings.of(istio).bootstraps["sidecar"]["layered_runtime"]
    return found
