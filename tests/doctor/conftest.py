"""Proxies that nobody started."""

from __future__ import annotations

import pytest

from tests.doctor.proxies import Bench


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()
