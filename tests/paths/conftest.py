"""What the tests of the paths have in common; the box itself is the fixture `mesh`."""

from __future__ import annotations

import pytest

from authz.lab.box.istio import network

in_the_box = [
    pytest.mark.skipif(bool(network.missing()), reason=network.missing()),
    pytest.mark.envoy,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]
"""Marks of tests that share one box and leave it as it was."""

own_box = [it for it in in_the_box if it.name != "asyncio"]
"""Marks of tests that change theirs."""
