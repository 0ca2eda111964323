"""Everything that people and machines do wrong at the command line: a text and an exit code.

Never a traceback, and never a command that does not end.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from authz.lab.harness import service
from tests.kube_double import ApiDouble
from tests.support.processes import authz, environment
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.timeout(600)  # some play each command many times
KEK = "--kek-files kek"
STORE = f"--store sqlite:keys.db {KEK}"
COMMANDS = (
    "--help",
    "--version",
    "serve --help",
    "demo --help",
    "completion bash",
    "manifests",
    "policy check policy.yaml",
    "policy tables",
    "policy schema",
    "policy matrix policy.yaml",
    "policy diff policy.yaml policy.yaml",
    "policy explain policy.yaml a b",
    "policy prove policy.yaml --no-path a b",
    "policy test policy.yaml cases.yaml",
    "tenant render acme-web",
    "platform estimate",
    f"keys init --dry-run --store sqlite:new.db {KEK}",
    f"keys list {STORE}",
    f"keys history {STORE}",
    f"keys rotate --root {STORE}",
    f"keys revoke a {STORE}",
    f"keys reseal --to kek {STORE}",
    f"keys recover {STORE}",
    f"token mint a b {STORE}",
    "check --pre",
    "check --pre --json",
    "conformance --image x",
    "doctor --cluster",
    "token inspect",
    "report log",
    "doctor policy.yaml",
    "serve",
)
SILENT = {
    *("serve", "token inspect", "report log", "doctor policy.yaml"),
    "conformance --image x",
}
"""They have nothing to print on standard output here."""
CASES = "cases: [{from: a, to: a, expect: allow}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yaml").write_text("grants: [{to: b, from: a}]\n")
    (tmp_path / "cases.yaml").write_text(CASES)
    (tmp_path / "log").write_text("")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    made = authz("keys", "init", "--generate-kek", "--store=sqlite:keys.db", "--kek-files=kek")
    assert made.returncode == 0, made.stderr
    return tmp_path


DRIVER = """
import json, os, sys
import authz.cli, authz.cli.streams
from importlib import import_module

for name in authz.cli._COMMANDS:
    import_module(f"authz.cli.{name}")


def begin(command, way):
    said = os.memfd_create("errors")
    child = os.fork()
    if child:
        return command, way, child, said
    null, full = os.open("/dev/null", os.O_RDWR), os.open("/dev/full", os.O_WRONLY)
    left, gone = os.pipe()
    os.close(left)
    out = {"a full disk": full, "nobody reads": gone, "both": said}.get(way)
    if out is None:
        out = os.memfd_create("output")
    for number, place in enumerate((null, out, full if way == "no errors" else said)):
        os.dup2(place, number)
    closed = {"closed 0": 0, "closed 1": 1, "closed 2": 2}.get(way)
    if closed is not None:
        os.close(closed)
        name = ("stdin", "stdout", "stderr")[closed]
        setattr(sys, name, None)
        setattr(sys, f"__{name}__", None)
    sys.argv = ["authz", *command.split(" ")]
    try:
        authz.cli.main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        code = 99
        import traceback
        os.write(said, traceback.format_exc().encode())
    os._exit(code)


def end(command, way, child, said):
    _, status = os.waitpid(child, 0)
    text = os.pread(said, 100_000, 0).decode("utf-8", "replace")
    os.close(said)
    return command, way, os.waitstatus_to_exitcode(status), text


commands, ways, most = map(json.loads, sys.argv[1:])
running, answers = [], []
for command in commands:
    for way in ways:
        running.append(begin(command, way))
        if len(running) == most:
            answers.append(end(*running.pop(0)))
