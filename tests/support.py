"""What the tests of the service's edge share: deadlines, certificates, clients, processes."""

import asyncio
import base64
import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import aio

from authz._proto.ext_authz_pb2 import CheckResponse
from authz._proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from authz.domain.identity import SpiffeId
from authz.lab.harness import service
from authz.lab.harness.certs import Authority, Certificate
from authz.lab.harness.keyfiles import KeyFiles
from authz.testing import workload

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which a test stops waiting for what must happen. Nothing should take as long."""

LOOK_AGAIN = 0.02
"""Seconds between two looks at a condition that nothing else tells about."""

SERVER_NAME = "authz.test"
AUTHORIZATION = "envoy.service.auth.v3.Authorization"
HEALTH = "grpc.health.v1.Health"
KEK = base64.b64encode(b"the KEK of the edge's tests".ljust(32, b"!")).decode()
SERVICE = workload("authz-system", "authz")


# -- waiting -----------------------------------------------------------------------------------


async def soon(awaitable: Awaitable[T]) -> T:
    """Wait for what has to happen, within a deadline."""
    return await asyncio.wait_for(awaitable, PATIENCE)


async def eventually(found: Callable[[], Awaitable[T | None]], what: str) -> T:
    """Look again and again until something is found."""
    deadline = time.monotonic() + PATIENCE
    while not (value := await found()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        await asyncio.sleep(LOOK_AGAIN)
    return value


def at_last(found: Callable[[], T | None], what: str) -> T:
    """The same without a loop."""
    deadline = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(LOOK_AGAIN)
    return value


# -- certificates ------------------------------------------------------------------------------


class Issuer(Authority):
    """An authority that also issues what it should not."""

    def __init__(self, directory: Path, name: str = "tests") -> None:
        super().__init__(directory, name)
        self._count = 0

    def server(self) -> Certificate:
        return self.issue(SERVICE, dns_name=SERVER_NAME)

    def renewed(self) -> Certificate:
        """Another certificate for the server."""
        return self.naming(x509.UniformResourceIdentifier(str(SERVICE)), x509.DNSName(SERVER_NAME))

    def naming(self, *names: x509.GeneralName) -> Certificate:
        """A client certificate with these subject alternative names."""
        self._count += 1
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), key.public_key())
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        cert = builder.sign(self._key, hashes.SHA256())
        stem = self.ca_file.parent / f"named-{self._count}"
        files = stem.with_suffix(".pem"), stem.with_suffix(".key")
        files[0].write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Certificate(*files, self.ca_file)


def presented(port: int) -> int:
    """The serial number of the certificate that a handshake is answered with."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=PATIENCE)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial(certificate: Certificate) -> int:
    """The serial number of a certificate."""
    return x509.load_pem_x509_certificate(certificate.cert_file.read_bytes()).serial_number


def expiry(certificate: Certificate) -> float:
    """When a certificate expires, in seconds since the epoch."""
    pem = certificate.cert_file.read_bytes()
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def replace_file(old: Path, content: bytes) -> None:
    """Change a file at once, as a careful writer does."""
    fresh = old.with_name(f".{old.name}.new")
    fresh.write_bytes(content)
    fresh.replace(old)


# -- clients -----------------------------------------------------------------------------------


class Client:
    """Speaks to one server, as an Envoy does."""

    def __init__(self, channel: aio.Channel) -> None:
        self.channel = channel
        self._check = self.method(f"/{AUTHORIZATION}/Check")
        self._health = self.method(f"/{HEALTH}/Check")

    def method(self, path: str) -> Callable[..., Awaitable[bytes]]:
        return self.channel.unary_unary(path)

    def watch(self, service: str = "") -> Any:
        request = HealthCheckRequest(service=service).SerializeToString()
        return self.stream(f"/{HEALTH}/Watch", request)

    def stream(self, path: str, request: bytes) -> Any:
        call: Any = self.channel.unary_stream(path)
        return call(request)

    async def ask(self, request: bytes, metadata: Mapping[str, str] | Sequence[Any]) -> bytes:
        pairs = tuple(metadata.items()) if isinstance(metadata, Mapping) else tuple(metadata)
        return await self._check(request, metadata=pairs, timeout=PATIENCE)

    async def check(self, question: str, request: bytes = b"", /, **metadata: str) -> CheckResponse:
        named = {f"x-authz-{key}": value for key, value in metadata.items()}
        return CheckResponse.FromString(
            await self.ask(request, {"x-authz-question": question, **named})
        )

    async def health(self, service: str = "") -> str:
        request = HealthCheckRequest(service=service).SerializeToString()
        answer = await self._health(request, timeout=PATIENCE)
        status = HealthCheckResponse.FromString(answer).status
        return HealthCheckResponse.ServingStatus.Name(status)


