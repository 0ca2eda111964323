"""The command line, beside a policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.command import Run, in_process
from tests.reach.policies import TEXT


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line beside a policy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    Path("policy.yaml").write_text(TEXT)
    return in_process(monkeypatch, capsys)
