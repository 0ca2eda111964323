"""One process: wires the parts together, keeps policy, keys and certificate current, drains.

What decisions are made by is built completely, then put in place in one assignment; where the new
version is bad, the last good one stays.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from authz.config import IdentitySource, Settings, configured_store
from authz.decision import Rules
from authz.errors import BadPolicy, BadSettings, KeyStoreError, ProblemsError
from authz.extauthz import AuthorizationService
from authz.identity import SpiffeId
from authz.keys import Keyring
from authz.keystore import KeyStore
from authz.observe import AuditLog, Metrics
from authz.policy import Policy
from authz.policyfile import read_policy
from authz.server.files import Files
from authz.server.sideport import SidePort
from authz.transport import (
    GrpcioListener,
    Health,
    Limits,
    TlsFiles,
    TlsMaterial,
    from_insecure_metadata,
    from_xfcc,
    load_tls,
)


class Server:
    """`startup`, then `serve` until `stop` is called, then `drain`.

    `clock` is in seconds since the epoch, `monotonic` in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._log = log
        self._metrics = Metrics(clock)
        self._service = AuthorizationService(
            token_header=settings.token_header,
            clock=clock,
            recorders=(self._metrics, AuditLog(log, monotonic)),
        )
        self._health = Health()
        self._policy: Policy | None = None
        self._keyring: Keyring | None = None
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._key_problem: str | None = None
        self._tls: TlsMaterial | None = None
        self._store: KeyStore
        self._listener: GrpcioListener
        self._side_port: SidePort
        self.port: int
        """The bound port for Checks."""

    async def startup(self) -> None:
        """Load what can be loaded, bind both ports, start to watch.

        Raises:
            BadPolicy: the policy file is bad.
            BadSettings: a TLS file is.
            KeyStoreError: the store's URL or a KEK is.
            ProblemsError: an address cannot be bound.
        """
        settings = self._settings
        if settings.policy_file is None:
            self._policy = Policy()
        else:
            watched = Files(settings.policy_file)
            self._use_policy(await asyncio.to_thread(read_policy, settings.policy_file))
            self._watch("policy", self._follow_policy(settings.policy_file, watched))
        self._store = await asyncio.to_thread(configured_store, settings)
        self._listener = await self._make_listener()
        try:
            self._side_port = SidePort(
                *settings.http_listen, metrics=self._metrics.text, truths=self.truths
            )
        except OSError as error:
            problem = f"http_listen: cannot listen on {settings.http_listen}: {error.strerror}"
            raise ProblemsError([problem]) from None
        try:
            self.port = await self._listener.start()
        except OSError as error:
            self._side_port.close()
            raise ProblemsError([f"listen: {error}"]) from None
        self._side_port.start()
        self._log.info(
            "listening",
            port=self.port,
            http_port=self._side_port.port,
            identity=settings.identity.value,
            policy=str(settings.policy_file or "default: every namespace on its own"),
        )
        self._watch("key store", self._follow_store())

    async def serve(self) -> None:
        """Return when `stop` was called, or raise what ended a watch that should never end."""
        stopped = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in done - {stopped}:
            task.result()

    def stop(self) -> None:
        """Begin to drain; called a second time, hurry."""
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()
        self._renew()

    async def drain(self) -> None:
        """Go on as unready until Envoys have moved away, then finish and close."""
        self._stop.set()
        self._renew()
        self._log.info("draining", seconds=self._settings.drain_seconds)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop_at_once.wait(), self._settings.drain_seconds)
        grace = 0 if self._stop_at_once.is_set() else self._settings.grace_seconds
        await self._listener.stop(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()
        await asyncio.to_thread(self._side_port.stop)
        self._log.info("stopped")

    def truths(self) -> Mapping[str, bool]:
        """What must hold for this process to be ready."""
        return {
            "keyring": self._keyring is not None,
            "policy": self._policy is not None,
            "not stopping": not self._stop.is_set(),
        }

    def _renew(self) -> None:
        """Put policy and keyring to use together."""
        if self._policy is not None and self._keyring is not None:
            life = self._settings.token_life
            self._service.rules = Rules(self._policy, self._keyring, life)
        self._health.serving = all(self.truths().values())

    def _watch(self, name: str, forever: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(forever, name=name))

    async def _make_listener(self) -> GrpcioListener:
        settings = self._settings
        caller_of = None
        match settings.identity:
            case IdentitySource.XFCC:
                caller_of = from_xfcc(SpiffeId.parse(settings.own_id or ""))
            case IdentitySource.INSECURE_METADATA:
                caller_of = from_insecure_metadata()
            case IdentitySource.MTLS:
                pass
        if (files := _tls_files(settings)) is not None:
            watched = Files(files.cert, files.key, files.ca)
            self._tls = await asyncio.to_thread(load_tls, files)
            self._watch("tls", self._follow_tls(files, watched))
        return GrpcioListener(
            self._service,
            self._health,
            host=settings.listen.host,
            port=settings.listen.port,
            limits=Limits(
                settings.max_streams,
                settings.max_message_bytes,
                settings.max_connection_age_seconds,
            ),
            tls=self._tls,
            caller_of=caller_of,
        )

    async def _follow_store(self) -> None:
        async for snapshot in self._store.watch(self._key_store_seen):
            self._keyring = snapshot.keyring
            self._metrics.keyring_version.set(snapshot.version)
            self._log.info("keyring loaded", version=snapshot.version)
            self._renew()

    def _key_store_seen(self, error: KeyStoreError | None) -> None:
        if error is None:
            self._metrics.fresh("keyring")
        else:
            self._metrics.reload_failures.labels("keyring").inc()
        problem = None if error is None else str(error)
        if problem is not None and problem != self._key_problem:
            self._log.error("key store not usable", problem=problem, ready=self._health.serving)
        self._key_problem = problem

    async def _follow_policy(self, file: Path, watched: Files) -> None:
        async for _ in watched.changes():
            try:
                policy = await asyncio.to_thread(read_policy, file)
            except BadPolicy as error:
                self._kept("policy", error.problems)
                continue
            if policy != self._policy:
                self._use_policy(policy)

    def _use_policy(self, policy: Policy) -> None:
        self._policy = policy
        self._metrics.fresh("policy")
        self._log.info(
            "policy loaded", namespaces=len(policy.namespaces), grants=len(policy.grants)
        )
        self._renew()

    async def _follow_tls(self, files: TlsFiles, watched: Files) -> None:
        async for _ in watched.changes():
            try:
                material = await asyncio.to_thread(load_tls, files)
            except BadSettings as error:
                self._kept("tls", error.problems)
                continue
            if material != self._tls:
                self._tls = material
                self._listener.use(material)
                self._log.info("certificate loaded")

    def _kept(self, what: str, problems: tuple[str, ...]) -> None:
        self._metrics.reload_failures.labels(what).inc()
        self._log.error("new version is bad, the last good one stays", what=what, problems=problems)


def _tls_files(settings: Settings) -> TlsFiles | None:
    cert, key, ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file
    if settings.identity is not IdentitySource.MTLS or not (cert and key and ca):
        return None
    return TlsFiles(cert, key, ca)
