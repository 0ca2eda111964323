"""AuthorizationPolicies for each tenant, on a real istiod: what they stop, and what they cannot."""

from __future__ import annotations

import pytest

from authz.lab.box.istio import network
from authz.lab.live import live
from loadtest.incumbent import play

pytestmark = [
    pytest.mark.usefixtures("control_plane"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(network.missing()), reason=network.missing()),
]
WAY = "AuthorizationPolicies"


async def test_a_hop_by_host_is_told_another_destination_by_header() -> None:
    names = {"pod-sibling", "pod-foreign", "activator-sibling", "activator-foreign"}
    names |= {"activator-granted", "steered-activator"}
    played = await play(live(tell=print), print, [WAY], names.__contains__)
    assert {it.name: it.did[WAY] for it in played} == {
        "pod-sibling": True,
        "pod-foreign": False,
        "activator-sibling": True,
        "activator-granted": True,
        "activator-foreign": False,
        "steered-activator": True,
    }
