"""The policy that another process reads is the one that this process would have read."""

import subprocess
import sys

import pytest

from authz.errors import BadPolicy
from authz.policysource import reader as policyreader
from authz.policysource.file import parse_policy, parse_policy_as_json, policy_of_json
from authz.policysource.reader import parse_policy_apart
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
def test_it_is_the_same_policy(text: str) -> None:
    assert policy_of_json(parse_policy_as_json(text).encode()) == parse_policy(text)


@pytest.mark.parametrize("text", EXAMPLES)
def test_another_process_reads_the_same(text: str) -> None:
    assert parse_policy_apart(text) == parse_policy(text)


def test_the_other_process_is_given_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, str]] = []

    def run(*_: object, env: dict[str, str], **__: object) -> subprocess.CompletedProcess[bytes]:
        given.append(env)
        return subprocess.CompletedProcess([], 1)

    monkeypatch.setenv("AUTHZ_KEK", "precious")
    monkeypatch.setenv("HARMLESS", "kept")
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(BadPolicy):
        parse_policy_apart("grants: []")
    assert "precious" not in given[0].values()
    assert given[0]["HARMLESS"] == "kept"


def test_small_texts_start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policyreader, "_MODULE", "no.such.module")
    with pytest.raises(BadPolicy, match="reader ended with code 1"):
        parse_policy_apart(WHOLE)
    monkeypatch.setattr(policyreader, "SMALL", len(WHOLE))
    assert parse_policy_apart(WHOLE) == parse_policy(WHOLE)


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
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run
    monkeypatch.setattr(
        "authz.policysource.reader.subprocess.run", lambda _, **more: run(argv, **more)
    )
    with pytest.raises(BadPolicy):
        parse_policy_apart("grants: []")


def test_a_reader_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policyreader, "_SECONDS", 0)
    with pytest.raises(BadPolicy, match="timed out"):
        parse_policy_apart(WHOLE)


@pytest.mark.parametrize("text", ["x: 1\ny: 2\n", "tenants: [", "roles: {transit: [nobody]}\n"])
def test_problems_of_a_text_are_told_word_for_word(text: str) -> None:
    with pytest.raises(BadPolicy) as here:
        parse_policy(text)
    with pytest.raises(BadPolicy) as apart:
        parse_policy_apart(text)
    assert apart.value.problems == here.value.problems
