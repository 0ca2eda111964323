"""TLS files: whatever is wrong with them is told by the setting's name, with the way out."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authz.errors import BadSettings
from authz.transport import TlsFiles, load_tls
from tests.support.certificates import Issuer


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    certificate = Issuer(tmp_path / "ca").server()
    return TlsFiles(certificate.cert_file, certificate.key_file, certificate.ca_file)


def problem(files: TlsFiles) -> str:
    with pytest.raises(BadSettings) as caught:
        load_tls(files)
    (text,) = caught.value.problems
    return text


def test_good_files_are_read(files: TlsFiles) -> None:
    material = load_tls(files)
    assert material.cert == files.cert.read_bytes()
    assert material.key == files.key.read_bytes()
    assert material.ca == files.ca.read_bytes()


def test_the_private_key_is_not_shown(files: TlsFiles) -> None:
    body = files.key.read_text().splitlines()[1]
    assert body not in repr(load_tls(files))


@pytest.mark.parametrize("name", ["cert", "key", "ca"])
def test_a_missing_file_is_told_by_its_setting(files: TlsFiles, name: str) -> None:
    path = getattr(files, name)
    path.unlink()
    assert problem(files) == f"tls_{name}_file: {path}: No such file or directory"


@pytest.mark.parametrize("name", ["cert", "ca"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\x00", b"-----BEGIN CERTIFICATE-----"])
def test_a_file_without_certificate_is_told(files: TlsFiles, name: str, content: bytes) -> None:
    path = getattr(files, name)
    path.write_bytes(content)
    assert problem(files) == f"tls_{name}_file: {path} holds no certificate in PEM"


def test_a_file_without_key_is_told_and_not_quoted(files: TlsFiles) -> None:
    files.key.write_text("my-secret")
    assert problem(files) == (
        f"tls_key_file: {files.key} holds no private key in PEM without a passphrase"
    )


def test_a_key_with_a_passphrase_is_told(files: TlsFiles) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"pass"),
        )
    )
    assert "without a passphrase" in problem(files)


def test_a_key_of_another_certificate_is_told(files: TlsFiles, tmp_path: Path) -> None:
    other = Issuer(tmp_path / "other").server()
    files.key.write_bytes(other.key_file.read_bytes())
    assert problem(files) == (
        f"tls_key_file: {files.key} is not the key of {files.cert}: give both of one pair"
    )
