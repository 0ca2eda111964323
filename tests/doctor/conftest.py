"""Proxies that nobody started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.proxies import Bench
from tests.kube_double import ApiDouble


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiDouble]:
    with ApiDouble.running() as double:
        monkeypatch.setenv("KUBECONFIG", str(double.kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.setenv("PATH", "/nowhere")
        double.put("namespaces", {"metadata": {"name": "globex"}})
        yield double
