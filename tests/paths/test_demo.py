"""`authz demo --knative`, as somebody types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from authz.lab import demo
from authz.lab.box.paths.outage import OUTAGE
from authz.lab.box.paths.play import scenarios
from tests.paths.conftest import own_box


class TestInTheBox:
    pytestmark = own_box

    def test_all_scenarios_are_as_expected(self, *, reuse: bool) -> None:
        argv = [sys.executable, "-m", "authz", "demo", "--knative", "--once", "--json"]
        argv += ["--reuse"] * reuse
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert [it for it in result["scenarios"] if not it["ok"]] == []
        names = [it["name"] for it in result["scenarios"]]
        assert names == [it.name for it in (*scenarios(), *OUTAGE)]
        assert result["differences"] == 0
        assert "it took" in done.stderr


def test_it_says_that_it_needs_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demo.run(once=True, json=False, knative=True) == demo.NOT_STARTED
    assert "need root" in capsys.readouterr().err
