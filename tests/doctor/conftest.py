"""Proxies that nobody started."""

from __future__ import annotations

import pytest

from tests.doctor.proxies import Bench
from tests.kube_double import ApiDouble


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


@pytest.fixture
def api(api: ApiDouble, monkeypatch: pytest.MonkeyPatch) -> ApiDouble:
    monkeypatch.setenv("PATH", "/nowhere")
    api.put("namespaces", {"metadata": {"name": "globex"}})
    return api
