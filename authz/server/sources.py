"""What answers are made of: policy, keyring and certificate, kept as they are where they come from.

Each new version is read completely before it is used. Where it is bad, the last good one stays.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from authz.config import IdentitySource, Settings, configured_store
from authz.errors import BadPolicy, BadSettings, KeyStoreError
from authz.keys import Keyring
from authz.keystore import KeyStore
from authz.observe import Metrics
from authz.policy import Policy
from authz.policyfile import read_policy
from authz.server.files import Files
from authz.transport import TlsFiles, TlsMaterial, load_tls


class Sources:
    """`load`, then `follow_keys`, at the end `close`.

    `changed` is called after each change of policy or keyring, `renewed` with each new certificate.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        metrics: Metrics,
        log: structlog.typing.FilteringBoundLogger,
        changed: Callable[[], None],
        renewed: Callable[[TlsMaterial], None],
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
        self._changed = changed
        self._renewed = renewed
        self._key_problem: str | None = None
        self._store: KeyStore

    async def load(self) -> None:
        """Read policy and certificate, open the key store; follow the files from now on.

        Raises:
            BadPolicy: the policy file is bad.
            BadSettings: a TLS file is.
            KeyStoreError: the store's URL or a KEK is.
        """
        settings = self._settings
        if settings.policy_file is None:
            self.policy = Policy()
        else:
            watched = Files(settings.policy_file)
            self._use_policy(await asyncio.to_thread(read_policy, settings.policy_file))
            self._follow("policy", self._follow_policy(settings.policy_file, watched))
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
        async for _ in watched.changes():
            try:
                policy = await asyncio.to_thread(read_policy, file)
            except BadPolicy as error:
                self._kept("policy", error.problems)
                continue
            if policy != self.policy:
                self._use_policy(policy)

    def _use_policy(self, policy: Policy) -> None:
        self.policy = policy
        self._metrics.fresh("policy")
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
                continue
            if material != self.tls:
                self.tls = material
                self._renewed(material)
                self._metrics.presents(material.expires)
                self._log.info("certificate loaded")

    def _kept(self, what: str, problems: tuple[str, ...]) -> None:
        self._metrics.reload_failed(what)
        self._log.error("new version is bad, the last good one stays", what=what, problems=problems)


def _tls_files(settings: Settings) -> TlsFiles | None:
    cert, key, ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file
    if settings.identity is not IdentitySource.MTLS or not (cert and key and ca):
        return None
    return TlsFiles(cert, key, ca)
