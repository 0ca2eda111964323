"""TLS files: read together, proven to fit before anything uses them."""

from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from authz.errors import BadSettings


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
    return material


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadSettings([f"{name}: {path}: {error.strerror}"]) from None


def _certificates(name: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise BadSettings([f"{name}: {path} holds no certificate in PEM"]) from None
