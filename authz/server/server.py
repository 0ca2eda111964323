"""One process: wires the parts together, starts, serves, drains.

What decisions are made by is built completely, then put in place in one assignment.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from authz.config import IdentitySource, Settings, Transport
from authz.decision import Rules
from authz.errors import ProblemsError
from authz.extauthz import AuthorizationService
from authz.identity import SpiffeId
from authz.observe import AuditLog, Metrics, SidePort
from authz.server.sources import Sources
from authz.transport import (
    CallerSource,
    GrpcioListener,
    Health,
    Http2Listener,
    Limits,
    Listener,
    TlsMaterial,
    from_insecure_metadata,
    from_xfcc,
)


class Server:
    """`startup`, then `serve` until `stop` is called, then `drain`.

    `clock` is in seconds since the epoch, `monotonic` in seconds. With `shares_port` it is one of
    several processes on one port, and leaves the side port to whoever started them.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        log: structlog.typing.FilteringBoundLogger,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        shares_port: bool = False,
    ) -> None:
        self._settings = settings
        self._log = log
        self._shares_port = shares_port
        self.metrics = Metrics(clock)
        self._recorders = self.metrics, AuditLog(log, monotonic)
        self._service = AuthorizationService(
            token_header=settings.token_header, clock=clock, recorders=self._recorders
        )
        self._health = Health()
        self._sources = Sources(
            settings,
            metrics=self.metrics,
            log=log,
            clock=clock,
            changed=self._renew,
            renewed=self._present,
        )
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._listener: Listener
        self._side_port: SidePort | None = None
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
        await self._sources.load()
        self._listener = self._make_listener()
        if not self._shares_port:
            self._side_port = SidePort(
                settings.http_listen, metrics=self.metrics.text, truths=self.truths
            )
        try:
            self.port = await self._listener.start(reuse_port=self._shares_port)
        except OSError as error:
            if self._side_port is not None:
                self._side_port.close()
            problem = f"listen: cannot listen on {settings.listen}: {error.strerror}"
            raise ProblemsError([problem]) from None
        if self._side_port is not None:
            self._side_port.start()
            self._log.info(
                "listening",
                port=self.port,
                http_port=self._side_port.port,
                identity=settings.identity.value,
                policy=str(settings.policy_file or "default: every namespace on its own"),
            )
        self._sources.follow_keys()

    async def serve(self) -> None:
        """Return when `stop` was called, or raise what ended a watch that should never end."""
        stopped = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait(
            [stopped, *self._sources.tasks], return_when=asyncio.FIRST_COMPLETED
        )
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
        await self._sources.close()
        if self._side_port is not None:
            await asyncio.to_thread(self._side_port.stop)
        self._log.info("stopped")

    def truths(self) -> Mapping[str, bool]:
        """What must hold for this process to be ready."""
        return {
            "keyring": self._sources.keyring is not None,
            "policy": self._sources.policy is not None,
            "not stopping": not self._stop.is_set(),
        }

    def _renew(self) -> None:
        """Put policy and keyring to use together."""
        policy, keyring = self._sources.policy, self._sources.keyring
        if policy is not None and keyring is not None:
            self._service.rules = Rules(policy, keyring, self._settings.token_life)
        self._health.serving = all(self.truths().values())

    def _present(self, material: TlsMaterial) -> None:
        self._listener.use(material)

    def _failed(self, error: Exception) -> None:
        for recorder in self._recorders:
            recorder.failed(error)

    def _make_listener(self) -> Listener:
        settings, tls = self._settings, self._sources.tls
        host, port = settings.listen
        caller_of, limits = _caller_source(settings), _limits(settings)
        if settings.transport is Transport.GRPCIO:
            return GrpcioListener(
                self._service,
                self._health,
                host=host,
                port=port,
                limits=limits,
                tls=tls,
                caller_of=caller_of,
            )
        listener = Http2Listener(
            self._service,
            self._health,
            host=host,
            port=port,
            limits=limits,
            tls=tls,
            caller_of=caller_of,
            closed=self.metrics.closed,
            failed=self._failed,
        )
        self.metrics.connections = lambda: listener.connections
        return listener


def _caller_source(settings: Settings) -> CallerSource | None:
    match settings.identity:
        case IdentitySource.XFCC:
            return from_xfcc(SpiffeId.parse(settings.own_id or ""))
        case IdentitySource.INSECURE_METADATA:
            return from_insecure_metadata()
        case IdentitySource.MTLS:
            return None


def _limits(settings: Settings) -> Limits:
    return Limits(
        streams=settings.max_streams,
        message_bytes=settings.max_message_bytes,
        connection_age=settings.max_connection_age_seconds,
        connections=settings.max_connections,
        connections_per_identity=settings.max_connections_per_identity,
        handshakes=settings.max_handshakes,
        handshake_seconds=settings.handshake_seconds,
        idle_seconds=settings.idle_seconds,
        request_seconds=settings.request_seconds,
        checks_per_second=settings.max_checks_per_second,
    )
