"""Proxies that nobody started."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.proxies import Bench


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder: Path = tmp_path_factory.mktemp("proxies")
    return Bench(folder / "certs")
