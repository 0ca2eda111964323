"""`authz keys`: make, show and change the keyring in its store."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from authz.cli.key_changes import Changing, DryRun, Reason, with_store
from authz.cli.output import AsJson, moment, print_json, show
from authz.cli.settings import takes
from authz.config import KeySettings
from authz.domain import rotation
from authz.domain.keys import Keyring
from authz.domain.names import PUBLIC, Namespace, parse_namespace
from authz.errors import BadSettings
from authz.keystore import generate_kek_file, read_kek_file

app = typer.Typer(
    help="Make, show, rotate and revoke keys; seal the store anew.",
    no_args_is_help=True,
    add_completion=False,
)
_now = time.time  # noqa: TID251 - the command line is where time enters

DELAY = 3600
"""Seconds between publishing a key and signing with it: the store outage that goes unnoticed."""

_Name = Annotated[
    str | None,
    typer.Argument(help="A namespace, or @public for what comes through the public gateway."),
]
_Now = Annotated[bool, typer.Option("--now", help="Sign with the new key at once (emergency).")]
_ClockIsRight = Annotated[
    bool,
    typer.Option("--clock-is-right", help="Trust this machine's clock, whatever others show."),
]


@app.command(
    epilog="Example: authz keys init --store sqlite:keys.db --kek-files kek --generate-kek"
)
@takes(KeySettings)
def init(
    *,
    generate_kek: Annotated[
        bool, typer.Option("--generate-kek", help="First make the KEK file, mode 0600.")
    ] = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Make a key store with one root key, which signs at once."""
    changing = Changing(settings, _now(), reason, dry_run, as_json)
    kek = None
    if generate_kek:
        if len(settings.kek_files) != 1:
            raise BadSettings(["kek_files: --generate-kek needs exactly one file to write"])
        if not settings.kek_files[0].exists():
            kek = generate_kek_file(settings.kek_files[0], rehearse=dry_run)
    keyring = rotation.create(changing.now)
    said = f"made {settings.store}, root key{_new_root(keyring, changing)}"
    note = changing.note(said)
    snapshot = changing.in_store(
        lambda store: store.compare_and_swap(None, keyring, note=note), kek=kek
    )
    changing.report(snapshot, said)


@app.command("list", epilog="Example: authz keys list --json")
@takes(KeySettings)
def list_(*, as_json: AsJson = False, settings: KeySettings) -> None:
    """Show the root keys and every namespace that differs from the default. Never a secret."""
    snapshot = with_store(settings, lambda store: store.load())
    now, keyring = _now(), snapshot.keyring
    roots = [
        {
            "id": root.id,
            "state": _state(root.revoked, root.verifies(now), root is keyring.primary(now)),
            "signs_from": moment(root.sign_from),
            "verifies_until": moment(root.verify_until),
        }
        for root in keyring.roots
    ]
    namespaces = [
        {
            "namespace": name,
            "generation": keys.generation,
            "signs_with": keys.signing_generation(now),
            "signs_from": moment(keys.sign_from) if keys.sign_from else None,
            "previous_until": moment(keys.previous_until) if keys.previous_until else None,
        }
        for name, keys in sorted(keyring.namespaces.items())
    ]
    changed_at = moment(keyring.changed_at)
    if as_json:
        print_json(
            {
                "version": snapshot.version,
                "changed_at": changed_at,
                "put_by": snapshot.put_by,
                "roots": roots,
                "namespaces": namespaces,
            }
        )
        return
    changed = f", changed {changed_at}" if changed_at else ""
    show(roots, title=f"Root keys (version {snapshot.version}{changed})", as_json=False)
    if namespaces:
        show(namespaces, title="Namespaces that differ from the default", as_json=False)
    if snapshot.put_by is not None:
        typer.echo(f"This keyring {snapshot.put_by}: see `authz keys recover --help`.", err=True)


@app.command(epilog="Examples: authz keys history; authz keys history --json")
@takes(KeySettings)
def history(*, as_json: AsJson = False, settings: KeySettings) -> None:
    """Show the last changes of the keys: which version they made, when, who, what, and why.

    The machine that ran the command names the author, and a holder of the KEK can write anything
    here. A version is missing where the program that made it notes nothing.
    """
    snapshot = with_store(settings, lambda store: store.load())
    rows = [
        {"version": version, **note._asdict(), "at": moment(note.at)}
        for version, note in snapshot.history
    ]
    if as_json or rows:
        show(rows, title=f"Changes (version {snapshot.version})", as_json=as_json)
    else:
        typer.echo(f"no change was noted (version {snapshot.version})", err=True)


