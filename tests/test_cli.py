"""The command line: what it prints for people and machines, its exit codes, and what it hides."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from authz import __version__
from authz.domain import rotation
from authz.domain.decision import markdown
from authz.keystore import Keks, open_store, parse_kek, read_kek_file
from authz.testing import NOW
from tests.command import Run
from tests.kube_double import ApiDouble
from tests.support.processes import authz


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with a place for keys."""
    monkeypatch.setenv("AUTHZ_STORE", "sqlite:keys.db")
    monkeypatch.setenv("AUTHZ_KEK_FILES", "kek")
    return run


@pytest.fixture
def keys(run: Run) -> Run:
    """The same, with a key store."""
    assert run("keys", "init", "--generate-kek").code == 0
    return run


# Help ------------------------------------------------------------------------------------------

COMMANDS = [
    *(
        ["keys", name]
        for name in ("init", "list", "history", "rotate", "revoke", "recover", "reseal")
    ),
    *(["token", name] for name in ("mint", "verify", "inspect")),
    *(["policy", name] for name in ("check", "explain", "tables")),
    *(["policy", name] for name in ("matrix", "diff", "prove", "test", "schema")),
    ["tenant", "render"],
    ["platform", "estimate"],
    ["report"],
    ["serve"],
    ["demo"],
    ["completion"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_has_an_example_of_it(run: Run, command: list[str]) -> None:
    done = run(*command, "--help")
    assert done.code == 0
    assert f"authz {' '.join(command)}" in done.out[done.out.rindex("Example") :]


@pytest.mark.parametrize("group", [[], ["keys"], ["token"], ["policy"]], ids=" ".join)
def test_without_a_command_the_help_is_shown(run: Run, group: list[str]) -> None:
    done = run(*group)
    assert done.code == 2
    assert "Commands" in done.out + done.err


def test_every_command_is_tried_here(run: Run) -> None:
    for group in ("keys", "token", "policy"):
        shown = run(group, "--help").out
        for name in (command[1] for command in COMMANDS if command[0] == group):
            assert f" {name} " in shown
        assert shown[shown.index("Commands") :].count("\n│ ") == sum(
            command[0] == group for command in COMMANDS
        )


def test_the_help_shows_the_default_of_a_setting_and_no_flag_for_the_secret(run: Run) -> None:
    shown = " ".join(run("serve", "--help").out.replace("│", " ").split())
    for default in ("sqlite:/var/lib/tenant-authz/keys.db", "127.0.0.1:9000", "mtls", "720"):
        assert f"(default {default})" in shown
    assert "--kek " not in shown
    assert "--kek-files" in shown


def test_the_version_is_printed(run: Run) -> None:
    done = run("--version")
    assert done.code == 0
    assert done.out == f"{__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["keys", "nonsense"], ["serve", "--nonsense"], ["token", "mint"]]
)
def test_wrong_usage_is_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


# Keys ------------------------------------------------------------------------------------------


def test_init_makes_a_store_and_a_kek(run: Run) -> None:
    done = run("keys", "init", "--generate-kek", "--json")
    assert done.code == 0
    assert done.json["version"] == 1
    assert done.json["done"].startswith("made sqlite:keys.db, root key ")
    assert Path("kek").stat().st_mode & 0o777 == 0o600
    assert Path("keys.db").stat().st_mode & 0o777 == 0o600


def test_init_does_not_replace_a_store(keys: Run) -> None:
    done = keys("keys", "init")
    assert (done.code, done.out) == (3, "")
    assert "holds a keyring already" in done.err


def test_init_does_not_replace_a_kek(run: Run) -> None:
    Path("kek").write_text("A" * 43 + "=")
    Path("kek").chmod(0o600)
    assert run("keys", "init", "--generate-kek").code == 0
    assert Path("kek").read_text() == "A" * 43 + "="


def test_init_with_two_files_cannot_tell_which_kek_to_make(run: Run) -> None:
    done = run("keys", "init", "--generate-kek", "--kek-files", "a,b")
    assert (done.code, done.err) == (
        2,
        "kek_files: --generate-kek needs exactly one file to write\n",
    )


def test_list_shows_roots_and_namespaces_and_no_secret(keys: Run) -> None:
    keys("keys", "rotate", "shop")
    keys("keys", "rotate", "--root")
    done = keys("keys", "list", "--json")
    assert done.json["version"] == 3
    old, new = done.json["roots"]
    assert (old["state"], new["state"]) == ("primary", "verifies")
    assert old["verifies_until"] is not None
    assert new["verifies_until"] is None
    (shop,) = done.json["namespaces"]
    assert (shop["namespace"], shop["generation"], shop["signs_with"]) == ("shop", 1, 0)
    table = keys("keys", "list").out
    for text in (old["id"], new["id"], "shop", "primary", "verifies"):
        assert text in table
    assert set(old) == {"id", "state", "signs_from", "verifies_until"}


def files(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Each file's content, and what would tell that it was written."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["rotate", "--root"], "new root key signs from "),
        (["rotate", "shop", "--now"], "generation 1 of shop signs from "),
        (["rotate", "shop", "--clock-is-right"], "generation 1 of shop signs from "),
        (["revoke", "shop"], "all earlier tokens of shop are revoked"),
        (["revoke", "--root", "{root}"], "root key {root} is revoked"),
        (["recover"], "every earlier root key is revoked; a new one signs at once"),
        (["recover", "--newest"], "the keyring is kept as it is"),
        (["reseal", "--to", "kek"], "sqlite:keys.db is sealed under KEK "),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else "",
)
def test_a_dry_run_says_what_would_be_done_and_changes_no_byte(
    keys: Run, change: list[str], said: str
) -> None:
    root = keys("keys", "list", "--json").json["roots"][0]["id"]
    change = [it.format(root=root) for it in change]
    before = files(Path())
    done = keys("keys", *change, "--dry-run", "--reason", "to see")
    assert done.code == 0
    assert done.out.startswith(f"dry run, nothing was changed: {said.format(root=root)}")
    assert done.out.endswith("(would be version 2)\n")
    told = keys("keys", *change, "--dry-run", "--json").json
    assert (told["version"], told["dry_run"]) == (2, True)
    assert files(Path()) == before
    assert keys("keys", *change).code == 0  # and without it, it is done
    assert files(Path()) != before


def test_a_dry_run_of_init_makes_no_file_and_one_of_a_change_that_fails_fails(run: Run) -> None:
    done = run("keys", "init", "--generate-kek", "--dry-run")
    assert done.code == 0
    assert done.out.startswith("dry run, nothing was changed: made sqlite:keys.db, root key (would")
    assert list(Path().iterdir()) == []
    assert run("keys", "init", "--generate-kek").code == 0
    before = files(Path())
    assert run("keys", "init", "--dry-run").code == 3
    assert run("keys", "revoke", "--root", "00000000", "--dry-run").code == 1
    assert files(Path()) == before


def test_a_dry_run_on_a_copy_that_was_put_back_is_refused_as_the_change_is(keys: Run) -> None:
    copy = Path("keys.db").read_bytes()
    keys("keys", "rotate", "shop")
    Path("keys.db").write_bytes(copy)
    done = keys("keys", "revoke", "shop", "--dry-run")
    assert done.code == keys("keys", "revoke", "shop").code == 3
    assert "authz keys recover" in done.err
    assert keys("keys", "recover", "--dry-run").code == 0


def test_history_says_who_changed_what_and_why(
    run: Run, at: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.cli.key_changes._who", lambda: "ada@bastion")
    at(NOW)
    run("keys", "init", "--generate-kek")
    run("keys", "rotate", "shop", "--reason", "  [red]ticket 17[/red]: laptop lost ")
    at(NOW + 60)
    run("keys", "revoke", "shop")
    run("keys", "rotate", "--root", "--dry-run", "--reason", "never done")
    first, *rest = run("keys", "history", "--json").json
    assert (first["version"], first["by"]) == (1, "ada@bastion")
    assert first["what"].startswith("made sqlite:keys.db, root key ")
    assert rest == [
        {
            "version": 2,
            "at": "2027-01-15T08:00:00+00:00",
            "by": "ada@bastion",
            "what": "generation 1 of shop signs from 2027-01-15T09:00:00+00:00",
            "reason": "[red]ticket 17[/red]: laptop lost",
        },
        {
            "version": 3,
            "at": "2027-01-15T08:01:00+00:00",
            "by": "ada@bastion",
            "what": "all earlier tokens of shop are revoked",
            "reason": "",
        },
    ]
    assert "[red]ticket 17[/red]" in run("keys", "history").out


def test_a_store_of_before_has_no_history(run: Run) -> None:
    Path("kek").write_text(KEK_OF_BEFORE)
    Path("kek").chmod(0o600)
    asyncio.run(_made_without_note())
    done = run("keys", "history")
    assert (done.code, done.out, done.err) == (0, "", "no change was noted (version 1)\n")
    assert run("keys", "history", "--json").json == []


KEK_OF_BEFORE = "B" * 43 + "="


async def _made_without_note() -> None:
    store = open_store("sqlite:keys.db", Keks(parse_kek(KEK_OF_BEFORE, source="a test")))
    await store.compare_and_swap(None, rotation.create(NOW))
    await store.close()


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ("", "write 1 to 200 characters, not 0"),
        (" \t", "write 1 to 200 characters, not 0"),
        ("x" * 201, "write 1 to 200 characters, not 201"),
        ("two\nlines", "write what can be printed, on one line"),
        ("a\x1b[31mred", "write what can be printed, on one line"),
        ("\u202egnol", "write what can be printed, on one line"),
        ("\udcff", "write what can be printed, on one line"),
        (f"old kek: {'A' * 43}=", "it looks like a key or a token"),
        (f"was '{'-_' * 21}A'", "it looks like a key or a token"),
        (f"token v1.{'a' * 60}.b", "it looks like a key or a token"),
    ],
)
def test_a_reason_that_is_none_changes_nothing_and_is_not_quoted(
    keys: Run, reason: str, problem: str
) -> None:
    before = files(Path())
    done = keys("keys", "revoke", "shop", "--reason", reason)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"--reason: {problem}")
    assert not reason.strip() or reason not in done.err
    assert files(Path()) == before


