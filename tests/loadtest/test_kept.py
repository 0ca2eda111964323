"""`kept`: what it measures is what it says, and a bound that is not met fails it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadtest.cli import app
from loadtest.cli import kept as command
from loadtest.kept import Measured, Size, measure
from loadtest.kept.revocations import _quantiles
from loadtest.stack import Stack
from loadtest.targets import Row

SMALL = Size(revocations=1, others=(1,), peers=20, destinations=3)


@pytest.mark.envoy
async def test_all_is_measured() -> None:
    with tempfile.TemporaryDirectory() as directory:
        stack = Stack(Path(directory))
        await stack.keys.make_keys()
        found = await measure(stack, Path(directory), SMALL, lambda text: None)
    sidecar, pod, steady, asking, keeping = found
    assert [it.row.met for it in (sidecar, pod, steady)] == [True] * 3
    assert sidecar.values[1] == 0
    assert steady.values[0] >= 0
    for it in (asking, keeping):
        assert len(it.values) == SMALL.revocations
        assert min(it.values) > 0


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1)])
def test_a_bound_that_is_not_met_is_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, met: bool, code: int
) -> None:
    async def measured(*_arguments: object) -> list[Measured]:
        return [Measured(Row("how long", "≤ 3 s", "2 s", met), [2.0])]

    monkeypatch.setattr(command, "measure", measured)
    file = tmp_path / "kept.json"
    done = CliRunner().invoke(app, ["kept", "--json", str(file)])
    assert done.exit_code == code
    assert f"| how long | ≤ 3 s | 2 s | {'yes' if met else '**no**'} |" in done.stdout
    assert '"values": [' in file.read_text()


def test_quantiles_are_of_all() -> None:
    assert _quantiles([n / 100 for n in range(100, 0, -1)]) == "0.51, 0.96, 1.00 s"
