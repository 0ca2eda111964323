"""The last good policy in a file: what a restart goes back to, and what it never does."""

import json
import os
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authz.errors import BadPolicy
from authz.lab.harness.certs import Certificate
from authz.policysource.kept import Kept, KeptPolicy, NotKept
from authz.testing import ManualClock, check_request, workload
from tests.kube_double import ApiDouble
from tests.support.clients import connected, http_get, outcome, token_in
from tests.support.processes import Folder, authz, serving
from tests.support.waiting import at_last

OPEN = "grants: [{to: bank, from: shop}]\n"
CLOSED = "grants: [{to: bank, from: initech}]\n"
BAD = "grants: [{to: bank}]\n"
DAY = 86400.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_900_000_000.0)


@pytest.fixture
def kept(tmp_path: Path, clock: ManualClock) -> Callable[..., KeptPolicy]:
    def make(origin: str = "/policy.yaml") -> KeptPolicy:
        file = tmp_path / "kept.json"
        return KeptPolicy(file, origin=origin, most_seconds=7 * DAY, clock=clock)

    return make


Make = Callable[..., KeptPolicy]


def why_not(kept: KeptPolicy) -> str:
    with pytest.raises(BadPolicy) as caught:
        kept.last()
    (problem,) = caught.value.problems
    return problem


def test_what_was_kept_last_is_there_with_its_time(kept: Make, clock: ManualClock) -> None:
    kept().keep(CLOSED)
    clock.now += 100
    kept().keep(OPEN)
    assert kept().last() == Kept(OPEN, clock.now)


def test_nobody_else_may_read_or_write_it(kept: Make, tmp_path: Path) -> None:
    kept().keep(OPEN)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_its_age_is_that_of_the_last_look_which_is_noted_once_a_minute(
    kept: Make, clock: ManualClock
) -> None:
    one = kept()
    one.keep(OPEN)
    start = clock.now
    clock.now = start + 59
    one.seen()
    assert kept().last().seen == start
    clock.now = start + 60
    one.seen()
    assert kept().last().seen == start + 60
    clock.now = start + 6 * DAY
    assert kept().last().seen == start + 60


def test_a_process_that_kept_nothing_makes_nothing_younger(kept: Make, clock: ManualClock) -> None:
    kept().keep(OPEN)
    start, clock.now = clock.now, clock.now + 3600
    kept().seen()
    assert kept().last().seen == start


@pytest.mark.parametrize(
    ("seconds", "usable"), [(7 * DAY, True), (7 * DAY + 1, False), (-300, True), (-301, False)]
)
def test_one_that_is_too_old_or_from_the_future_is_not_used(
    kept: Make, clock: ManualClock, seconds: float, usable: bool
) -> None:
    kept().keep(OPEN)
    clock.now += seconds
    if usable:
        assert kept().last().text == OPEN
    else:
        said = "policy_kept_seconds is 604800"
        assert said in why_not(kept())


def _of_others(file: Path) -> None:
    file.chmod(0o620)


def _a_link(file: Path) -> None:
    other = file.with_name("elsewhere")
    file.rename(other)
    file.symlink_to(other)


def _a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def _a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir(0o700)


def _text(content: str) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        before = file.stat().st_mtime
        file.write_text(content)
        os.utime(file, (before, before))

    return write


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Path.unlink, "No such file or directory"),
        (_of_others, "others may write it"),
        (_a_link, "symbolic link"),
        (_a_pipe, "not a file of ours"),
        (_a_folder, "directory"),
        (_text(""), "it holds something else"),
        (_text(OPEN), "it holds something else"),
        (_text("[" * 100_000), "it holds something else"),
        (_text("[]"), "it holds something else"),
        (_text('{"origin": "/policy.yaml"}'), "it holds something else"),
        (_text('{"origin": "/policy.yaml", "policy": 1}'), "from another policy_file"),
        (_text('{"origin": "/other.yaml", "policy": ""}'), "from another policy_file"),
    ],
)
def test_what_may_not_be_ours_is_not_used(
    kept: Make, tmp_path: Path, change: Callable[[Path], Any], said: str
) -> None:
    kept().keep(OPEN)
    change(tmp_path / "kept.json")
    problem = why_not(kept())
    assert problem.startswith(f"policy_kept_file: {tmp_path / 'kept.json'}: ")
    assert said.lower() in problem.lower()


