"""What commands that change keys have in common: who says why, and what it would come to."""

import asyncio
import getpass
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

from authz.cli.output import moment, print_json
from authz.config import KeySettings
from authz.domain.keys import Keyring
from authz.errors import BadSettings, ClockBehind, KeyringError
from authz.keystore import (
    Kek,
    KeyStore,
    Note,
    Snapshot,
    checked_reason,
    configured_store,
    update,
)
from authz.keystore.history import MAX_BY, MAX_WHAT, shortened

R = TypeVar("R")

Reason = Annotated[
    str | None,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why, for the history and the servers' log: up to 200 characters, no secret.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would be done and whether it can be; change nothing."),
]


@dataclass(frozen=True, slots=True)
class Changing:
    """How a command is to change keys. `now` is in seconds since the epoch.

    Raises:
        BadSettings: the reason is none that is kept.
    """

    settings: KeySettings
    now: float
    reason: str | None
    dry_run: bool
    as_json: bool

    def __post_init__(self) -> None:
        if self.reason is not None:
            try:
                object.__setattr__(self, "reason", checked_reason(self.reason))
            except ValueError as error:
                raise BadSettings([f"--reason: {error}"]) from None

    def note(self, what: str) -> Note:
        """What is noted of it."""
        return Note(int(self.now), _who(), shortened(what, MAX_WHAT), self.reason or "")

    def change(
        self,
        change: Callable[[Keyring], Keyring],
        said: Callable[[Keyring], str],
        *,
        adopt: bool = False,
    ) -> None:
        """Change the keyring, and say of the new one what was done."""
        snapshot = self.in_store(lambda store: self._update(store, change, said, adopt=adopt))
        self.report(snapshot, said(snapshot.keyring))

    def rotate(
        self,
        change: Callable[[Keyring], Keyring],
        said: Callable[[Keyring], str],
    ) -> None:
        """The same for a change that goes by the clock, which is compared with others'."""

        async def act(store: KeyStore) -> Snapshot:
            others = (await store.load()).clock
            if others is not None and abs(self.now - others) > self.settings.token_life.leeway:
                raise _wrong_clock(self.now, "the API server's shows", others)
            return await self._update(store, change, said)

        try:
            snapshot = self.in_store(act)
        except ClockBehind as error:
            last = "the keyring was last changed at"
            raise _wrong_clock(error.now, last, error.changed_at) from None
        self.report(snapshot, said(snapshot.keyring))

    def in_store(
        self, act: Callable[[KeyStore], Coroutine[Any, Any, R]], *, kek: Kek | None = None
    ) -> R:
        """Do something with the store; in a dry run, it stays as it is."""
        return with_store(self.settings, act, rehearse=self.dry_run, kek=kek)

    def report(self, snapshot: Snapshot, said: str) -> None:
        """Say what was done, or would be."""
        if self.as_json:
            more = {"dry_run": True} if self.dry_run else {}
            print_json({"version": snapshot.version, "done": said, **more})
        elif self.dry_run:
            would = f"would be version {snapshot.version}"
            typer.echo(f"dry run, nothing was changed: {said} ({would})")
        else:
            typer.echo(f"{said} (version {snapshot.version})")

    async def _update(
        self,
        store: KeyStore,
        change: Callable[[Keyring], Keyring],
        said: Callable[[Keyring], str],
        *,
        adopt: bool = False,
    ) -> Snapshot:
        return await update(store, change, adopt=adopt, note=lambda new: self.note(said(new)))


def with_store(
    settings: KeySettings,
    act: Callable[[KeyStore], Coroutine[Any, Any, R]],
    *,
    rehearse: bool = False,
    kek: Kek | None = None,
) -> R:
    """Do something with the store that the settings name."""

    async def acting() -> R:
        store = configured_store(settings, rehearse=rehearse, kek=kek)
        try:
            return await act(store)
        finally:
            await store.close()

    return asyncio.run(acting())


def _who() -> str:
    """User and machine, as they call themselves: a name for people, which proves nothing."""
    try:
        user = getpass.getuser()
    except (ImportError, KeyError, OSError):  # a number without a name, as in a container
        user = str(os.getuid())
    return shortened(f"{user}@{socket.gethostname()}", MAX_BY)


def _wrong_clock(now: float, others: str, then: float) -> KeyringError:
    return KeyringError(
        f"the clock here shows {moment(now)}, and {others} {moment(then)}: by a wrong clock, keys "
        "would end too early. Set this machine's clock; or, if it is the other one that is wrong, "
        "add --clock-is-right"
    )
