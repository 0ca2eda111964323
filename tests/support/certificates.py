"""Certificates for servers and workloads, good ones and others."""

import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authz.lab.harness.certs import Authority, Certificate
from authz.testing import workload
from tests.support.waiting import PATIENCE

SERVER_NAME = "authz.test"
SERVICE = workload("authz-system", "authz")


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
