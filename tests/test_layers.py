"""The house: what a running server loads, what the image leaves out, how many rooms there are."""

import ast
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.processes import Folder, environment, serving
from tests.support.waiting import at_last

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "authz"

TOOLS = {
    "check",
    "conformance",
    "doctor",
    "envoyfilters",
    "estimate",
    "lab",
    "manifests",
    "reach",
    "report",
    "tenants",
    "testing",
}
MOST_MODULES = 110
"""Of ours in a server that keeps its keys in a file, packages counted."""

WITNESS = """\
import atexit, json, os, pathlib, sys

@atexit.register
def tell():
    ours = sorted(name for name in sys.modules if name.partition(".")[0] == "authz")
    pathlib.Path({folder!r}, f"{{os.getpid()}}.modules").write_text(json.dumps(ours))
"""


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_server_loads_no_tool_and_nothing_of_the_lab(tmp_path: Path, workers: int) -> None:
    folder = Folder(tmp_path)
    await folder.make_keys()
    (tmp_path / "sitecustomize.py").write_text(WITNESS.format(folder=str(tmp_path)))
    flags = folder.flags(workers=str(workers))
    with serving(tmp_path, flags, PYTHONPATH=f"{tmp_path}:{ROOT}") as process:
        process.ready().popen.terminate()
        assert process.ended() == 0
        processes = 1 if workers == 1 else 1 + workers
        at_last(lambda: len(list(tmp_path.glob("*.modules"))) == processes, "all have told")

    for told in tmp_path.glob("*.modules"):
        modules = json.loads(told.read_text())
        assert not [
            name for name in modules if name.split(".")[1:2] and name.split(".")[1] in TOOLS
        ]
        assert "authz.server.workers" in modules
        assert len(modules) <= MOST_MODULES, modules


def test_where_the_lab_is_left_out_the_demo_says_what_to_install(tmp_path: Path) -> None:
    shutil.copytree(
        PACKAGE, tmp_path / "authz", ignore=shutil.ignore_patterns("lab", "__pycache__")
    )

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "authz", *arguments],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(tmp_path)),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    demo, box, others = run("demo", "--once"), run("conformance", "--box"), run("--help")
    assert (demo.returncode, demo.stdout) == (3, "")
    assert "image does not hold the demo" in demo.stderr
    assert "pip install '.[demo]' in a clone" in demo.stderr
    assert box.returncode == 2
    assert "pip install '.[demo]' in a clone" in box.stderr
    assert others.returncode == 0, others.stderr


def test_few_modules_are_loose_and_no_name_is_used_more_than_twice() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert {name: times for name, times in names.items() if times > 2} == {}


def test_what_tests_share_is_in_modules_that_are_none() -> None:
    """A test that is changed or goes away must not break another."""
    taken = [
        f"{path.relative_to(ROOT)}: {node.module}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and node.module.rpartition(".")[2].startswith("test_")
    ]
    assert taken == []
