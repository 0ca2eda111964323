"""Options of the whole test suite; pytest reads them from the topmost conftest only."""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer

from tests.scheduling import Together, scheduler


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together:
    return scheduler(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--envoy-matrix",
        action="store_true",
        help="run the tests with real Envoys on every supported version, not just the newest",
    )
    parser.addoption(
        "--kube",
        action="store_true",
        help="run the tests of the key store also on the cluster that KUBECONFIG names",
    )


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests start without settings of ours, and outside Kubernetes, wherever they run."""
    for name in list(os.environ):
        if name.upper().startswith(("AUTHZ_", "KUBERNETES_", "KUBECONFIG")):
            monkeypatch.delenv(name)