@pytest.mark.parametrize(
    "reason",
    ["x" * 200, "größer, 変更 ✓", f"commit {'0f' * 20}", f"sha256:{'0f' * 32}", "a=b; $(c)"],
)
def test_a_good_reason_is_kept_as_it_is(keys: Run, reason: str) -> None:
    assert keys("keys", "revoke", "shop", "--reason", reason).code == 0
    assert keys("keys", "history", "--json").json[-1]["reason"] == reason


def test_rotate_one_namespace(keys: Run) -> None:
    done = keys("keys", "rotate", "shop")
    assert done.code == 0
    assert done.out.startswith("generation 1 of shop signs from ")
    again = keys("keys", "rotate", "shop")
    assert again.code == 1
    assert "or end it with --now" in again.err
    assert keys("keys", "rotate", "shop", "--now", "--json").json["version"] == 3


def test_rotate_the_root(keys: Run) -> None:
    assert keys("keys", "rotate", "--root").out.startswith("new root key ")
    assert keys("keys", "rotate", "--root", "--now").code == 0
    states = [root["state"] for root in keys("keys", "list", "--json").json["roots"]]
    assert sorted(states) == ["primary", "verifies", "verifies"]


def test_rotate_what_comes_through_the_public_gateway(keys: Run) -> None:
    assert keys("keys", "rotate", "@public").code == 0


