"""Settings: one name each, in the settings file, in the environment and as a flag.

`drain_seconds` in the file is `AUTHZ_DRAIN_SECONDS` in the environment and `--drain-seconds` as a
flag. Flags win over the environment, that over the file. All problems are told at once.
"""

import enum
import ipaddress
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from authz.domain.identity import SpiffeId
from authz.domain.keys import TokenLife
from authz.domain.verdict import Reuse
from authz.policysource.location import ConfigMapKey
from authz.wire import TOKEN_HEADER
from authz.yamlfile import text_like

PREFIX: Final = "AUTHZ_"
EVERY_ADDRESS: Final = "*"
_LONGEST_PATH: Final = 107  # of a Unix socket; unix(7)

# Kubernetes gives every pod beside a Service named `authz` the variables AUTHZ_PORT, AUTHZ_PORT_*
# and AUTHZ_SERVICE_*: no setting may be named so, and unknown variables cannot be errors.


class Transport(enum.StrEnum):
    """What speaks HTTP/2."""

    HTTP2 = "http2"
    """Our own, made for this work."""
    GRPCIO = "grpcio"
    """grpcio's server: the reference, many times slower."""


class IdentitySource(enum.StrEnum):
    """Where the identity of whoever asks comes from."""

    MTLS = "mtls"
    """The client certificate of the connection."""
    XFCC = "xfcc"
    """The header x-forwarded-client-cert, set by our own sidecar, which ends TLS."""
    INSECURE_METADATA = "insecure-metadata-for-development-only"
    """The metadata x-authz-insecure-caller: whoever asks may claim anything."""


