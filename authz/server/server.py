"""One process: wires the parts together, starts, serves, drains.

What decisions are made by is built completely, then put in place in one assignment.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from authz.config import Endpoint, IdentitySource, Settings, Transport, UnixSocket
from authz.domain.decision import Rules
from authz.domain.identity import SpiffeId
from authz.errors import BadSettings, ProblemsError
from authz.extauthz import AuthorizationService, is_native
from authz.observe import AuditLog, HandshakeLog, Metrics, Sampler, SidePort
from authz.server.process import bindable
from authz.server.sources import Sources
from authz.transport import (
    CallerSource,
    Health,
    Http2Listener,
    Limits,
    Listener,
    TlsMaterial,
    from_insecure_metadata,
    from_xfcc,
    make_room,
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
        self._handshakes = HandshakeLog(log, monotonic)
        self._service = AuthorizationService(
            token_header=settings.token_header,
            clock=clock,
            recorders=self._recorders,
            direct=settings.identity is IdentitySource.MTLS,
            sample=Sampler(settings.log_allows, random.random) if settings.log_allows else None,
        )
        self._health = Health()
        self._sources = Sources(
            settings,
            metrics=self.metrics,
            log=log,
            clock=clock,
            changed=self._renew,
            renewed=self._present,
            failed=self._failed,
        )
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._listener: Listener
        self._side_port: SidePort | None = None
        self.port: int
        """The bound port for Checks; 0 for a Unix socket."""

    async def startup(self) -> None:
        """Load what can be loaded, bind both ports, start to watch.

        Raises:
            BadPolicy: the policy file is bad.
            BadSettings: a TLS file is.
            KeyStoreError: the store's URL or a KEK is.
            ProblemsError: an address cannot be bound.
        """
        settings = self._settings
        if not is_native():
            self._log.warning(
                "protobuf parses in Python: a Check costs some ten times as much",
                because="its wheel for this platform has no compiled parser (upb), as on musl: use "
                "an image with glibc, such as python:3.13-slim",
            )
        await self._sources.load()
        self._listener = self._make_listener()
        if not self._shares_port:
            self._side_port = SidePort(
                bindable(settings.http_listen),
                metrics=self.metrics.text,
                truths=self.truths,
                reasons=self.reasons,
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
                **self._where(),
                http_port=self._side_port.port,
                identity=settings.identity.value,
                policy=settings.policy_origin,
            )
        self._sources.follow_keys()

    def _where(self) -> dict[str, int | str]:
        listen = self._settings.listen
        return {"path": str(listen.path)} if isinstance(listen, UnixSocket) else {"port": self.port}

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

    def reasons(self) -> Mapping[str, str]:
        """Why some of them do not, where there is more to say."""
        truths = self.truths()
        return {what: why for what, why in self._sources.reasons.items() if not truths.get(what, 1)}

    def _renew(self) -> None:
        """Put policy and keyring to use together."""
        policy, keyring = self._sources.policy, self._sources.keyring
        if policy is not None and keyring is not None:
            own = self._identity
            namespace = None if own is None else own.namespace
            settings = self._settings
            self._service.rules = Rules(
                policy, keyring, settings.token_life, namespace, settings.reuse
            )
        self._health.serving = all(self.truths().values())

    @property
    def _identity(self) -> SpiffeId | None:
        """Our own."""
        if self._settings.identity is IdentitySource.XFCC:
            return SpiffeId.parse(self._settings.own_id or "")
        return None if self._sources.tls is None else self._sources.tls.identity

    def _present(self, material: TlsMaterial) -> None:
        self._listener.use(material)

    def _failed(self, error: Exception) -> None:
        for recorder in self._recorders:
            recorder.failed(error)

    def _make_listener(self) -> Listener:
        settings, tls, listen = self._settings, self._sources.tls, self._settings.listen
        caller_of, limits = _caller_source(settings), self._limits()
        if settings.transport is Transport.GRPCIO:
            try:
                from authz.transport.reference import GrpcioListener  # noqa: PLC0415 - it takes 8 MB
            except ModuleNotFoundError:
                raise BadSettings(
                    ["transport: grpcio is not installed, nor is it in the image: use http2"]
                ) from None

            assert isinstance(listen, Endpoint)  # noqa: S101 - nothing else goes with grpcio
            host, port = bindable(listen)
            return GrpcioListener(
                self._service,
                self._health,
                host=host,
                port=port,
                limits=limits,
                tls=tls,
                caller_of=caller_of,
                took=self.metrics.latency.took,
            )
        path = listen.path if isinstance(listen, UnixSocket) else None
        host, port = bindable(listen) if isinstance(listen, Endpoint) else ("", 0)
        listener = Http2Listener(
            self._service,
            self._health,
            host=host,
            port=port,
            path=path,
            limits=limits,
            tls=tls,
            caller_of=caller_of,
            closed=self.metrics.closed,
            limited=self.metrics.limited,
            took=self.metrics.latency.took,
            failed=self._failed,
            refused=self._handshakes.refused,
        )
        self.metrics.connections = lambda: listener.connections
        return listener

    def _limits(self) -> Limits:
        """The settings', or as much of them as there are file descriptors for."""
        settings = self._settings
        room = make_room(settings.max_connections, settings.max_handshakes)
        if not room.is_enough:
            self._log.warning(
                "too few file descriptors: the hard limit (RLIMIT_NOFILE) holds connections down",
                allowed=room.allowed,
                needed=room.wanted,
                max_connections=room.connections,
                max_handshakes=room.handshakes,
            )
        return Limits(
            streams=settings.max_streams,
            message_bytes=settings.max_message_bytes,
            connection_age=settings.max_connection_age_seconds,
            connections=room.connections,
            connections_per_namespace=settings.max_connections_per_namespace,
            handshakes=room.handshakes,
            handshake_seconds=settings.handshake_seconds,
            idle_seconds=settings.idle_seconds,
            request_seconds=settings.request_seconds,
            checks_per_second=settings.max_checks_per_second,
            buffered_bytes=settings.max_buffered_bytes,
        )


def _caller_source(settings: Settings) -> CallerSource | None:
    match settings.identity:
        case IdentitySource.XFCC:
            return from_xfcc(SpiffeId.parse(settings.own_id or ""))
        case IdentitySource.INSECURE_METADATA:
            return from_insecure_metadata()
        case IdentitySource.MTLS:
            return None
