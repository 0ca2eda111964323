"""`authz keys`: make, show and change the keyring in its store."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from authz.cli.output import AsJson, moment, print_json, show
from authz.cli.settings import takes
from authz.config import KeySettings
from authz.domain import rotation
from authz.domain.keys import Keyring
from authz.domain.names import PUBLIC, Namespace, parse_namespace
from authz.errors import BadSettings, ClockBehind, KeyringError
from authz.keystore import (
    KeyStore,
    Snapshot,
    configured_store,
    generate_kek_file,
    read_kek_file,
    update,
)

app = typer.Typer(
    help="Make, show, rotate and revoke keys; seal the store anew.",
    no_args_is_help=True,
    add_completion=False,
)
R = TypeVar("R")
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
    typer.Option("--clock-is-right", help="Go by this machine's clock, whatever others show."),
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
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Make a key store with one root key, which signs at once."""
    if generate_kek:
        if len(settings.kek_files) != 1:
            raise BadSettings(["kek_files: --generate-kek needs exactly one file to write"])
        if not settings.kek_files[0].exists():
            generate_kek_file(settings.kek_files[0])
    keyring = rotation.create(_now())
    snapshot = _with_store(settings, lambda store: store.compare_and_swap(None, keyring))
    _report(snapshot, f"made {settings.store}, root key {keyring.roots[0].id}", as_json)


@app.command("list", epilog="Example: authz keys list --json")
@takes(KeySettings)
def list_(*, as_json: AsJson = False, settings: KeySettings) -> None:
    """Show the root keys and every namespace that differs from the default. Never a secret."""
    snapshot = _with_store(settings, lambda store: store.load())
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


@app.command(epilog="Examples: authz keys rotate --root; authz keys rotate payments --now")
@takes(KeySettings)
def rotate(
    namespace: _Name = None,
    *,
    root: Annotated[bool, typer.Option("--root", help="Rotate the root key instead.")] = False,
    now: _Now = False,
    clock_is_right: _ClockIsRight = False,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Bring in a new key for one namespace, or for all of them by a new root.

    The new key is published at once and signs an hour later, so that a server that cannot reach
    the store until then still knows it in time. The old one verifies until its last token expires,
    which is told by the settings: use the servers' own. So nobody is denied.

    With --now, a server that has not seen the change yet denies what the new key signs.

    The clock of this machine must be right: it tells when the old key ends.
    """
    time_, delay, life = _now(), 0 if now else DELAY, settings.token_life
    if root == (namespace is not None):
        raise BadSettings(["name one namespace, or --root"])
    if namespace is None:
        snapshot = _rotate(
            settings,
            lambda old: rotation.rotate_root(old, time_, delay=delay, life=life),
            clock=None if clock_is_right else time_,
        )
        said = f"new root key {snapshot.keyring.roots[-1].id} signs from {moment(time_ + delay)}"
    else:
        name = _namespace(namespace)
        snapshot = _rotate(
            settings,
            lambda old: rotation.rotate_namespace(old, name, time_, delay=delay, life=life),
            clock=None if clock_is_right else time_,
        )
        generation = snapshot.keyring.keys_of(name).generation
        said = f"generation {generation} of {name} signs from {moment(time_ + delay)}"
    _report(snapshot, said, as_json)


@app.command(epilog="Examples: authz keys revoke payments; authz keys revoke --root 1f2e3d4c")
@takes(KeySettings)
def revoke(
    namespace: _Name = None,
    *,
    root: Annotated[
        str | None, typer.Option("--root", metavar="ID", help="Revoke this root key instead.")
    ] = None,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Make every token invalid that a namespace, or anybody under a root key, was ever given.

    Servers act on it within a second. Requests that are on their way with such a token are denied.
    """
    time_, life = _now(), settings.token_life
    if (root is None) == (namespace is None):
        raise BadSettings(["name one namespace, or --root ID"])
    if root is not None:
        snapshot = _change(settings, lambda old: rotation.revoke_root(old, root, time_, life=life))
        said = f"root key {root} is revoked"
    else:
        name = _namespace(namespace or "")
        snapshot = _change(settings, lambda old: rotation.revoke_namespace(old, name, time_))
        said = f"all earlier tokens of {name} are revoked"
    _report(snapshot, said, as_json)


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
        typer.Option("--newest", help="No key was changed after the copy was made: keep them."),
    ] = False,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Make a copy of the key store that was put back one that every server takes.

    A copy does not know what was revoked after it was made. So every root key is revoked, and a new
    one signs at once: all tokens that were ever made are denied, which fails requests on their way,
    once. Servers that run take it within a second. Where their log says that root keys are missing,
    which were made after the copy, name those with --lost.
    """
    time_, life = _now(), settings.token_life
    if newest and lost:
        raise BadSettings(["--newest and --lost: a copy that lacks root keys is not the newest"])
    if newest:
        snapshot = _change(settings, lambda old: old, adopt=True)
        _report(snapshot, "the keyring is kept as it is", as_json)
        return
    ids = lost.split(",") if lost else []
    snapshot = _change(
        settings, lambda old: rotation.revoke_all(old, time_, life=life, lost=ids), adopt=True
    )
    said = f"every earlier root key is revoked; {snapshot.keyring.roots[-1].id} signs at once"
    _report(snapshot, said, as_json)


@app.command(
    epilog="Example: authz keys reseal --kek-files old,new --to new, when all servers read both"
)
@takes(KeySettings)
def reseal(
    *,
    to: Annotated[Path, typer.Option("--to", help="The file with the KEK to seal under.")],
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Seal the store under another key-encryption key. Tokens are not affected.

    First give all servers both keys, then reseal, then take the old one away from them.
    """
    kek = read_kek_file(to)
    snapshot = _with_store(settings, lambda store: store.reseal(kek))
    _report(snapshot, f"{settings.store} is sealed under KEK {kek.id}", as_json)