@app.command(
    epilog="Examples: authz keys rotate --root; authz keys rotate payments --now --reason 'leaked'"
)
@takes(KeySettings)
def rotate(
    namespace: _Name = None,
    *,
    root: Annotated[bool, typer.Option("--root", help="Rotate the root key instead.")] = False,
    now: _Now = False,
    clock_is_right: _ClockIsRight = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Bring in a new key for one namespace, or for all of them by a new root.

    The new key is published at once and signs an hour later, so that a server that cannot reach the
    store until then still knows it in time. The old one verifies until its last token expires, by
    the settings: use the servers' own. So no request is denied.

    With --now, a server that has not seen the change yet denies what the new key signs.

    The clock of this machine must be right: it decides when the old key ends.
    """
    changing = Changing(settings, _now(), reason, dry_run, as_json)
    time_, delay, life = changing.now, 0 if now else DELAY, settings.token_life
    signs = f"signs from {moment(time_ + delay)}"
    if root == (namespace is not None):
        raise BadSettings(["name one namespace, or --root"])
    if namespace is None:

        def change(old: Keyring) -> Keyring:
            return rotation.rotate_root(old, time_, delay=delay, life=life)

        def said(new: Keyring) -> str:
            return f"new root key{_new_root(new, changing)} {signs}"

    else:
        name = _namespace(namespace)

        def change(old: Keyring) -> Keyring:
            return rotation.rotate_namespace(old, name, time_, delay=delay, life=life)

        def said(new: Keyring) -> str:
            return f"generation {new.keys_of(name).generation} of {name} {signs}"

    if clock_is_right:
        changing.change(lambda old: change(replace(old, changed_at=None)), said)
    else:
        changing.rotate(change, said)


@app.command(
    epilog="Examples: authz keys revoke payments --dry-run; authz keys revoke --root 1f2e3d4c"
)
@takes(KeySettings)
def revoke(
    namespace: _Name = None,
    *,
    root: Annotated[
        str | None, typer.Option("--root", metavar="ID", help="Revoke this root key instead.")
    ] = None,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Invalidate every token ever given to a namespace, or made under a root key.

    Servers act on it within a second; sidecars that keep answers, `reuse_verify_seconds` and one
    later at most. Requests under way with such a token are denied.
    """
    changing = Changing(settings, _now(), reason, dry_run, as_json)
    time_, life = changing.now, settings.token_life
    if (root is None) == (namespace is None):
        raise BadSettings(["name one namespace, or --root ID"])
    if root is not None:
        changing.change(
            lambda old: rotation.revoke_root(old, root, time_, life=life),
            lambda _: f"root key {root} is revoked",
        )
    else:
        name = _namespace(namespace or "")
        changing.change(
            lambda old: rotation.revoke_namespace(old, name, time_),
            lambda _: f"all earlier tokens of {name} are revoked",
        )


@app.command(epilog="Example: authz keys recover --lost 1f2e3d4c")
@takes(KeySettings)
def recover(
    *,
    lost: Annotated[
        str | None,
        typer.Option("--lost", metavar="ID,ID", help="Root keys that servers' logs call missing."),
    ] = None,
    newest: Annotated[
        bool,
        typer.Option("--newest", help="Keep all keys: none was changed after the copy was made."),
    ] = False,
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Make a restored copy of the key store acceptable to every server.

    A copy does not know what was revoked after it was made. So every root key is revoked, and a new
    one signs at once: all tokens made so far are denied, and requests under way fail, once. Servers
    that run take it within a second. If their log names missing root keys, made after the copy,
    give them with --lost.
    """
    changing = Changing(settings, _now(), reason, dry_run, as_json)
    time_, life = changing.now, settings.token_life
    if newest and lost:
        raise BadSettings(["--newest and --lost: a copy that lacks root keys is not the newest"])
    if newest:
        changing.change(lambda old: old, lambda _: "the keyring is kept as it is", adopt=True)
        return
    ids = lost.split(",") if lost else []
    changing.change(
        lambda old: rotation.revoke_all(old, time_, life=life, lost=ids),
        lambda new: (
            f"every earlier root key is revoked; {_new_root(new, changing).strip() or 'a new one'} "
            "signs at once"
        ),
        adopt=True,
    )


@app.command(
    epilog="Example: authz keys reseal --kek-files old,new --to new, when all servers read both"
)
@takes(KeySettings)
def reseal(
    *,
    to: Annotated[Path, typer.Option("--to", help="The file with the KEK to seal under.")],
    reason: Reason = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Seal the store under another key-encryption key. Tokens are not affected.

    First give all servers both keys, then reseal, then take the old one away from them.
    """
    kek = read_kek_file(to)
    changing = Changing(settings, _now(), reason, dry_run, as_json)
    said = f"{settings.store} is sealed under KEK {kek.id}"
    note = changing.note(said)
    changing.report(changing.in_store(lambda store: store.reseal(kek, note=note)), said)


def _new_root(keyring: Keyring, changing: Changing) -> str:
    """The id of the last root key; nothing in a dry run, since the real one will have another."""
    return "" if changing.dry_run else f" {keyring.roots[-1].id}"


def _namespace(text: str) -> Namespace:
    return PUBLIC if text == PUBLIC else parse_namespace(text)


def _state(revoked: bool, verifies: bool, primary: bool) -> str:
    if revoked:
        return "revoked"
    if primary:
        return "primary"
    return "verifies" if verifies else "expired"
