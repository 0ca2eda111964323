"""The policy that another process reads is the one that this process would have read."""

import subprocess
import sys
from pathlib import Path

import pytest

from authz.errors import BadPolicy
from authz.policysource import reader as policyreader
from authz.policysource.file import parse_policy, policy_of_json, read_policy, read_policy_as_json
from authz.policysource.reader import parse_policy_apart, read_policy_apart
from tests.policy_text import WHOLE


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policyreader, "SMALL", -1)


EXAMPLES = [
    "grants: []",
    WHOLE,
    "grants: [{to: a, from: '*', until: 2027-12-31}]\n",
    "default_mode: off\nnamespaces: {on: {mode: off, public: false}}\n",
]


@pytest.mark.parametrize("text", EXAMPLES)
def test_it_is_the_same_policy(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    assert policy_of_json(read_policy_as_json(file).encode()) == read_policy(file)


def test_another_process_reads_the_same(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(WHOLE)
    assert read_policy_apart(file) == read_policy(file)


def test_the_other_process_is_given_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, str]] = []

    def run(*_: object, env: dict[str, str], **__: object) -> subprocess.CompletedProcess[bytes]:
        given.append(env)
        return subprocess.CompletedProcess([], 1)

    monkeypatch.setenv("AUTHZ_KEK", "precious")
    monkeypatch.setenv("HARMLESS", "kept")
    monkeypatch.setattr(subprocess, "run", run)
    file = tmp_path / "policy.yaml"
    file.write_text("grants: []")
    with pytest.raises(BadPolicy):
        read_policy_apart(file)
    assert "precious" not in given[0].values()
    assert given[0]["HARMLESS"] == "kept"


@pytest.mark.parametrize(
    "content", [b"x: 1\ny: 2\n", b"tenants: [", b"\xff", b"roles: {transit: [nobody]}\n"]
)
def test_problems_are_told_word_for_word(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(content)
    with pytest.raises(BadPolicy) as here:
        read_policy(file)
    with pytest.raises(BadPolicy) as apart:
        read_policy_apart(file)
    assert apart.value.problems == here.value.problems


def test_small_files_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(WHOLE)
    monkeypatch.setattr(policyreader, "_MODULE", "no.such.module")
    with pytest.raises(BadPolicy):
        read_policy_apart(file)
    monkeypatch.setattr(policyreader, "SMALL", len(WHOLE))
    assert read_policy_apart(file) == read_policy(file)


def test_a_file_that_is_gone_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(BadPolicy, match="No such file"):
        read_policy_apart(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"grants": [{"to": "A", "from": "b"}]}'])
def test_what_is_no_policy_is_not_believed(text: bytes) -> None:
    with pytest.raises(BadPolicy):
        policy_of_json(text)


@pytest.mark.parametrize(
    "argv",
    [
        [sys.executable, "-c", "raise MemoryError"],
        [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"],
        [sys.executable, "-c", "import sys; print('half', end=''); sys.exit(3)"],
        ["/no/such/program"],
    ],
)
def test_a_reader_that_fails_changes_nothing(
    tmp_path: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run
    monkeypatch.setattr(
        "authz.policysource.reader.subprocess.run", lambda _, **more: run(argv, **more)
    )
    with pytest.raises(BadPolicy):
        read_policy_apart(tmp_path)


def test_a_reader_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(WHOLE)
    monkeypatch.setattr(policyreader, "_SECONDS", 0)
    with pytest.raises(BadPolicy, match="timed out"):
        read_policy_apart(file)


@pytest.mark.parametrize("text", EXAMPLES)
def test_another_process_reads_a_text_as_well(text: str) -> None:
    assert parse_policy_apart(text) == parse_policy(text)


@pytest.mark.parametrize("text", ["x: 1\ny: 2\n", "tenants: [", "roles: {transit: [nobody]}\n"])
def test_problems_of_a_text_are_told_word_for_word(text: str) -> None:
    with pytest.raises(BadPolicy) as here:
        parse_policy(text)
    with pytest.raises(BadPolicy) as apart:
        parse_policy_apart(text)
    assert apart.value.problems == here.value.problems
