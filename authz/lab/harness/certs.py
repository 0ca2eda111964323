"""A throwaway certificate authority that issues what Istio's issues: X.509-SVIDs."""

from __future__ import annotations

import datetime as dt
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authz.domain.identity import SpiffeId

_LIFE: Final = dt.timedelta(days=1)
_SKEW: Final = dt.timedelta(minutes=5)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key in PEM files, and the authority's certificate beside them."""

    cert_file: Path
    key_file: Path
    ca_file: Path

    @property
    def settings(self) -> dict[str, str]:
        """The settings of a server that presents it."""
        return {
            "tls_cert_file": str(self.cert_file),
            "tls_key_file": str(self.key_file),
            "tls_ca_file": str(self.ca_file),
        }

    def client_context(self) -> ssl.SSLContext:
        """TLS as this workload would speak it without its sidecar."""
        return self._loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def sidecar_context(self) -> ssl.SSLContext:
        """The same with the ALPN of a sidecar that sends HTTP/1.1."""
        return self._loaded(_AsSidecars(ssl.PROTOCOL_TLS_CLIENT))

    def _loaded(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.check_hostname = False  # SPIFFE certificates carry no host name
        context.load_verify_locations(self.ca_file)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


class _AsSidecars(ssl.SSLContext):
    """Where plaintext is taken, too, TLS of the mesh is told by its ALPN."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Set those of sidecars, whatever a client thinks better."""
        del alpn_protocols
        super().set_alpn_protocols(["istio-http/1.1", "istio", "http/1.1"])


class Authority:
    """Signs certificates for SPIFFE IDs, as long as the demo runs.

    With `root` it is an issuing authority below that one: what it issues carries its certificate,
    and `ca_file` holds that alone.
    """

    def __init__(
        self, directory: Path, name: str = "tenant-authz demo", *, root: Authority | None = None
    ) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        directory.mkdir(mode=0o700)
        self.ca_file = directory / "ca.pem"
        signer = root or self
        builder = signer._builder(self._name, self._key.public_key())  # noqa: SLF001 - its own kind
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        builder = builder.add_extension(_usage(signs_certificates=True), True)
        certificate = _pem(builder.sign(signer._key, hashes.SHA256()))  # noqa: SLF001
        _write(self.ca_file, certificate)
        self._chain = b"" if root is None else certificate

    def issue(self, identity: SpiffeId, *, dns_name: str | None = None) -> Certificate:
        """Issue a certificate with `identity` as its one URI name and an empty subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(str(identity))]
        if dns_name is not None:
            names.append(x509.DNSName(dns_name))
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        cert = (
            self._builder(x509.Name([]), key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        stem = f"{identity.namespace}.{identity.service_account}"
        files = self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        _write(files[0], _pem(cert) + self._chain)
        _write(
            files[1],
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        return Certificate(*files, self.ca_file)

    def plug_into(self, directory: Path) -> None:
        """Write what istiod needs to sign in our name: Istio's `cacerts`, into a new folder."""
        directory.mkdir(parents=True, mode=0o700)
        certificate = self.ca_file.read_bytes()
        for name in ("ca-cert.pem", "root-cert.pem", "cert-chain.pem"):
            _write(directory / name, certificate)
        _write(
            directory / "ca-key.pem",
            self._key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            ),
        )

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)  # noqa: TID251 - certificates live by the real clock
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _LIFE)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(issuer_key, critical=False)
        )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _write(file: Path, content: bytes) -> None:
    """Write a file that only we can read, from its first moment on."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        output.write(content)
