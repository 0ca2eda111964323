"""What the tests with the real control plane have in common."""

from __future__ import annotations

import pytest

from authz.lab.controlplane import build


@pytest.fixture(autouse=True)
def needs_istiod(request: pytest.FixtureRequest) -> None:
    """Tests marked `istiod` run where it is asked for, and can be had."""
    if request.node.get_closest_marker("istiod") is None:
        return
    if not request.config.getoption("--istiod"):
        pytest.skip("starts a real control plane: pytest --istiod")
    if build.missing() and not all(it.file.exists() for it in build.everything()):
        pytest.skip(build.missing())
