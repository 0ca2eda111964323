"""What answers are made of: policy, keyring and certificate, kept as they are where they come from.

Each new version is read completely before it is used. Where it is bad, the last good one stays.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from authz.config import IdentitySource, Settings
from authz.domain.keys import Keyring
from authz.domain.policy import Policy
from authz.errors import BadPolicy, BadSettings, KeyringRefused, KeyStoreError
from authz.keystore import KeyStore, Snapshot, configured_store
from authz.keystore.history import since
from authz.observe import Metrics
from authz.policysource.cluster import cluster_policy, policy_map
from authz.policysource.file import read_policy_text
from authz.policysource.kept import KeptPolicy, NotKept
from authz.policysource.reader import parse_policy_apart
from authz.server.files import Files
from authz.transport import TlsFiles, TlsMaterial, load_tls

if TYPE_CHECKING:
    from authz.policysource.configmap import PolicyMap
    from authz.policysource.source import ClusterPolicy

_LONGEST_REASON: Final = 500  # characters
_MOST_TOLD: Final = 50
"""Problems of one version in the log; `authz policy check` tells all."""


class Sources:
    """`load`, then `follow_keys`, at the end `close`.

    `changed` is called after each change of policy or keyring, `renewed` with each new certificate,
    `failed` with what was raised and nobody expected.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
        changed: Callable[[], None],
        renewed: Callable[[TlsMaterial], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.policy: Policy | None = None
        self.keyring: Keyring | None = None
        self.tls: TlsMaterial | None = None
        """`None` where the server has no certificate."""
        self.tasks: list[asyncio.Task[None]] = []
        """What follows them. None of these ever ends, unless by an error that nobody expected."""
        self._settings = settings
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._changed = changed
        self._renewed = renewed
        self._failed = failed
        self._policy_is_current = True
        self._policy_problem: str | None = None
        self._key_problem: str | None = None
        self._version = 0  # of the keyring
        self._base: Policy | None = None
        self._last_good = _last_good(settings, clock)
        self._why: dict[str, str] = {}
        self._map: PolicyMap | None = None
        self._cluster: ClusterPolicy | None = None
        self._store: KeyStore

    async def load(self) -> None:
        """Read policy and certificate, open the key store; follow the files from now on.

        A policy in the cluster is not waited for.

        Raises:
            BadPolicy: the policy file is bad, and no earlier one is kept.
            BadSettings: a TLS file is, or packages for the cluster are missing.
            KeyStoreError: the store's URL or a KEK is.
        """
        settings = self._settings
        if settings.policy_from_cluster:
            self._cluster = await asyncio.to_thread(
                cluster_policy,
                self._cluster_merged,
                self._policy_fresh,
                self._metrics,
                self._log,
                self._clock,
            )
        if settings.policy_configmap is not None:
            self._policy_is_current = False
            self._map = await asyncio.to_thread(policy_map, settings.policy_configmap)
            self._follow("policy", self._follow_policy_map(self._map))
        elif settings.policy_file is not None:
            watched = Files(settings.policy_file)
            await self._take_first_policy(settings.policy_file)
            self._follow("policy", self._follow_policy_file(settings.policy_file, watched))
        else:
            self._use_base(Policy())
            self._follow("policy", self._keep_current(Files()))
        if self._cluster is not None:
            self._follow("cluster", self._cluster.run())
        self._store = await asyncio.to_thread(configured_store, settings)
        if (files := _tls_files(settings)) is not None:
            watched = Files(files.cert, files.key, files.ca)
            self.tls = await asyncio.to_thread(load_tls, files)
            self._metrics.presents(self.tls.expires)
            self._follow("tls", self._follow_tls(files, watched))

    @property
    def reasons(self) -> Mapping[str, str]:
        """Why there is no `policy` or `keyring`, or not the newest."""
        return {what: problem[:_LONGEST_REASON] for what, problem in self._why.items()}

    def follow_keys(self) -> None:
        """Follow the key store, from the first keyring on."""
        self._follow("key store", self._follow_store())

    async def close(self) -> None:
        """Follow nothing any more."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._store.close()
        for source in (self._map, self._cluster):
            if source is not None:
                await source.close()

    def _follow(self, name: str, forever: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(forever, name=name))

    async def _follow_store(self) -> None:
        async for snapshot in self._store.watch(self._key_store_seen):
            known = self.keyring is not None  # then it was compared
            self.keyring = snapshot.keyring
            self._metrics.uses_keyring(snapshot.version)
            if known:
                self._tell_of_changes(snapshot)
            self._version = snapshot.version
            self._log.info("keyring loaded", version=snapshot.version)
            if snapshot.put_by is not None and not known:
                self._log.warning(
                    "the keyring may be an older copy",
                    problem=f"it {snapshot.put_by}: if it lacks a revocation, nothing here can "
                    "tell. Run `authz keys recover`",
                    version=snapshot.version,
                )
            self._changed()

    def _tell_of_changes(self, snapshot: Snapshot) -> None:
        """Say who changed the keyring since it was last seen here."""
        changes, unnoted = since(snapshot.history, self._version, snapshot.version)
        for version, note in changes:
            self._log.info(
                "keyring changed",
                version=version,
                at=dt.datetime.fromtimestamp(note.at, dt.UTC).isoformat(),
                by=note.by,
                what=note.what,
                reason=note.reason or None,
            )
        if unnoted:
            self._log.warning(
                "keyring changed, and nobody noted who did it",
                changes=unnoted,
                version=snapshot.version,
            )

    def _key_store_seen(self, error: KeyStoreError | None) -> None:
        if error is None:
            self._metrics.fresh("keyring")
        else:
            self._metrics.reload_failed("keyring")
        self._metrics.is_newest("keyring", error is None)
        self._metrics.refuses_keyring(isinstance(error, KeyringRefused))
        problem = None if error is None else str(error)
        if problem == self._key_problem:
            return
        self._key_problem = problem
        self._note("keyring", problem)
        if problem is None:
            self._log.info("key store usable again")
        else:
            ready = self.policy is not None and self.keyring is not None
            self._log.error("key store not usable", problem=problem, ready=ready)

    async def _follow_policy_file(self, file: Path, watched: Files) -> None:
        async for _ in watched.changes(self._policy_unchanged):
            await self._take_policy(partial(read_policy_text, file))

    async def _take_first_policy(self, file: Path) -> None:
        problems = await self._take_policy(partial(read_policy_text, file))
        if self.policy is None and self._base is None:
            named = f"policy_file: {file}: "
            raise BadPolicy(
                [text if text.startswith("policy_") else named + text for text in problems]
            )

    async def _follow_policy_map(self, source: PolicyMap) -> None:
        last: str | BadPolicy | None = None
        last_is_good = False
        async with aclosing(source.looks()) as looks:
            async for look in looks:
                if not isinstance(look, str | BadPolicy):
                    self._policy_is_current = False
                    self._policy_seen(str(look))
                    continue
                self._policy_seen(None)
                if look != last:
                    last = look
                    last_is_good = not await self._take_policy(partial(_text, look))
                self._policy_is_current = last_is_good
                self._policy_unchanged()

    def _note(self, what: str, problem: str | None) -> None:
        if problem is None:
            self._why.pop(what, None)
        else:
            self._why[what] = problem

    def _policy_seen(self, problem: str | None) -> None:
        if problem != self._policy_problem:
            self._note("policy", problem)
        if problem is not None and problem != self._policy_problem:
            ready = self.policy is not None
            self._log.error("policy not readable", problem=problem, ready=ready)
        elif problem is None and self._policy_problem is not None:
            self._log.info("policy readable again")
        self._policy_problem = problem

    async def _take_policy(self, read: Callable[[], str]) -> tuple[str, ...]:
        """Use a new policy, unless it is bad: then what is wrong with it is returned."""
        self._policy_is_current = False
        try:
            text = await asyncio.to_thread(read)
            policy = await asyncio.to_thread(parse_policy_apart, text)
        except BadPolicy as error:
            problems = error.problems
        except Exception as error:  # noqa: BLE001 - no text ends a server that has a good policy
            self._failed(error)
            problems = (_bug(error),)
        else:
            await self._keep_text(text)  # before its use: a restart goes back to nothing older
            self._policy_is_current = True
            self._metrics.is_newest("policy", True)
            self._note("policy", None)
            self._policy_unchanged()
            if policy != self._base:
                self._use_base(policy)
            return ()
        if self._base is None:
            problems += await self._go_back()
        self._kept("policy", problems)
        return problems

    async def _keep_text(self, text: str) -> None:
        """For a restart that finds a bad one."""
        if self._last_good is None:
            return
        try:
            await asyncio.to_thread(self._last_good.keep, text)
        except NotKept as error:
            told = self._log.error if error.older else self._log.warning
            told("policy cannot be kept for a restart", problem=str(error))

    async def _go_back(self) -> tuple[str, ...]:
        """Use what was in force before this process, if it may be; else why not."""
        if self._last_good is None:
            return ()
        try:
            text, seen = await asyncio.to_thread(self._last_good.last)
            policy = await asyncio.to_thread(parse_policy_apart, text)
        except BadPolicy as error:
            return error.problems
        self._log.warning(
            "policy of before the restart is used",
            seconds=round(self._clock() - seen),
            file=str(self._settings.policy_kept_file),
        )
        self._metrics.fresh("policy", seen)
        self._use_base(policy)
        return ()

    async def _keep_current(self, nothing: Files) -> None:
        """Without a file, the policy is always current."""
        async for _ in nothing.changes(self._policy_unchanged):
            pass

    def _policy_unchanged(self) -> None:
        """The text was seen as it was last read: if that was good, it is what is in use."""
        if self._policy_is_current and self._last_good is not None:
            self._last_good.seen()
        if self._cluster is None:  # else the cluster tells
            self._policy_fresh()

    def _policy_fresh(self) -> None:
        if self._policy_is_current:
            self._metrics.fresh("policy")

    def _use_base(self, policy: Policy) -> None:
        self._base = policy
        if self._cluster is None:
            self._policy_unchanged()
            self._use_policy(policy)
        else:
            self._cluster.use(policy)

    def _cluster_merged(self, policy: Policy) -> None:
        if policy != self.policy:
            self._use_policy(policy)

    def _use_policy(self, policy: Policy) -> None:
        before, self.policy = self.policy, policy
        self._log.info("policy loaded", **_counts(policy))
        if before is not None and (before.roles and not policy.roles):
            self._log.warning(
                "policy lost all roles: gateways and activator are denied everything",
                before=_counts(before),
                now=_counts(policy),
            )
        if before is not None and policy.default_mode is not before.default_mode:
            self._log.warning(
                "policy changed default_mode, for every namespace without a mode of its own",
                before=before.default_mode.value,
                now=policy.default_mode.value,
            )
        self._changed()

    async def _follow_tls(self, files: TlsFiles, watched: Files) -> None:
        async for _ in watched.changes():
            try:
                material = await asyncio.to_thread(load_tls, files)
            except BadSettings as error:
                self._kept("tls", error.problems)
            except Exception as error:  # noqa: BLE001 - nor one that has a certificate
                self._kept_in_doubt("tls", error)
            else:
                self._metrics.is_newest("tls", True)
                if material != self.tls:
                    self.tls = material
                    self._renewed(material)
                    self._metrics.presents(material.expires)
                    self._log.info("certificate loaded")

    def _kept_in_doubt(self, what: str, error: Exception) -> None:
        self._failed(error)
        self._kept(what, (_bug(error),))

    def _kept(self, what: str, problems: tuple[str, ...]) -> None:
        self._metrics.reload_failed(what)
        self._metrics.is_newest(what, False)
        self._note(what, "; ".join(problems))
        there_is_one = what != "policy" or self._base is not None
        stays = "the last good one stays" if there_is_one else "and there is no other: not ready"
        told = problems[:_MOST_TOLD]
        more = {"more": len(problems) - len(told)} if len(told) < len(problems) else {}
        self._log.error(f"new version is bad, {stays}", what=what, problems=told, **more)


def _counts(policy: Policy) -> dict[str, int]:
    return {
        "namespaces": len(policy.namespaces),
        "grants": len(policy.grants),
        "roles": len(policy.roles),
    }


def _text(look: str | BadPolicy) -> str:
    if isinstance(look, BadPolicy):
        raise look
    return look


def _bug(error: Exception) -> str:
    return f"cannot be read: {type(error).__name__}, a bug: please report it"


def _last_good(settings: Settings, clock: Callable[[], float]) -> KeptPolicy | None:
    if settings.policy_kept_file is None:
        return None
    return KeptPolicy(
        settings.policy_kept_file,
        origin=settings.policy_origin,
        most_seconds=settings.policy_kept_seconds,
        clock=clock,
    )


def _tls_files(settings: Settings) -> TlsFiles | None:
    cert, key, ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file
    if settings.identity is not IdentitySource.MTLS or not (cert and key and ca):
        return None
    return TlsFiles(cert, key, ca)
