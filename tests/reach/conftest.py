"""The command line, beside a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import Run
from tests.reach.policies import TEXT


@pytest.fixture
def run(run: Run) -> Run:
    """The command line beside a policy."""
    Path("policy.yaml").write_text(TEXT)
    return run
