"""Two results compared: what counts as a difference."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loadtest.cli import app
from loadtest.diff import Significance, judge
from loadtest.plan import BadPlan
from loadtest.stored import put, read, save


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([10, 11, 12], [15, 16, 17], Significance.DIFFERENT),
        ([15, 16, 17], [10, 11, 12], Significance.DIFFERENT),
        ([10, 11, 12], [11, 12, 13], Significance.NOISE),
        ([10, 11, 15], [16, 16, 16], Significance.NOISE),  # apart, but by no more than the noise
        ([10, 10, 10], [10, 10, 10], Significance.NOISE),
        ([10, 11], [15, 16, 17], Significance.UNKNOWN),
    ],
)
def test_what_is_more_than_noise(
    before: list[float], after: list[float], expected: Significance
) -> None:
    assert judge(before, after) is expected


def stored(directory: Path, name: str, figures: dict[str, Any], **machine: str) -> str:
    file = directory / name
    results = [{"name": "verify, http2", "figures": figures}]
    file.write_text(json.dumps({"kind": "hotpath", "machine": machine, "results": results}))
    return str(file)


def test_differences_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    before = {"cpu_us": [10, 11, 12], "p50_us": [100, 101, 102], "client_busy": [0.1, 0.1, 0.1]}
    after = {"cpu_us": [20, 21, 22], "p50_us": [100, 101, 102], "client_busy": [0.9, 0.9, 0.9]}
    files = [
        stored(tmp_path, "a", before, kernel="1"),
        stored(tmp_path, "b", after, kernel="2"),
    ]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["diff", *files])
    assert done.exit_code == 0, done.output
    assert "11 (10-12)" in done.output
    assert "+91%" in done.output
    assert "p50_us" not in done.output
    assert "1 of 2 figures: no difference beyond noise" in done.output
    assert "kernel: 1 before, 2 after" in done.output
    rows = json.loads(CliRunner().invoke(app, ["diff", *files, "--json"]).stdout)
    assert {row["figure"]: row["verdict"] for row in rows} == {
        "cpu_us": "different",
        "p50_us": "no difference beyond noise",
    }


def test_results_that_are_none_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(BadPlan, match="cannot be read"):
        read(tmp_path / "missing")
    for text in ("{", "[]", "{}", '{"results": [{"name": "x"}]}'):
        (tmp_path / "bad").write_text(text)
        with pytest.raises(BadPlan, match="is not a result"):
            read(tmp_path / "bad")
    with pytest.raises(BadPlan, match="cannot be written"):
        save("", tmp_path / "no" / "such" / "directory")


def test_a_table_goes_to_its_place_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    put("alone", file, "compare")
    assert file.read_text() == "alone\n"
    file.write_text("above\n<!-- compare -->\nold\n<!-- /compare -->\nbelow\n")
    put("new", file, "compare")
    assert file.read_text() == "above\n<!-- compare -->\nnew\n<!-- /compare -->\nbelow\n"