def test_of_another_origin_it_is_not_used(kept: Make) -> None:
    kept("ConfigMap a/b/c").keep(OPEN)
    assert "it is from another policy_file or policy_configmap" in why_not(kept("ConfigMap a/b/d"))


def test_where_a_newer_one_cannot_be_written_the_older_is_taken_away(
    kept: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not in force any more, and may let in whom the newer one does not."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    one = kept()
    one.keep(OPEN)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(NotKept, match=r"No space left on device$") as caught:
        one.keep(CLOSED)
    assert not caught.value.older
    assert list(tmp_path.iterdir()) == []
    one.seen()
    assert "No such file" in why_not(one)


def test_where_it_cannot_be_taken_away_either_that_is_told(
    kept: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a volume that turned read-only; the same policy again is no older one."""

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    one = kept()
    one.keep(OPEN)
    monkeypatch.setattr("tempfile.mkstemp", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(NotKept, match=r"Read-only file system$"):
        one.keep(OPEN)
    with pytest.raises(NotKept, match="An older policy is still in it, which a restart uses"):
        one.keep(CLOSED)
    assert kept().last().text == OPEN


def test_what_a_killed_process_left_is_removed_and_what_others_write_is_not(
    kept: Make, tmp_path: Path, clock: ManualClock
) -> None:
    names = {".kept.json-old": 601, ".kept.json-new": 599, ".other.json-old": 601, "kept.json": 0}
    for name, age in names.items():
        (tmp_path / name).write_text("{")
        os.utime(tmp_path / name, (clock.now - age,) * 2)
    kept().keep(OPEN)
    assert {path.name for path in tmp_path.iterdir()} == names.keys() - {".kept.json-old"}


# -- servers -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.policy_file.write_text(OPEN)
    return made


def place(folder: Folder, number: int) -> Path:
    """Where a server writes: workers may write on for a moment when their parent was killed."""
    made = folder.path / f"server-{number}"
    made.mkdir(exist_ok=True)
    return made


def flags(folder: Folder, **more: str) -> list[str]:
    return folder.flags(policy_kept_file=str(folder.path / "kept.json"), **more)


def issued(folder: Folder, namespace: str) -> Certificate:
    """A workload's certificate, the same at each time."""
    file = folder.path / "ca" / f"{namespace}.default.pem"
    if file.exists():
        return Certificate(file, file.with_suffix(".key"), folder.issuer.ca_file)
    return folder.workload(namespace)


async def may_call(folder: Folder, port: int) -> str:
    """Whether the bank lets the shop in."""
    upstream = "outbound|80||vault.bank.svc.cluster.local"
    async with (
        connected(port, issued(folder, "shop")) as shop,
        connected(port, issued(folder, "bank")) as bank,
    ):
        token = token_in(await shop.check("sign", check_request(), upstream=upstream))
        headers = (("x-tenant-token", token),)
        request = check_request(principal=str(workload("shop")), headers=headers)
        return outcome(await bank.check("verify", request))


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_that_is_killed_and_finds_a_bad_policy_goes_on_with_the_last_good_one(
    folder: Folder, workers: str
) -> None:
    await folder.make_keys()
    with serving(place(folder, 1), flags(folder, workers=workers)) as process:
        process.ready()
        assert await may_call(folder, process.port) == "allowed"
        folder.policy_file.write_text(BAD)
        process.line("new version is bad, the last good one stays")
        process.popen.send_signal(signal.SIGKILL)
        process.ended()
    os.utime(folder.path / "kept.json", (time.time() - 3600,) * 2)  # noqa: TID251
    with serving(place(folder, 2), flags(folder, workers=workers)) as process:
        process.ready()
        assert 3600 <= process.line("policy of before the restart is used")["seconds"] < 3700
        bad = process.line("new version is bad, the last good one stays")
        assert bad["problems"] == ["line 1: grants.0.from: is required"]
        assert await may_call(folder, process.port) == "allowed"
        text = http_get(f"{process.http}/metrics")[1]
        assert 'authz_last_reload_successful{what="policy"} 0.0' in text
        (age,) = [it for it in text.splitlines() if it.startswith('authz_age_seconds{what="policy')]
        assert float(age.split()[1]) >= 3600
        folder.policy_file.write_text(CLOSED)

        def closed() -> bool:
            return len(process.lines("policy loaded")) == 2 * int(workers)

        at_last(closed, "the good policy is taken")
        assert await may_call(folder, process.port) == "not-allowed"


async def test_a_policy_that_was_replaced_is_never_gone_back_to(folder: Folder) -> None:
    await folder.make_keys()
    with serving(place(folder, 3), flags(folder)) as process:
        process.ready()
        folder.policy_file.write_text(CLOSED)
        process.line("policy loaded", 2)
    folder.policy_file.write_text(BAD)
    with serving(place(folder, 4), flags(folder)) as process:
        process.ready()
        assert await may_call(folder, process.port) == "not-allowed"
    assert json.loads((folder.path / "kept.json").read_text())["policy"] == CLOSED


async def test_without_one_that_may_be_used_it_does_not_start_and_says_why(folder: Folder) -> None:
    folder.policy_file.write_text(BAD)
    done = authz("serve", *flags(folder))
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"policy_file: {folder.policy_file}: line 1: grants.0.from: is required",
        f"policy_kept_file: {folder.path / 'kept.json'}: No such file or directory",
    ]
    assert not (folder.path / "kept.json").exists()


async def test_where_it_cannot_be_kept_the_server_goes_on_and_says_so(folder: Folder) -> None:
    await folder.make_keys()
    nowhere = folder.path / "nowhere" / "kept.json"
    with serving(place(folder, 5), folder.flags(policy_kept_file=str(nowhere))) as process:
        process.ready()
        problem = process.line("policy cannot be kept for a restart")["problem"]
        assert problem == f"policy_kept_file: {nowhere}: No such file or directory"


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_bad_configmap_is_survived_too_and_without_a_kept_one_readyz_says_why(
    folder: Folder, tmp_path: Path, workers: str
) -> None:
    def config_map(text: str) -> dict[str, Any]:
        return {"metadata": {"name": "p", "namespace": "a"}, "data": {"policy.yaml": text}}

    await folder.make_keys()
    given = {"policy_file": None, "policy_configmap": "a/p/policy.yaml", "workers": workers}
    with ApiDouble.running() as api:
        api.put("configmaps", config_map(BAD))
        env = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
        kept = {"policy_kept_file": str(folder.path / "kept.json")}
        with serving(place(folder, 6), folder.flags(**given, **kept), **env) as process:
            process.line("new version is bad, and there is no other: not ready")

            def says_why() -> bool:
                status, body = http_get(f"{process.http}/readyz")
                assert status == 503
                why = json.loads(body).get("because", {}).get("policy", "")
                return "line 1: grants.0.from: is required; policy_kept_file: " in why

            at_last(says_why, "it says what is wrong")
            api.put("configmaps", config_map(OPEN))
            process.ready()
            assert "because" not in json.loads(http_get(f"{process.http}/readyz")[1])
            api.put("configmaps", config_map(BAD))
            process.line("new version is bad, the last good one stays")
        with serving(place(folder, 7), folder.flags(**given, **kept), **env) as process:
            process.ready()
            process.line("policy of before the restart is used")
            assert await may_call(folder, process.port) == "allowed"
        api.delete("configmaps", "a", "p")
        with serving(place(folder, 8), folder.flags(**given, **kept), **env) as process:
            process.ready()
            process.line("policy of before the restart is used")
