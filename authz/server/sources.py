"""What answers are made of: policy, keyring and certificate, kept as they are where they come from.

Each new version is read completely before it is used. Where it is bad, the last good one stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from authz.config import IdentitySource, Settings, configured_store
from authz.domain.keys import Keyring
from authz.domain.policy import Policy
from authz.errors import BadPolicy, BadSettings, KeyStoreError
from authz.keystore import KeyStore
from authz.observe import Metrics
from authz.policysource.cluster import cluster_policy
from authz.policysource.file import read_policy
from authz.policysource.reader import read_policy_apart
from authz.server.files import Files
from authz.transport import TlsFiles, TlsMaterial, load_tls

if TYPE_CHECKING:
    from authz.policysource.source import ClusterPolicy


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
        self._key_problem: str | None = None
        self._in_file: Policy | None = None
        self._cluster: ClusterPolicy | None = None
        self._store: KeyStore

    async def load(self) -> None:
        """Read policy and certificate, open the key store; follow the files from now on.

        Raises:
            BadPolicy: the policy file is bad.
            BadSettings: a TLS file is.
            KeyStoreError: the store's URL or a KEK is.
        """
        settings = self._settings
        if settings.policy_from_cluster:
            self._cluster = await asyncio.to_thread(
                cluster_policy, self._cluster_merged, self._metrics, self._log, self._clock
            )
        if settings.policy_file is None:
            self._use_file(Policy())
            self._follow("policy", self._keep_current(Files()))
        else:
            watched = Files(settings.policy_file)
            self._use_file(await asyncio.to_thread(read_policy, settings.policy_file))
            self._follow("policy", self._follow_policy(settings.policy_file, watched))
        if self._cluster is not None:
            self._follow("cluster", self._cluster.run())
        self._store = await asyncio.to_thread(configured_store, settings)
        if (files := _tls_files(settings)) is not None:
            watched = Files(files.cert, files.key, files.ca)
            self.tls = await asyncio.to_thread(load_tls, files)
            self._metrics.presents(self.tls.expires)
            self._follow("tls", self._follow_tls(files, watched))

    def follow_keys(self) -> None:
        """Follow the key store, from the first keyring on."""
        self._follow("key store", self._follow_store())

    async def close(self) -> None:
        """Follow nothing any more."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self._store.close()
        if self._cluster is not None:
            await self._cluster.close()

    def _follow(self, name: str, forever: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(forever, name=name))

    async def _follow_store(self) -> None:
        async for snapshot in self._store.watch(self._key_store_seen):
            self.keyring = snapshot.keyring
            self._metrics.uses_keyring(snapshot.version)
            self._log.info("keyring loaded", version=snapshot.version)
            self._changed()

    def _key_store_seen(self, error: KeyStoreError | None) -> None:
        if error is None:
            self._metrics.fresh("keyring")
        else:
            self._metrics.reload_failed("keyring")
        problem = None if error is None else str(error)
        if problem is not None and problem != self._key_problem:
            ready = self.policy is not None and self.keyring is not None
            self._log.error("key store not usable", problem=problem, ready=ready)
        self._key_problem = problem

    async def _follow_policy(self, file: Path, watched: Files) -> None:
        async for _ in watched.changes(self._policy_unchanged):
            self._policy_is_current = False
            try:
                policy = await asyncio.to_thread(read_policy_apart, file)
            except BadPolicy as error:
                self._kept("policy", error.problems)
            except Exception as error:  # noqa: BLE001 - no file ends a server that has a good policy
                self._kept_in_doubt("policy", error)
            else:
                self._policy_is_current = True
                self._policy_unchanged()
                if policy != self._in_file:
                    self._use_file(policy)

    async def _keep_current(self, nothing: Files) -> None:
        """Without a file, the policy is always current."""
        async for _ in nothing.changes(self._policy_unchanged):
            pass

    def _policy_unchanged(self) -> None:
        """The file was seen as it was last read: if that was good, it is what is in use."""
        if self._policy_is_current and self._cluster is None:  # else the cluster tells
            self._metrics.fresh("policy")

    def _use_file(self, policy: Policy) -> None:
        self._in_file = policy
        if self._cluster is None:
            self._policy_unchanged()
            self._use_policy(policy)
        else:
            self._cluster.use(policy)

    def _cluster_merged(self, policy: Policy) -> None:
        if policy != self.policy:
            self._use_policy(policy)

    def _use_policy(self, policy: Policy) -> None:
        self.policy = policy
        self._log.info(
            "policy loaded", namespaces=len(policy.namespaces), grants=len(policy.grants)
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
                if material != self.tls:
                    self.tls = material
                    self._renewed(material)
                    self._metrics.presents(material.expires)
                    self._log.info("certificate loaded")

    def _kept_in_doubt(self, what: str, error: Exception) -> None:
        self._failed(error)
        self._kept(what, (f"cannot be read: {type(error).__name__}, a bug: please report it",))

    def _kept(self, what: str, problems: tuple[str, ...]) -> None:
        self._metrics.reload_failed(what)
        self._log.error("new version is bad, the last good one stays", what=what, problems=problems)


def _tls_files(settings: Settings) -> TlsFiles | None:
    cert, key, ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file
    if settings.identity is not IdentitySource.MTLS or not (cert and key and ca):
        return None
    return TlsFiles(cert, key, ca)