def test_revoke_a_namespace(keys: Run) -> None:
    token = keys("token", "mint", "shop", "bank").out
    other = keys("token", "mint", "other", "bank").out
    assert keys("keys", "revoke", "shop").out.startswith("all earlier tokens of shop are revoked")
    done = keys("token", "verify", given=token)
    assert (done.code, done.out) == (
        1,
        "not valid: the key that signed the token has been revoked\n",
    )
    assert keys("token", "verify", given=other).code == 0


def test_revoke_a_root(keys: Run) -> None:
    token = keys("token", "mint", "shop", "bank").out
    (root,) = keys("keys", "list", "--json").json["roots"]
    assert keys("keys", "revoke", "--root", root["id"]).code == 0
    assert keys("token", "verify", given=token).code == 1
    states = [root["state"] for root in keys("keys", "list", "--json").json["roots"]]
    assert states == ["revoked", "primary"]


@pytest.mark.parametrize("command", ["rotate", "revoke"])
@pytest.mark.parametrize("both", [False, True])
def test_one_thing_is_rotated_or_revoked(keys: Run, command: str, both: bool) -> None:
    root = ["--root"] if command == "rotate" else ["--root", "0e04301a"]
    done = keys("keys", command, *(["shop", *root] if both else []))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("name one namespace, or --root")