print(json.dumps(answers + [end(*one) for one in running]))
"""
WAYS = (
    *("as it should be", "a full disk", "nobody reads", "no errors"),
    *("closed 0", "closed 1", "closed 2"),
)


def outcomes(
    commands: Sequence[str], ways: Sequence[str], most: int = 1, **env: str
) -> dict[tuple[str, str], tuple[int, str]]:
    """Exit code and errors of each command on each stream, so many at a time.

    All are forked from one process, or it would take minutes.
    """
    argv = [sys.executable, "-c", DRIVER, *map(json.dumps, (commands, ways, most))]
    done = subprocess.run(
        argv, capture_output=True, text=True, env=environment(**env), timeout=600, check=True
    )
    return {(command, way): (code, said) for command, way, code, said in json.loads(done.stdout)}


def test_streams_that_fail_are_told_by_text_and_code(folder: Path) -> None:
    with ApiDouble.running() as api:
        api.forbidden = {"create"}
        kubeconfig = str(api.kubeconfig(folder / "kubeconfig"))
        seen = outcomes(COMMANDS, WAYS, PYTHONIOENCODING="ascii", KUBECONFIG=kubeconfig)
    for (command, way), (code, said) in seen.items():
        where = f"{command}, {way}: {said}"
        assert not any(word in said for word in ("Traceback", "Exception", "Error")), where
        good = seen[command, "as it should be"][0]
        assert good in {0, 1, 2, 3}, where
        if command not in SILENT and way == "a full disk":
            assert code == 3, where
            assert "standard output cannot be written: No space left on device" in said
        elif command not in SILENT and way == "nobody reads":
            assert (code, said) == (141, ""), where
        elif way in {"no errors", "closed 1", "closed 2"}:
            assert code == good, where


def test_a_process_of_its_own_ends_in_the_same_way(folder: Path) -> None:
    """What the interpreter writes as it ends is the last of it."""
    with Path("/dev/full").open("wb") as full:
        for arguments in (["policy", "tables"], ["--help"], ["policy", "check", "policy.yaml"]):
            done = subprocess.run(
                [*service.COMMAND, *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                env=environment(),
                check=False,
            )
            assert done.returncode == 3
            said = b"standard output cannot be written: No space left on device\n"
            assert done.stderr == said


def test_a_closed_output_is_no_place_for_the_next_file(folder: Path) -> None:
    """Else the key store is opened as standard output, and what is printed goes into it."""
    rotate = " ".join(
        [*service.COMMAND, "keys rotate --root --store sqlite:keys.db --kek-files kek"]
    )
    for closed in ("<&-", ">&-", "2>&-"):
        subprocess.run(["sh", "-c", f"{rotate} {closed}"], env=environment(), check=True)
    kept = authz("keys", "list", "--store=sqlite:keys.db", "--kek-files=kek", "--json")
    assert kept.returncode == 0, kept.stderr
    assert json.loads(kept.stdout)["version"] == 4


BIG = "9" * 50
NEW = "sqlite:new.db"
BAD: list[tuple[str, int, str]] = [
    ("policy check folder", 1, "Is a directory"),
    ("policy check pipe", 1, "it is a pipe, and nobody writes to it"),
    ("policy check /dev/zero", 1, "it is a device"),
    ("policy check /dev/null", 1, "it is a device"),
    ("policy check \udcff\udcfe", 1, "No such file or directory"),
    ("policy explain policy.yaml a b/", 2, "'b/' is not a namespace"),
    ("policy explain policy.yaml a/ b", 2, "'' is not the name of a service account"),
    ("policy explain policy.yaml a b --port 0", 2, "Invalid value"),
    ("policy explain policy.yaml a b --port 70000", 2, "Invalid value"),
    (f"policy explain policy.yaml a b --port {BIG}", 2, "Invalid value"),
    ("policy test policy.yaml pipe", 2, "nobody writes to it"),
    ("policy test policy.yaml folder", 2, "Is a directory"),
    ("policy diff pipe policy.yaml", 3, "nobody writes to it"),
    ("policy matrix policy.yaml --html folder", 2, "Is a directory"),
    ("policy matrix policy.yaml --html /dev/full", 2, "No space left on device"),
    ("report folder", 2, "Is a directory"),
    ("report pipe", 2, "nobody writes to it"),
    ("report /dev/zero", 2, "it is a device"),
    ("report log --policy pipe", 3, "nobody writes to it"),
    ("report log --grants folder", 2, "Is a directory"),
    ("report --metrics http://[", 2, "--metrics: http://["),
    ("report --metrics http://127.0.0.1:1/\x01", 2, "--metrics: http://127.0.0.1:1/"),
    ("doctor pipe", 3, "nobody writes to it"),
    ("doctor /dev/zero", 3, "it is a device"),
    ("doctor --pods pipe", 3, "nobody writes to it"),
    ("doctor --filters pipe policy.yaml", 3, "nobody writes to it"),
    ("tenant render --file pipe", 2, "nobody writes to it"),
    ("tenant render --file folder", 2, "Is a directory"),
    ("tenant render acme-web --output log", 2, ""),
    (f"platform estimate --tenants {BIG}", 2, "Invalid value"),
    ("platform estimate --requests 1e308", 2, "Invalid value"),
    ("platform estimate --requests inf", 2, "Invalid value"),
    ("platform estimate --requests nan", 2, "Invalid value"),
    ("platform estimate --plot folder", 2, "Is a directory"),
    ("serve --config pipe", 2, "nobody writes to it"),
    ("serve --config folder", 2, "Is a directory"),
    ("serve --config /dev/zero", 2, "it is a device"),
    (f"serve --drain-seconds {BIG}", 2, "drain_seconds: "),
    (f"serve --listen 127.0.0.1:{BIG}", 2, "listen: write it as host:port"),
    ("keys init --store sqlite:new.db --kek-files pipe", 3, "not a regular file"),
    ("keys init --store sqlite:folder --kek-files kek", 3, ""),
    ("keys init --store sqlite:/dev/full --kek-files kek", 3, ""),
    ("keys list --store sqlite:pipe --kek-files kek", 3, ""),
    (f"keys init --generate-kek --dry-run --store {NEW} --kek-files no/kek", 3, "No such file"),
    ("keys init --dry-run --store sqlite:no/new.db --kek-files kek", 3, "no directory no"),
    (f"keys rotate {STORE}", 2, "name one namespace, or --root"),
    (f"keys rotate a/b {STORE}", 2, "'a/b' is not a namespace"),
    (f"keys revoke a --root b {STORE}", 2, "name one namespace, or --root ID"),
    (f"keys revoke --root x {STORE}", 1, "there is no root key 'x' to revoke"),
    (f"keys revoke a --reason \a {STORE}", 2, "--reason: write what can be printed"),
    (f"keys recover --lost , {STORE}", 1, "root key id '' is not 8 hexadecimal digits"),
    (f"keys recover --newest --lost a {STORE}", 2, "--newest and --lost"),
    (f"keys reseal --to pipe {STORE}", 3, "not a regular file"),
    ("keys history --store sqlite:folder --kek-files kek", 3, "correct the path"),
    ("keys list --store kubernetes:a/B --kek-files kek", 3, "not the name of a Secret"),
    ("check --wait nan", 2, "Invalid value"),
    ("check --policy pipe", 3, "nobody writes to it"),
    ("check --filters policy.yaml", 3, "no Kubernetes objects"),
    ("check --namespace=", 2, "--namespace: '' is not a namespace"),
    ("check --root-namespace A", 2, "--root-namespace: 'A' is not a namespace"),
    ("check --platform a --platform ../b", 2, "--platform: '../b' is not a namespace"),
    ("doctor --cluster --namespace=", 2, "--namespace: '' is not a namespace"),
    ("doctor --plaintext *.yaml policy.yaml", 2, "--plaintext: '*.yaml' is not a namespace"),
    ("conformance --label x", 2, "--label: 'x': write NAME=VALUE"),
    ("conformance --box --image x", 2, "--box makes no pods"),
    ("completion tcsh", 2, "tcsh"),
    ("nonsense", 2, "nonsense"),
]


def test_bad_inputs_are_told_by_text_and_code(folder: Path) -> None:
    """All at once: some wait whether anybody writes to a pipe."""
    seen = outcomes([command for command, _, _ in BAD], ["both"], len(BAD))
    wrong = [
        (command, *seen[command, "both"])
        for command, code, text in BAD
        if seen[command, "both"][0] != code
        or text not in seen[command, "both"][1]
        or "Traceback" in seen[command, "both"][1]
    ]
    assert not wrong


NO_CLUSTER = (
    *("doctor --cluster", "check", "check --pre --wait 86400", "conformance --image x"),
    *("policy explain policy.yaml a b --cluster", "policy matrix policy.yaml --cluster"),
    *(
        "policy diff policy.yaml configmap:a/b/c",
        "keys list --store kubernetes:a/b --kek-files kek",
    ),
)


def test_without_a_kubeconfig_it_is_told_in_one_line(folder: Path) -> None:
    """Where a kubectl is not configured either, its own words are not shown."""
    kubectl = "#!/bin/sh\necho 'E1128 memcache.go: localhost:8080 refused' >&2\nexit 1\n"
    (folder / "kubectl").write_text(kubectl)
    (folder / "kubectl").chmod(0o755)
    env = {"HOME": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}
    for (command, _), told in outcomes(NO_CLUSTER, ["both"], len(NO_CLUSTER), **env).items():
        store = "key store kubernetes:a/b: " if command.startswith("keys") else ""
        reason = (
            f"{store}no Kubernetes cluster can be used: {folder}/.kube/config not found. Set "
            "KUBECONFIG to the file that kubectl uses, or run in a pod with a service account's "
            "token\n"
        )
        assert told == (3, reason), command


def test_what_a_command_prints_can_be_read_through_a_pipe(folder: Path) -> None:
    """As `<(command)` gives it; also where the command takes its time."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*service.COMMAND, "policy", "check", f"/dev/fd/{reading}", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        pass_fds=[reading],
    )
    os.close(reading)
    time.sleep(0.2)
    os.write(writing, b"grants: ")
    time.sleep(0.2)
    os.write(writing, b"[]\n")
    os.close(writing)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, (out, err)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_given_a_script_that_asks_us(shell: str) -> None:
    done = authz("completion", shell)
    assert done.returncode == 0
    assert f"_AUTHZ_COMPLETE=complete_{shell}" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("authz pol", {"policy"}),
        ("authz policy ex", {"explain"}),
        ("authz keys rotate --roo", {"--root"}),
        ("authz serve --policy-kept", {"--policy-kept-file", "--policy-kept-seconds"}),
    ],
)
def test_commands_and_flags_are_completed(words: str, expected: set[str]) -> None:
    number = str(len(words.split()) - 1)
    asked = {"_AUTHZ_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": number}
    assert set(authz(**asked).stdout.split()) == expected
