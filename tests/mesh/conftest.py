"""What the tests of the box have in common; the box itself is the fixture `mesh`."""

from __future__ import annotations

import pytest

from authz.lab.box.istio import network

# To acme-web/plain, other tenants' VirtualServices are out of sight: the local gateway is left.
SCOPED = {
    "kind": "Sidecar",
    "metadata": {"name": "hidden", "namespace": "acme-web"},
    "spec": {
        "workloadSelector": {"labels": {"app": "plain"}},
        "egress": [{"hosts": ["./*", "istio-system/*", "knative-serving/*", "authz-system/*"]}],
    },
}

needs_network = pytest.mark.skipif(bool(network.missing()), reason=network.missing())
