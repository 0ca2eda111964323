import base64
import os
from pathlib import Path

import pytest

from authz.errors import KeyStoreError
from authz.keystore import Kek, Keks, generate_kek_file, parse_kek, read_kek_file
from tests.keystore.support import KEK, NEW_KEK, NOBODY

TEXT = base64.b64encode(KEK.secret).decode()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def test_an_id_tells_keks_apart_and_shows_nothing() -> None:
    assert KEK.id == Kek(KEK.secret).id != NEW_KEK.id
    assert repr(KEK) == f"Kek(id='{KEK.id}')"
    assert repr(Keks(KEK)) == f"Keks({KEK.id})"
    assert Kek.generate() != Kek.generate()


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_kek_has_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match=f"32 bytes, not {length}"):
        Kek(bytes(length))


def test_keks_are_a_set() -> None:
    keks = Keks(KEK, NEW_KEK, KEK)
    assert KEK in keks
    assert Kek.generate() not in keks
    assert keks.find(NEW_KEK.id) is NEW_KEK
    assert keks.find("ffffffff") is None
    assert str(keks) == str(Keks(NEW_KEK, KEK))
    assert Keks(KEK, Kek(KEK.secret)).only() == KEK


def test_no_kek_at_all_is_an_error_that_tells_how_to_make_one() -> None:
    with pytest.raises(KeyStoreError, match="openssl rand -base64 32"):
        Keks()


@pytest.mark.parametrize("text", [TEXT, f"{TEXT}\n", f"  {TEXT}\r\n"])
def test_a_kek_is_read_from_text(text: str) -> None:
    assert parse_kek(text, source="environment variable NAME") == KEK


@pytest.mark.parametrize(
    "text",
    ["", "\n", TEXT[:-1], TEXT[:-4], TEXT + TEXT, f"{TEXT}\n{TEXT}", f"{TEXT}é", f"*{TEXT}",
     KEK.secret.hex(), TEXT.replace("=", "")],
)  # fmt: skip
def test_what_is_no_kek_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(KeyStoreError, match="environment variable NAME does not hold") as caught:
        parse_kek(text, source="environment variable NAME")
    assert TEXT[:8] not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_generated_file_is_private_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    before = os.umask(0)
    try:
        kek = generate_kek_file(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_kek_file(path) == kek


def test_a_kek_file_is_never_overwritten(tmp_path: Path) -> None:
    kek = generate_kek_file(tmp_path / "kek")
    with pytest.raises(KeyStoreError, match="may hold a KEK in use: choose another path"):
        generate_kek_file(tmp_path / "kek")
    assert read_kek_file(tmp_path / "kek") == kek


def test_a_kek_file_that_cannot_be_written_or_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(KeyStoreError, match="cannot be written: No such file or directory"):
        generate_kek_file(tmp_path / "nowhere" / "kek")
    with pytest.raises(KeyStoreError, match="does not exist: make one"):
        read_kek_file(tmp_path / "kek")
    with pytest.raises(KeyStoreError, match="cannot be read: Is a directory"):
        read_kek_file(tmp_path)
    (tmp_path / "long").write_bytes(b"A" * 100_000)
    (tmp_path / "long").chmod(0o600)
    with pytest.raises(KeyStoreError, match="does not hold a KEK"):
        read_kek_file(tmp_path / "long")


def test_a_pipe_is_no_kek_file_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyStoreError, match="pipe is not a regular file: name one that is"):
        read_kek_file(tmp_path / "pipe")


def test_a_full_disk_leaves_no_part_of_a_kek_file(small_disk: Path) -> None:
    path = fill(small_disk)
    with pytest.raises(KeyStoreError, match="kek cannot be written: No space left"):
        generate_kek_file(path)
    assert not path.exists()
    (small_disk / "filler").unlink()
    assert generate_kek_file(path) == read_kek_file(path)


def test_without_removing_it_a_part_would_be_in_the_way(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", lambda _: None)
    with pytest.raises(KeyStoreError, match="No space left"):
        generate_kek_file(fill(small_disk))
    with pytest.raises(KeyStoreError, match="exists already and may hold a KEK in use"):
        generate_kek_file(small_disk / "kek")


def fill(disk: Path) -> Path:
    with pytest.raises(OSError, match="No space left"):
        (disk / "filler").write_bytes(bytes(1 << 20))
    return disk / "kek"


@pytest.mark.parametrize("mode", [0o602, 0o604, 0o620, 0o601, 0o777, 0o660])
def test_a_kek_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "kek"
    generate_kek_file(path)
    path.chmod(mode)
    with pytest.raises(KeyStoreError, match=f"mode {mode:04o}, so that others can use it: set"):
        read_kek_file(path)


@needs_root
def test_a_group_may_read_the_file_only_where_root_owns_it(tmp_path: Path) -> None:
    path = tmp_path / "kek"
    kek = generate_kek_file(path)
    path.chmod(0o440)
    assert read_kek_file(path) == kek
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(KeyStoreError, match="set 0600 or less"):
        read_kek_file(path)