class Endpoint(NamedTuple):
    """A TCP address to listen on. Port 0 takes a free one; host `*` is every address, IPv6 too."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `host:port`, with an IPv6 host in brackets; `*:port` or `:port` is every address."""
        host, colon, port = str(text).rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and int(port[:6]) < 65536):
            raise ValueError(
                "write it as host:port, such as 127.0.0.1:9000 or [::1]:9000; *:9000 is every "
                "address, IPv4 and IPv6"
            )
        return cls(host.removeprefix("[").removesuffix("]") or EVERY_ADDRESS, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this host, or this pod, can reach it."""
        try:
            address = ipaddress.ip_address(self.host)
            # Pythons disagree on IPv4 within IPv6.
            return address.is_loopback and getattr(address, "ipv4_mapped", None) is None
        except ValueError:
            return self.host == "localhost"


class UnixSocket(NamedTuple):
    """A Unix socket to listen on, for clients of our user or group."""

    path: Path

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `unix:/path`."""
        name = text.removeprefix("unix:")
        if not name.startswith("/") or "\0" in name:
            raise ValueError("write a Unix socket as unix: and an absolute path")
        if len(os.fsencode(name)) > _LONGEST_PATH:
            raise ValueError(f"the path of a Unix socket has at most {_LONGEST_PATH} bytes")
        return cls(Path(name))

    def __str__(self) -> str:
        return f"unix:{self.path}"

    @property
    def is_loopback(self) -> bool:
        """See `Endpoint.is_loopback`."""
        return True


def _config_map_key(value: object) -> object:
    return ConfigMapKey.parse(value) if isinstance(value, str) else value


def _endpoint(value: object) -> Endpoint:
    return value if isinstance(value, Endpoint) else Endpoint.parse(value)


def _address(value: object) -> Endpoint | UnixSocket:
    if isinstance(value, UnixSocket):
        return value
    if isinstance(value, str) and value.startswith("unix:"):
        return UnixSocket.parse(value)
    return _endpoint(value)


def _words(value: object) -> object:
    return [word for word in value.split(",") if word] if isinstance(value, str) else value


_header = re.compile(r"x(-[a-z0-9]+)+")


def _header_name(value: object) -> str:
    name = str(value).lower()
    if _header.fullmatch(name) is None:
        raise ValueError("use letters, digits and '-', beginning with 'x-'")
    if name.startswith(("x-envoy-", "x-b3-", "x-forwarded-")) or name == "x-request-id":
        raise ValueError("Envoy keeps headers of this name for itself: choose another")
    return name


_Endpoint = Annotated[Endpoint, NoDecode, BeforeValidator(_endpoint), text_like(r".*:[0-9]+")]
_Address = Annotated[
    Endpoint | UnixSocket, NoDecode, BeforeValidator(_address), text_like(r"unix:/.+|.*:[0-9]+")
]
_ConfigMap = Annotated[
    ConfigMapKey | None, NoDecode, BeforeValidator(_config_map_key), text_like("[^/]+/[^/]+/[^/]+")
]
_Seconds = Annotated[int, Field(ge=0, le=86400)]


class KeySettings(BaseSettings):
    """What keeping keys and making tokens needs. The description of each field is its help text."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        case_sensitive=False,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    store: Annotated[
        str,
        Field(
            description="the key store: sqlite:PATH, or kubernetes:NAMESPACE/NAME, a Secret that "
            "many machines share"
        ),
    ] = "sqlite:/var/lib/tenant-authz/keys.db"
    kek_files: Annotated[
        list[Path],
        NoDecode,
        BeforeValidator(_words),
        WithJsonSchema(
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
        ),
        Field(description="key-encryption keys that unseal the store: files, comma-separated"),
    ] = []
    kek: Annotated[
        SecretStr | None,
        Field(description="one key-encryption key itself, base64; from the environment only"),
    ] = None
    token_seconds: Annotated[int, Field(ge=60, le=86400, description="lifetime of a token")] = 720
    clock_leeway_seconds: Annotated[
        int,
        Field(ge=0, le=300, description="largest difference between the clocks of two replicas"),
    ] = 30
    longest_request_seconds: Annotated[
        _Seconds,
        Field(
            description="longest time that a request waits for its pod: at least Knative's "
            "max-revision-timeout-seconds"
        ),
    ] = 600

    @property
    def token_life(self) -> TokenLife:
        """The settings that say how long a token is good."""
        return TokenLife(self.token_seconds, self.clock_leeway_seconds)

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        problems = list(self._contradictions())
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        """What each setting allows and all of them together do not."""
        life = self.token_life
        least = self.longest_request_seconds + life.leeway + life.reuse
        if self.token_seconds < least:
            yield (
                f"token_seconds: {self.token_seconds} is too short: a request may wait "
                f"{self.longest_request_seconds} s on its way, so set at least {least}, which is "
                f"longest_request_seconds + clock_leeway_seconds + {life.reuse} s for which a "
                "token is given out again"
            )


class Settings(KeySettings):
    """Everything that a server needs."""

    listen: Annotated[
        _Address,
        Field(
            description="address of the gRPC service: host:port, *:port for every address, IPv4 "
            "and IPv6, or unix:/path (mode 0660)"
        ),
    ] = Endpoint("127.0.0.1", 9000)
    http_listen: Annotated[
        _Endpoint,
        Field(description="address of /metrics, /healthz and /readyz: host:port, or *:port"),
    ] = Endpoint("127.0.0.1", 9001)
    identity: Annotated[
        IdentitySource,
        Field(
            description="where the caller's identity comes from: mtls (its client certificate) or "
            "xfcc (the header of our own sidecar)"
        ),
    ] = IdentitySource.MTLS
    tls_cert_file: Annotated[
        Path | None,
        Field(description="mtls: our certificate chain, PEM; followed while the server runs"),
    ] = None
    tls_key_file: Annotated[Path | None, Field(description="mtls: its private key, PEM")] = None
    tls_ca_file: Annotated[
        Path | None, Field(description="mtls: trust anchors for client certificates, PEM")
    ] = None
    own_id: Annotated[
        str | None, Field(description="xfcc: the SPIFFE ID of our own sidecar, found in By=")
    ] = None
    policy_file: Annotated[
        Path | None,
        Field(
            description="policy file, YAML; without a policy every namespace is a tenant of its own"
        ),
    ] = None
    policy_configmap: Annotated[
        _ConfigMap,
        Field(
            description="in place of policy_file: NAMESPACE/NAME/KEY of a ConfigMap, which is "
            "watched"
        ),
    ] = None
    policy_kept_file: Annotated[
        Path | None,
        Field(
            description="where the last good policy is kept, for a restart that finds only a bad "
            "one; in a pod on a volume of its own"
        ),
    ] = None
    policy_kept_seconds: Annotated[
        int,
        Field(
            ge=60,
            le=2_592_000,
            description="how long ago a kept policy may have been seen in force, to be used",
        ),
    ] = 604_800
    policy_from_cluster: Annotated[
        bool, Field(description="add namespace labels and Grant objects to the policy")
    ] = False
    token_header: Annotated[
        str,
        BeforeValidator(_header_name),
        Field(description="request header that carries the token; the filters must name the same"),
    ] = TOKEN_HEADER
    log_allows: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="share of allows that are logged, chosen by chance, 100 lines a second at "
            "most; 0: none, 1: all; denials are always logged",
        ),
    ] = 0
    drain_seconds: Annotated[
        _Seconds,
        Field(description="after SIGTERM, time to go on as unready while Envoys move away"),
    ] = 5
    grace_seconds: Annotated[
        _Seconds, Field(description="after that, time for running Checks to end")
    ] = 5
    transport: Annotated[
        Transport, Field(description="http2 (our own) or grpcio (the reference, slower)")
    ] = Transport.HTTP2
    workers: Annotated[
        int,
        Field(
            ge=1,
            le=256,
            description="processes that share the port; each limit holds for one process",
        ),
    ] = 1
    max_streams: Annotated[
        int, Field(ge=1, le=100_000, description="concurrent Checks on one connection")
    ] = 1000
    max_message_bytes: Annotated[
        int, Field(ge=1024, le=16_777_216, description="largest CheckRequest")
    ] = 65_536
    max_connection_age_seconds: Annotated[
        int,
        Field(
            ge=60,
            description="age at which a connection is asked to end (GOAWAY); Envoy's own limit "
            "should be lower",
        ),
    ] = 3600
    max_connections: Annotated[int, Field(ge=1, description="concurrent connections")] = 20_000
    max_connections_per_namespace: Annotated[
        int, Field(ge=1, description="concurrent connections of one namespace; not for xfcc")
    ] = 2000
    max_handshakes: Annotated[
        int, Field(ge=1, description="concurrent TLS handshakes; above it the oldest is dropped")
    ] = 1024
    handshake_seconds: Annotated[
        int, Field(ge=1, le=600, description="how long a TLS handshake may take")
    ] = 10
    idle_seconds: Annotated[
        int, Field(ge=1, description="idle time after which a connection is asked to end (GOAWAY)")
    ] = 900
    request_seconds: Annotated[
        int, Field(ge=1, le=600, description="how long a request may take to arrive in full")
    ] = 10
    max_checks_per_second: Annotated[
        int,
        Field(
            ge=0,
            description="how fast the workloads of one namespace are read, so that others have "
            "their turn; they have half a core at most, too; 0: neither limit; not for xfcc",
        ),
    ] = 20_000
    reuse_sign_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=300,
            description="how long a sidecar with the filters of components/reuse puts the same "
            "token on calls without asking; 30 is good, 0: it asks about each",
        ),
    ] = 0
    reuse_verify_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=60,
            description="how long sidecars with these filters let the same peer and token in "
            "without asking, so how much longer a revocation may take; 2 is good, 0: they ask",
        ),
    ] = 0
    max_buffered_bytes: Annotated[
        int,
        Field(
            ge=4_194_304,
            description="memory for partly received requests and unread responses, all "
            "connections together; above it those that hold most are closed",
        ),
    ] = 134_217_728

    @property
    def token_life(self) -> TokenLife:
        """The settings that say how long a token is good.

        Where proxies keep tokens, each is made at the beginning of a step, given out until the next
        and kept for as long again: only then do all replicas and pods show one and the same.
        """
        life, step = super().token_life, self.reuse_sign_seconds
        if not step:
            return life
        return TokenLife(life.seconds, life.leeway, max(life.reuse, 2 * step), step)

    @property
    def reuse(self) -> Reuse:
        """For how long proxies may give answers again."""
        return Reuse(self.reuse_sign_seconds, self.reuse_verify_seconds)

    @property
    def policy_origin(self) -> str:
        """Where the policy comes from, for the log."""
        if self.policy_configmap is not None:
            return f"ConfigMap {self.policy_configmap}"
        return str(self.policy_file or "default: every namespace on its own")

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        yield from self._contradicting_policies()
        if isinstance(self.listen, UnixSocket):
            yield from self._too_much_for_a_unix_socket()
        match self.identity:
            case IdentitySource.MTLS:
                for name in ("tls_cert_file", "tls_key_file", "tls_ca_file"):
                    if getattr(self, name) is None:
                        yield f"{name}: identity mtls needs it: name a PEM file"
            case IdentitySource.XFCC:
                yield from self._open_to_others("who could set x-forwarded-client-cert themselves")
                try:
                    SpiffeId.parse(self.own_id or "")
                except ValueError as error:
                    yield f"own_id: identity xfcc needs it: {error}"
            case IdentitySource.INSECURE_METADATA:
                yield from self._open_to_others("and this identity believes anybody")
                if "KUBERNETES_SERVICE_HOST" in os.environ:
                    yield (
                        f"identity: {self.identity} believes anybody and never runs in "
                        "Kubernetes: use mtls"
                    )

    def _contradicting_policies(self) -> Iterator[str]:
        if self.policy_file is not None and self.policy_configmap is not None:
            yield (
                f"policy_configmap: policy_file is set, too ({self.policy_file}), and there is one "
                "policy: remove one of the two"
            )
        if (
            self.policy_kept_file is not None
            and self.policy_file is not None
            and self.policy_kept_file.absolute().resolve() == self.policy_file.absolute().resolve()
        ):
            yield (
                f"policy_kept_file: {self.policy_kept_file} is policy_file, which no server "
                "writes: name another file"
            )

    def _too_much_for_a_unix_socket(self) -> Iterator[str]:
        if self.workers > 1:
            yield (
                f"workers: {self.workers} processes cannot share {self.listen}: have one, or "
                "listen on host:port"
            )
        if self.transport is Transport.GRPCIO:
            yield "transport: grpcio listens on host:port only: use http2 for a Unix socket"

    def _open_to_others(self, danger: str) -> Iterator[str]:
        if not self.listen.is_loopback:
            yield (
                f"listen: {self.listen} is open to others, {danger}: with identity "
                f"{self.identity} listen on 127.0.0.1 or a Unix socket"
            )