def test_revoking_what_is_not_there_is_no(keys: Run) -> None:
    done = keys("keys", "revoke", "--root", "deadbeef")
    assert done.code == 1
    assert done.err.startswith("there is no root key 'deadbeef' to revoke; there are: ")


@pytest.mark.parametrize("name", ["Shop", "a.b", "", "*", "@other"])
def test_a_bad_namespace_is_usage(keys: Run, name: str) -> None:
    done = keys("keys", "revoke", name)
    assert done.code == 2
    assert "is not a namespace" in done.err


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of `authz keys`."""

    def setting(seconds: float) -> None:
        monkeypatch.setattr("authz.cli.keys._now", lambda: seconds)

    return setting


def test_list_shows_when_the_keyring_was_last_changed(
    run: Run, at: Callable[[float], None]
) -> None:
    at(NOW)
    run("keys", "init", "--generate-kek")
    assert run("keys", "list", "--json").json["changed_at"] == "2027-01-15T08:00:00+00:00"
    assert "(version 1, changed 2027-01-15T08:00:00+00:00)" in run("keys", "list").out


@pytest.mark.parametrize("what", ["--root", "shop"])
def test_a_rotation_by_a_clock_that_is_behind_names_both_times_and_the_fix(
    run: Run, at: Callable[[float], None], what: str
) -> None:
    at(NOW)
    run("keys", "init", "--generate-kek")
    at(NOW - 7200)
    done = run("keys", "rotate", what)
    assert (done.code, done.out) == (1, "")
    assert "the clock here shows 2027-01-15T06:00:00+00:00" in done.err
    assert "the keyring was last changed at 2027-01-15T08:00:00+00:00" in done.err
    assert "Set this machine's clock; or, if it is the other one that is wrong" in done.err
    assert run("keys", "list", "--json").json["version"] == 1
    done = run("keys", "rotate", what, "--clock-is-right")
    assert "signs from 2027-01-15T07:00:00+00:00 (version 2)" in done.out
    assert run("keys", "list", "--json").json["changed_at"] == "2027-01-15T06:00:00+00:00"


def test_no_clock_is_in_the_way_of_a_revocation(run: Run, at: Callable[[float], None]) -> None:
    at(NOW)
    root = run("keys", "init", "--generate-kek", "--json").json["done"].split()[-1]
    at(NOW - 7200)
    assert run("keys", "revoke", "shop").code == 0
    assert run("keys", "revoke", "--root", root).code == 0
    assert run("keys", "recover").code == 0


@pytest.mark.parametrize(("apart", "code"), [(0, 0), (30, 0), (-30, 0), (31, 1), (-7200, 1)])
def test_a_rotation_by_another_clock_than_the_api_servers_is_refused(
    run: Run,
    at: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    apart: int,
    code: int,
) -> None:
    with ApiDouble.running() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(Path("kubeconfig"))))
        monkeypatch.setenv("AUTHZ_STORE", "kubernetes:keyring")
        api.date = "Fri, 15 Jan 2027 08:00:00 GMT"
        at(NOW + apart - 10_000)
        run("keys", "init", "--generate-kek")
        at(NOW + apart)
        done = run("keys", "rotate", "--root")
        assert done.code == code
        assert ("the API server's shows 2027-01-15T08:00:00+00:00" in done.err) == bool(code)
        assert run("keys", "rotate", "shop", "--clock-is-right").code == 0


def test_a_copy_that_was_put_back_is_told_and_recovered(keys: Run) -> None:
    token = keys("token", "mint", "shop", "bank").out
    old = Path("keys.db").read_bytes()
    keys("keys", "revoke", "shop")
    Path("keys.db").write_bytes(old)
    assert "took the place of what `authz keys` wrote last: see" in keys("keys", "list").err
    assert "took the place" in keys("keys", "list", "--json").json["put_by"]
    for change in (["rotate", "bank"], ["rotate", "--root"], ["revoke", "bank"]):
        done = keys("keys", *change)
        assert (done.code, done.out) == (3, "")
        assert "servers that know of one refuse it. Nothing was changed. Run `authz k" in done.err
    assert Path("keys.db").read_bytes() == old

    done = keys("keys", "recover")
    assert done.code == 0
    assert "every earlier root key is revoked; " in done.out
    assert keys("token", "verify", given=token).code == 1
    states = [root["state"] for root in keys("keys", "list", "--json").json["roots"]]
    assert states == ["revoked", "primary"]
    assert keys("keys", "rotate", "bank").code == 0


def test_the_newest_copy_is_kept_as_it_is(keys: Run) -> None:
    token = keys("token", "mint", "shop", "bank").out
    keys("keys", "rotate", "bank")
    newest = Path("keys.db").read_bytes()
    Path("keys.db").unlink()
    done = keys("keys", "init")
    assert done.code == 0
    Path("keys.db").write_bytes(newest)
    assert keys("keys", "rotate", "shop").code == 3
    assert keys("keys", "recover", "--newest").out == "the keyring is kept as it is (version 3)\n"
    assert keys("keys", "rotate", "shop").code == 0
    assert keys("token", "verify", given=token).code == 0


def test_recover_takes_ids_of_lost_roots_and_nothing_else(keys: Run) -> None:
    assert keys("keys", "recover", "--lost", "0000000a,0000000b").code == 0
    done = keys("keys", "recover", "--lost", "0000000a,x")
    assert (done.code, "'x' is not 8 hexadecimal digits" in done.err) == (1, True)
    done = keys("keys", "recover", "--lost", "0000000a", "--newest")
    assert (done.code, "is not the newest" in done.err) == (2, True)


def test_a_store_that_was_cut_to_nothing_is_not_made_anew(keys: Run) -> None:
    Path("keys.db").write_bytes(b"")
    for command in ("list", "init"):
        done = keys("keys", command)
        assert done.code == 3
        assert "put its newest copy back" in done.err
        assert "run `authz keys init`" not in done.err


def test_reseal_under_another_kek(keys: Run) -> None:
    token = keys("token", "mint", "shop", "bank").out
    Path("new").write_text("A" * 43 + "=")
    Path("new").chmod(0o600)
    unread = keys("keys", "reseal", "--to", "new")
    assert unread.code == 3
    assert "configure it too" in unread.err
    done = keys("keys", "reseal", "--to", "new", "--kek-files", "kek,new")
    new = read_kek_file(Path("new"))
    assert (done.code, done.out) == (
        0,
        f"sqlite:keys.db is sealed under KEK {new.id} (version 2)\n",
    )
    assert keys("token", "verify", "--kek-files", "new", given=token).code == 0
    assert keys("token", "verify", given=token).code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--store", "keys.db"], 3, "'keys.db' is not a key store: write sqlite:/path/to/keys.db"),
        (["--store", "sqlite:no.db"], 3, "if there never was a keyring, run `authz keys init`"),
        (["--kek-files", "none"], 3, "KEK file none does not exist: make one with"),
        (["--kek-files", ""], 3, "kek_files: no key-encryption key is configured"),
        (["--token-seconds", "1"], 2, "token_seconds: Input should be greater than"),
        (["--config", "none.yaml"], 2, "config: none.yaml: No such file or directory"),
    ],
)
def test_what_cannot_start_says_which_field_and_what_to_do(
    keys: Run, arguments: list[str], code: int, said: str
) -> None:
    done = keys("keys", "list", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


# Tokens ----------------------------------------------------------------------------------------


def test_a_token_is_minted_inspected_and_verified(keys: Run) -> None:
    token = keys("token", "mint", "shop", "bank", "--service-account", "till").out
    assert token.startswith("v1.")
    said = keys("token", "inspect", "--json", given=token).json
    assert (said["source"], said["service_account"], said["destination"]) == (
        "shop",
        "till",
        "bank",
    )
    assert said["verified"] is False
    assert "shop" in keys("token", "inspect", given=token).out
    verified = keys("token", "verify", "--json", given=token)
    assert verified.code == 0
    assert verified.json == {"valid": True, "expires_at": said["expires_at"]}
    assert keys("token", "verify", given=token).out == f"valid until {said['expires_at']}\n"


def test_a_token_from_outside_has_no_service_account(keys: Run) -> None:
    token = keys("token", "mint", "@public", "bank").out
    assert keys("token", "inspect", "--json", given=token).json["service_account"] == ""


def test_a_token_for_another_destination_is_no(keys: Run) -> None:
    token = keys("token", "mint", "shop", "bank").out
    assert keys("token", "verify", "--destination", "bank", given=token).code == 0
    done = keys("token", "verify", "--destination", "shop", "--json", given=token)
    assert done.code == 1
    assert done.json["valid"] is False
    assert "another destination" in done.json["because"]


@pytest.mark.parametrize("given", ["", "\n", "v1.a.b.c", "x" * 10_000, "\udcff", "v1\n.x"])
@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_what_is_no_token_is_no_and_is_not_repeated(keys: Run, command: str, given: str) -> None:
    done = keys("token", command, given=given)
    assert (done.code, done.err) == (1, "")
    assert done.out == "not valid: the token does not have the form of a tenant token\n"
    done = keys("token", command, "--json", given=given)
    assert (done.code, done.json["valid"]) == (1, False)


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_closed_standard_input_is_usage(keys: Run, command: str) -> None:
    done = keys("token", command, given=None)
    assert (done.code, done.out) == (2, "")
    assert "standard input is closed: give the token there" in done.err


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_token_in_the_command_line_is_not_taken(keys: Run, command: str) -> None:
    token = keys("token", "mint", "shop", "bank").out.strip()
    assert keys("token", command, token).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["Shop", "bank"],
        ["shop", "Bank"],
        ["shop", "@public"],
        ["shop", "*"],
        ["shop", "bank", "--service-account", "a/b"],
        ["shop", "bank", "--service-account", ""],
        ["shop", "bank", "--service-account", "Till"],
    ],
)
def test_a_token_of_bad_names_is_not_minted(keys: Run, arguments: list[str]) -> None:
    done = keys("token", "mint", *arguments)
    assert (done.code, done.out) == (2, "")


# Policy ----------------------------------------------------------------------------------------

ACTIVATOR = "spiffe://cluster.local/ns/knative-serving/sa/activator"
GATEWAY = "spiffe://cluster.local/ns/istio-system/sa/gateway"
POLICY = f"""\
roles:
  transit: ["{ACTIVATOR}"]
  gateway: ["{GATEWAY}"]