@asynccontextmanager
async def connected(
    port: int, certificate: Certificate | None = None, *, trusting: Path | None = None
) -> AsyncIterator[Client]:
    """A client on a connection of its own."""
    options = [
        ("grpc.ssl_target_name_override", SERVER_NAME),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
    ]
    address = f"127.0.0.1:{port}"
    if certificate is None and trusting is None:
        channel = aio.insecure_channel(address, options)
    else:
        roots = trusting or (Path() if certificate is None else certificate.ca_file)
        pair = (
            (None, None)
            if certificate is None
            else (certificate.key_file.read_bytes(), certificate.cert_file.read_bytes())
        )
        credentials = grpc.ssl_channel_credentials(roots.read_bytes(), *pair)
        channel = aio.secure_channel(address, credentials, options)
    async with channel:
        yield Client(channel)


async def refused(call: Awaitable[object]) -> grpc.StatusCode:
    """The status with which a call fails."""
    try:
        await call
    except aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    raise AssertionError("the call was answered")


def outcome(answer: CheckResponse) -> str:
    """What an answer says: `allowed`, or the word of a denial."""
    if answer.status.code == 0:
        return "allowed"
    (header,) = answer.denied_response.headers
    return header.header.value


def token_in(answer: CheckResponse) -> str:
    """The token that an answer to sign sets."""
    (header,) = answer.ok_response.headers
    return header.header.value


def http_get(url: str) -> tuple[int, str]:
    """Status and body of an HTTP resource."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# -- processes ---------------------------------------------------------------------------------


def environment(**extra: str) -> dict[str, str]:
    """An environment without settings of ours but these."""
    return {**service.environment(), "COLUMNS": "200", "NO_COLOR": "1", **extra}


def authz(
    *arguments: str, given: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, in a process of its own."""
    return subprocess.run(
        [*service.COMMAND, *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        env=environment(**env),
        timeout=PATIENCE * 2,
        check=False,
    )


class Folder(KeyFiles):
    """A folder with all that a server needs: certificates, KEK, policy, store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.issuer = Issuer(path / "ca")
        self.certificate = self.issuer.server()
        self.kek_file.write_text(KEK)
        self.kek_file.chmod(0o600)
        self.policy_file = path / "policy.yaml"
        self.policy_file.write_text("grants: []\n")

    def settings(self, **changed: str | None) -> dict[str, str]:
        """Settings for a server, without those that are changed to `None`."""
        values = {
            **self.key_settings,
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            **self.certificate.settings,
            "policy_file": str(self.policy_file),
            "drain_seconds": "0",
            "grace_seconds": "1",
            **changed,
        }
        return {name: value for name, value in values.items() if value is not None}

    def flags(self, **changed: str | None) -> list[str]:
        """The same as flags for `authz serve`."""
        values = self.settings(**changed)
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]

    def keys(self, *arguments: str) -> Any:
        """Run `authz keys` on the store; its JSON."""
        done = authz(
            "keys", *arguments, "--store", self.store, "--kek-files", str(self.kek_file), "--json"
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def workload(self, namespace: str, service_account: str = "default") -> Certificate:
        """A certificate for a workload."""
        return self.issuer.issue(SpiffeId.parse(str(workload(namespace, service_account))))


class Process:
    """`authz serve` in a process of its own, with everything that it says."""

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str],
        before: Callable[[], None] | None = None,
        /,
        **env: str,
    ) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [*service.COMMAND, "serve", *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(**env),
                preexec_fn=before,  # noqa: PLW1509 - sets limits of the process, nothing else
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of one kind."""
        whole = self.stdout.rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    def line(self, event: str, number: int = 1) -> dict[str, Any]:
        """Wait for a log line, or for the so-manieth of its kind."""

        def said() -> dict[str, Any] | None:
            lines = self.lines(event)
            assert len(lines) >= number or self.popen.poll() is None, self.stderr
            return lines[number - 1] if len(lines) >= number else None

        return at_last(said, f"{event!r} is logged")

    @property
    def port(self) -> int:
        return int(self.line("listening")["port"])

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.line('listening')['http_port']}"

    def ready(self) -> Self:
        """Wait until it is."""
        at_last(lambda: http_get(f"{self.http}/readyz")[0] == 200, "the server is ready")
        return self

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        return self.popen.wait(PATIENCE)


@contextmanager
def serving(
    folder: Path, flags: Sequence[str], before: Callable[[], None] | None = None, /, **env: str
) -> Iterator[Process]:
    """Run a server until the end of the block. `before` is called in its process."""
    process = Process(folder, flags, before, **env)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait(PATIENCE)
