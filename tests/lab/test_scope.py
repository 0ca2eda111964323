"""What the Sidecar objects that ship leave to whom, as istiod has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from authz.lab.recordings import Recordings, versions
from authz.lab.world.variants import component

PLATFORM = Path(__file__).parents[2] / "deploy" / "platform"
TENANTS = "outbound|80||plain.acme-db.svc.cluster.local"
BROKER = "outbound|80||broker-ingress.knative-eventing.svc.cluster.local"
US = "outbound|9000||authz.authz-system.svc.cluster.local"


@pytest.mark.parametrize("istio", versions())
def test_each_hop_is_left_what_it_sends_to_and_tenants_are_not_each_other(istio: str) -> None:
    (scoped,) = (it for it in Recordings.of(istio).variants if it.name == "sidecar-scope")

    def shown(pod: str) -> set[str]:
        return {cluster["name"] for cluster in scoped[pod].clusters}

    for hop in ("knative-serving/activator", "knative-eventing/imc-dispatcher"):
        assert {TENANTS, US} <= shown(hop)
    assert TENANTS not in shown("globex/hello")
    assert {BROKER, US} <= shown("globex/hello")


def test_the_platforms_sidecars_say_the_same() -> None:
    def scopes(documents: list[Any]) -> dict[str, Any]:
        found = [it for it in documents if it and it.get("kind") == "Sidecar"]
        return {it["metadata"].get("namespace", "istio-system"): it["spec"] for it in found}

    yaml = YAML(typ="safe")
    files = [PLATFORM / "istio/sidecars.yaml", PLATFORM / "eventing/sidecar.yaml"]
    installed = scopes([it for file in files for it in yaml.load_all(file)])
    assert installed == scopes([*component("sidecar-scope")])
