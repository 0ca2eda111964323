"""`authz demo --knative`, as somebody types it."""

from __future__ import annotations

import os

import pytest

from authz.lab import demo
from authz.lab.box.paths import play
from authz.lab.box.paths.outage import OUTAGE
from tests.command import Run
from tests.paths.conftest import own_box


class TestInTheBox:
    pytestmark = own_box

    def test_scenarios_are_as_expected(
        self, run: Run, monkeypatch: pytest.MonkeyPatch, *, reuse: bool
    ) -> None:
        """Some of them: `test_matrix` plays each."""
        some = list(play.scenarios())[::10]
        monkeypatch.setattr(play, "scenarios", lambda: some)
        done = run("demo", "--knative", "--once", "--json", *["--reuse"] * reuse)
        assert done.code == 0, done.err
        assert [scenario for scenario in done.json["scenarios"] if not scenario["ok"]] == []
        assert [it["name"] for it in done.json["scenarios"]] == [it.name for it in (*some, *OUTAGE)]
        assert done.json["differences"] == 0
        assert "it took" in done.err


def test_it_says_that_it_needs_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert demo.run(once=True, json=False, knative=True) == demo.NOT_STARTED
    assert "need root" in capsys.readouterr().err
