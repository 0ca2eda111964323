"""TLS files: read together, proven to fit before anything uses them."""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from authz.domain.identity import SpiffeId, workload_of_uris
from authz.errors import BadSettings
from authz.yamlfile import read_input

_MOST: Final = 16 << 20  # bytes of a file of certificates


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where certificate chain, private key and client roots are, all PEM."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """Their content, PEM."""

    cert: bytes
    key: bytes = field(repr=False)
    ca: bytes

    @property
    def expires(self) -> float:
        """When the chain is no longer good, in seconds since the epoch."""
        chain = x509.load_pem_x509_certificates(self.cert)
        return min(certificate.not_valid_after_utc.timestamp() for certificate in chain)

    @property
    def identity(self) -> SpiffeId | None:
        """The SPIFFE ID in the certificate, `None` where it names none."""
        leaf, *_ = x509.load_pem_x509_certificates(self.cert)
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return workload_of_uris(names.get_values_for_type(x509.UniformResourceIdentifier))
        except (x509.ExtensionNotFound, ValueError):
            return None


def load_tls(files: TlsFiles) -> TlsMaterial:
    """Read the files and check that they make a server.

    Raises:
        BadSettings: a file cannot be read or holds something else, or key and certificate are not
            of one pair.
    """
    material = TlsMaterial(
        cert=_read("tls_cert_file", files.cert),
        key=_read("tls_key_file", files.key),
        ca=_read("tls_ca_file", files.ca),
    )
    chain = _certificates("tls_cert_file", files.cert, material.cert)
    _certificates("tls_ca_file", files.ca, material.ca)
    try:
        key = load_pem_private_key(material.key, password=None)
    except (ValueError, TypeError):
        raise BadSettings(
            [f"tls_key_file: {files.key} holds no private key in PEM without a passphrase"]
        ) from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != chain[0].public_key().public_bytes(*form):
        problem = f"tls_key_file: {files.key} is not the key of {files.cert}: give both of one pair"
        raise BadSettings([problem])
    try:
        server_context(material)
    except (ssl.SSLError, ValueError) as error:  # such as a key that is too short
        problem = f"tls_cert_file, tls_key_file, tls_ca_file: OpenSSL rejects these files: {error}"
        raise BadSettings([problem]) from None
    return material


def server_context(material: TlsMaterial) -> ssl.SSLContext:
    """A context for a server that demands client certificates and speaks HTTP/2 alone.

    A session that is resumed keeps the verdict of roots that may be gone since. So there are no
    tickets; what TLS 1.2 resumes by session id, OpenSSL keeps in the context, and it goes with it.

    Any certificate among the roots is an anchor, as to Envoy and Go: what some issuers hand out as
    the root is the certificate authority below it.

    Ciphers are those that RFC 9113 (9.2.2) leaves of TLS 1.2; TLS 1.3 has no others.

    Raises:
        ssl.SSLError: OpenSSL does not accept the material.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["h2"])
    # Comments between certificates may be in any language.
    context.load_verify_locations(cadata=material.ca.decode("ascii", "ignore"))
    # OpenSSL reads keys from files only, and a key should not reach a disk.
    with os.fdopen(os.memfd_create("tenant-authz"), "wb") as pair:
        pair.write(material.cert + b"\n" + material.key)
        pair.flush()
        context.load_cert_chain(f"/proc/self/fd/{pair.fileno()}")
    return context


def _read(name: str, path: Path) -> bytes:
    try:
        return read_input(path, _MOST)
    except OSError as error:
        raise BadSettings([f"{name}: {path}: {error.strerror}"]) from None


def _certificates(name: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadSettings([f"{name}: {path} holds no certificate in PEM"]) from None