def _rotate(
    settings: KeySettings, change: Callable[[Keyring], Keyring], *, clock: float | None
) -> Snapshot:
    """Make a change that goes by the clock: checked against others', or `None` to trust it."""
    if clock is None:
        return _change(settings, lambda old: change(replace(old, changed_at=None)))

    async def act(store: KeyStore) -> Snapshot:
        others = (await store.load()).clock
        if others is not None and abs(clock - others) > settings.token_life.leeway:
            raise _wrong_clock(clock, "the API server's shows", others)
        return await update(store, change)

    try:
        return _with_store(settings, act)
    except ClockBehind as error:
        raise _wrong_clock(error.now, "the keyring was last changed at", error.changed_at) from None


def _wrong_clock(now: float, others: str, then: float) -> KeyringError:
    return KeyringError(
        f"the clock here shows {moment(now)}, and {others} {moment(then)}: by a wrong clock, keys "
        "would end too early. Set this machine's clock; or, if it is the other one that is wrong, "
        "add --clock-is-right"
    )


def _change(
    settings: KeySettings, change: Callable[[Keyring], Keyring], *, adopt: bool = False
) -> Snapshot:
    return _with_store(settings, lambda store: update(store, change, adopt=adopt))


def _with_store(settings: KeySettings, act: Callable[[KeyStore], Coroutine[Any, Any, R]]) -> R:
    async def acting() -> R:
        store = configured_store(settings)
        try:
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(acting())


def _report(snapshot: Snapshot, said: str, as_json: bool) -> None:
    if as_json:
        print_json({"version": snapshot.version, "done": said})
    else:
        typer.echo(f"{said} (version {snapshot.version})")


def _namespace(text: str) -> Namespace:
    return PUBLIC if text == PUBLIC else parse_namespace(text)


def _state(revoked: bool, verifies: bool, primary: bool) -> str:
    if revoked:
        return "revoked"
    if primary:
        return "primary"
    return "verifies" if verifies else "expired"
