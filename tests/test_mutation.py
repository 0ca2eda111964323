"""Takes away each rule that is finer than a row: a test that is named here must notice.

Each case rewrites one place of the package in a copy and runs one test against the copy. A place
that is no longer there fails the case, too, so the list cannot fall behind the code unseen.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, ROOT, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])
def test_a_test_notices_when_this_rule_is_taken_away(mutation: Mutation, tmp_path: Path) -> None:
    place = Path("domain", f"{mutation.module}.py")
    source = (ROOT / "authz" / place).read_text()
    assert source.count(mutation.rule) == 1, "this rule is not there, or not only once"
    mutant = tmp_path / "authz"
    mutant.mkdir()
    for module in (ROOT / "authz").glob("*.py"):
        shutil.copy(module, mutant)
    for package in ("_proto", "domain"):
        shutil.copytree(ROOT / "authz" / package, mutant / package)
    (mutant / place).write_text(source.replace(mutation.rule, mutation.instead))

    # Bare: plugins and configuration take longer to load than a test to run.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-c", os.devnull, "--rootdir", str(ROOT)]
    command += ["-p", "no:cacheprovider", "--import-mode=importlib", "--noconftest"]
    environment = {
        **os.environ,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT))),
    }
    run = subprocess.run(
        [*command, str(ROOT / "tests" / mutation.noticed_by)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 1, f"nobody noticed:\n{run.stdout}{run.stderr}"
    assert "failed" in run.stdout
    assert "error" not in run.stdout.splitlines()[-1], run.stdout
