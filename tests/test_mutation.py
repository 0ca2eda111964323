"""Takes away each rule that is finer than a row: a test that is named here must notice.

Each case rewrites one place of the package in a copy and runs one test against the copy. A place
that is no longer there fails the case, too, so the list cannot fall behind the code unseen.
"""

import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, ROOT, Mutation

# Bare: plugins and configuration take longer to load than a test to run.
OPTIONS = ["-q", "-x", "-c", os.devnull, "--rootdir", str(ROOT), "-p", "no:cacheprovider"]
OPTIONS += ["--import-mode=importlib", "--noconftest", "--assert=plain", "--tb=line"]


def run(mutant: Path, test: str) -> None:
    """Play a test against a copy of the package, in a process that forgets what it has loaded."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"authz", "tests"}]:
        del sys.modules[name]
    with (mutant / "said").open("w") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    os.chdir(mutant)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path[:0] = [str(mutant), str(ROOT)]
    sys.exit(pytest.main([*OPTIONS, str(ROOT / "tests" / test)]))


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

    # Each is forked from a process that has loaded what all of them need.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "hypothesis.strategies", "cryptography.x509"])
    process = context.Process(target=run, args=(tmp_path, mutation.noticed_by))
    process.start()
    process.join(60)
    if process.exitcode is None:
        process.kill()

    said = (tmp_path / "said").read_text()
    assert process.exitcode == 1, f"nobody noticed:\n{said}"
    assert "failed" in said
    assert "error" not in said.splitlines()[-1], said
