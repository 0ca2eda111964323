"""The reference transport: grpcio's asyncio server."""

import errno
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from authz.domain.identity import SpiffeId, workload_of_uris
from authz.errors import InvalidIdentity
from authz.transport.callers import CallerSource
from authz.transport.health import Health
from authz.transport.interface import AUTHORIZATION, HEALTH, UNDECIDED, Limits, Service
from authz.transport.tls import TlsMaterial

Context = aio.ServicerContext[bytes, bytes]


class GrpcioListener:
    """Serves `service` and `health` on one TCP address.

    With `tls` it asks each client for a certificate, which says who asks. Without, `caller_of`
    does.
    """

    def __init__(
        self,
        service: Service,
        health: Health,
        *,
        host: str,
        port: int,
        limits: Limits,
        tls: TlsMaterial | None = None,
        caller_of: CallerSource | None = None,
        took: Callable[[float, int], None] = lambda seconds, checks: None,
    ) -> None:
        if (tls is None) == (caller_of is None):
            raise TypeError("give either tls or caller_of")
        self._service = service
        self._health = health
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._limits = limits
        self._tls = tls
        self._caller_of = caller_of
        self._took = took
        self._configuration: grpc.ServerCertificateConfiguration
        self._server: aio.Server | None = None

    async def start(self, *, reuse_port: bool = False) -> int:
        """See `Listener.start`."""
        options = _options(self._limits, reuse_port=reuse_port)
        server = aio.server(options=options, handlers=self._handlers())
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._address)
            else:
                self.use(self._tls)
                port = server.add_secure_port(self._address, self._credentials())
        except RuntimeError:
            raise OSError(errno.EADDRINUSE, "address in use or not of this machine") from None
        await server.start()
        self._server = server
        return port

    def use(self, material: TlsMaterial) -> None:
        """See `Listener.use`."""
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(material.key, material.cert)], material.ca
        )

    def _credentials(self) -> grpc.ServerCredentials:
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            lambda: self._configuration,  # asked at each handshake
            require_client_authentication=True,
        )

    async def stop(self, grace: float) -> None:
        """See `Listener.stop`."""
        self._health.end()
        if self._server is not None:
            await self._server.stop(grace)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        # Without (de)serialisers, messages are bytes on both sides.
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return (
            grpc.method_handlers_generic_handler(AUTHORIZATION, {"Check": unary(self._on_check)}),
            grpc.method_handlers_generic_handler(
                HEALTH, {"Check": unary(self._on_health), "Watch": stream(self._on_watch)}
            ),
        )

    async def _on_check(self, request: bytes, context: Context) -> bytes:
        came = perf_counter()
        metadata = _text(context)
        try:
            caller = self._caller(context, metadata)
        except InvalidIdentity:
            caller = None
        answer = self._service.check(request, self._service.asked(caller, metadata))
        self._took(perf_counter() - came, 1)
        if answer is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, UNDECIDED)
        return answer

    def _caller(self, context: Context, metadata: Sequence[tuple[str, str]]) -> SpiffeId:
        if self._caller_of is not None:
            return self._caller_of(metadata)
        uris = context.auth_context().get("peer_uri", ())
        return workload_of_uris([uri.decode("ascii", "replace") for uri in uris])

    async def _on_health(self, request: bytes, context: Context) -> bytes:
        try:
            answer = self._health.check(request)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
        if answer is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service here")
        return answer

    async def _on_watch(self, request: bytes, context: Context) -> AsyncIterator[bytes]:
        try:
            async for state in self._health.watch(request):
                yield state
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")


def _text(context: Context) -> list[tuple[str, str]]:
    """The request's metadata, without binary values, in which no rule is interested."""
    return [
        (key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)
    ]


def _options(limits: Limits, *, reuse_port: bool) -> list[tuple[str, int]]:
    return [
        # If it were on, a second server would take the same port without a word.
        ("grpc.so_reuseport", int(reuse_port)),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.max_connection_age_ms", limits.connection_age * 1000),
        ("grpc.max_connection_age_grace_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]