tenants:
  acme: {{namespaces: [shop, shop-db]}}
namespaces:
  shop-db: {{public: false}}
  legacy: {{mode: shadow}}
  web: {{public: [hello]}}
hosts: {{www.shop.example: shop}}
grants:
  - {{to: bank, from: shop, service_account: till, port: 8080}}
"""


@pytest.fixture
def policy(run: Run) -> Run:
    Path("policy.yaml").write_text(POLICY)
    return run


def test_a_good_policy_is_summed_up(policy: Run) -> None:
    done = policy("policy", "check", "policy.yaml", "--json")
    assert done.code == 0
    assert done.json == {
        "ok": True,
        "tenants": 1,
        "namespaces": 4,
        "grants": 1,
        "role_holders": 2,
        "exempt_peers": 0,
        "default_mode": "enforce",
        "default_public": True,
        "warnings": [],
    }
    shown = policy("policy", "check", "policy.yaml")
    assert shown.code == 0
    assert "policy.yaml is good" in shown.out


def test_a_bad_policy_is_no_with_every_problem(policy: Run) -> None:
    Path("policy.yaml").write_text("x: 1\ny: 2\n")
    told = ["line 1: x: there is no such field", "line 2: y: there is no such field"]
    done = policy("policy", "check", "policy.yaml")
    assert (done.code, done.out.splitlines()) == (1, [f"policy.yaml: {line}" for line in told])
    machine = policy("policy", "check", "policy.yaml", "--json")
    assert (machine.code, machine.json) == (1, {"ok": False, "problems": told})


def test_a_tenant_in_place_of_a_namespace_is_warned_of(policy: Run) -> None:
    """A namespace of that name may exist all the same: it is no problem of the file."""
    tenants = "tenants: {acme: {namespaces: [web, db]}, solo: {namespaces: [solo]}}\n"
    grants = "grants: [{to: acme, from: bank}, {to: web, from: solo}, {to: web, from: x}]\n"
    Path("policy.yaml").write_text(tenants + grants)
    told = "grant acme from bank: acme is a tenant, and a grant names namespaces: write db, web"
    assert policy("policy", "check", "policy.yaml", "--json").json["warnings"] == [told]
    done = policy("policy", "check", "policy.yaml")
    assert (done.code, done.out.splitlines()[-1]) == (0, f"warning: {told}")


def test_a_policy_that_is_not_there_is_told(policy: Run) -> None:
    done = policy("policy", "check", "none.yaml")
    assert done.code == 1
    assert "none.yaml: No such file or directory" in done.out
    assert policy("policy", "explain", "none.yaml", "a", "b").code == 3


STRAIGHT, TRANSIT, OUTSIDE = "straight", "through a transit hop", "through a gateway"
EVENT, ROUTE = "by a broker or sink", "by that route at a gateway"


@pytest.mark.parametrize(
    ("arguments", "ways"),
    [
        (["shop", "shop-db"], {STRAIGHT: True, TRANSIT: True, EVENT: True}),
        (["shop", "shop"], {STRAIGHT: True, TRANSIT: True, EVENT: True}),
        (["bank", "shop"], {STRAIGHT: False, TRANSIT: False, EVENT: False}),
        # The grant names a port, which no event has.
        (["shop/till", "bank", "--port", "8080"], {STRAIGHT: True, TRANSIT: True, EVENT: False}),
        (["shop/till", "bank", "--port", "8081"], {STRAIGHT: False, TRANSIT: False, EVENT: False}),
        (["shop/other", "bank", "--port", "8080"], {STRAIGHT: False, TRANSIT: False, EVENT: False}),
        (["bank", "legacy"], {STRAIGHT: True, TRANSIT: True, EVENT: True}),
        (["@public", "shop"], {ROUTE: True, TRANSIT: True, OUTSIDE: True}),
        (["@public", "shop-db"], {ROUTE: True, TRANSIT: False, OUTSIDE: False}),
        (["@public", "shop", "--route", "shop-db"], {ROUTE: True, TRANSIT: True, OUTSIDE: True}),
        (["@public", "shop", "--route", "bank"], {ROUTE: False, TRANSIT: True, OUTSIDE: True}),
        (
            ["@public", "web", "--service", "hello-00001"],
            {ROUTE: True, TRANSIT: True, OUTSIDE: True},
        ),
        (["@public", "web", "--service", "db"], {ROUTE: False, TRANSIT: True, OUTSIDE: True}),
        (
            ["@public", "bank", "--host", "www.shop.example"],
            {ROUTE: False, TRANSIT: True, OUTSIDE: True},
        ),
        (["@public", "istio-system"], {ROUTE: False, TRANSIT: False, OUTSIDE: False}),
    ],
)
def test_explain_says_what_the_server_would(
    policy: Run, arguments: list[str], ways: dict[str, bool]
) -> None:
    done = policy("policy", "explain", "policy.yaml", *arguments, "--json")
    assert {row["way"]: row["allowed"] for row in done.json} == ways
    assert done.code == (0 if all(ways.values()) else 1)
    shown = policy("policy", "explain", "policy.yaml", *arguments)
    assert shown.code == done.code
    for row in done.json:  # which may be broken into lines
        assert all(word in shown.out for word in f"{row['because']} {row['row']}".split())


def test_explain_names_the_row_and_the_grant(policy: Run) -> None:
    asked = ("policy", "explain", "policy.yaml", "shop/till", "bank", "--port", "8080", "--json")
    named = {row["way"]: (row["row"], row["grant"]) for row in policy(*asked).json}
    grant = "bank from shop/till, port 8080"
    assert named[STRAIGHT] == ("peer-granted", grant)
    assert named[TRANSIT] == ("granted", grant)
    assert named[EVENT] == ("no-grant", None)


def test_explain_says_which_answers_proxies_may_keep(policy: Run) -> None:
    asked = ("policy", "explain", "policy.yaml", "shop/till", "bank", "--port", "8080", "--json")
    kept = {row["way"]: row["kept"] for row in policy(*asked).json}
    assert kept == {STRAIGHT: True, TRANSIT: True, EVENT: False}


def test_tables_prints_the_tables_that_decide(run: Run) -> None:
    assert run("policy", "tables").out == markdown()


def test_explain_says_what_shadow_mode_hides(policy: Run) -> None:
    row, *_ = policy("policy", "explain", "policy.yaml", "bank", "legacy", "--json").json
    assert "enforced, it would be denied: the source is of another tenant" in row["because"]


def test_without_a_gateway_nothing_comes_from_outside(policy: Run) -> None:
    Path("policy.yaml").write_text("grants: []")
    done = policy("policy", "explain", "policy.yaml", "@public", "shop", "--json")
    assert done.code == 1
    assert [row["allowed"] for row in done.json] == [False]


@pytest.mark.parametrize(
    "arguments",
    [
        ["Shop", "bank"],
        ["shop", "Bank"],
        ["shop/B_d", "bank"],
        ["shop/a/b", "bank"],
        ["@public", "a", "--route", "B"],
    ],
)
def test_explain_refuses_bad_names(policy: Run, arguments: list[str]) -> None:
    done = policy("policy", "explain", "policy.yaml", *arguments)
    assert (done.code, done.out) == (2, "")


# As a process ----------------------------------------------------------------------------------


def test_errors_are_one_line_on_stderr_without_a_traceback(tmp_path: Path) -> None:
    done = authz("keys", "list", AUTHZ_STORE=f"sqlite:{tmp_path / 'keys.db'}")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("kek_files: no key-encryption key is configured")
    assert done.stderr.count("\n") == 1


def test_a_pipe_from_mint_to_verify_works(tmp_path: Path) -> None:
    env = {
        "AUTHZ_STORE": f"sqlite:{tmp_path / 'keys.db'}",
        "AUTHZ_KEK": "A" * 43 + "=",
    }
    assert authz("keys", "init", **env).returncode == 0
    token = authz("token", "mint", "shop", "bank", **env).stdout
    assert authz("token", "verify", given=token, **env).returncode == 0
