"""What starts the service for demo, box, load and tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from authz.lab.harness.keyfiles import KeyFiles
from authz.lab.harness.service import environment


@pytest.mark.parametrize("name", ["AUTHZ_TRANSPORT", "authz_transport", "Authz_Transport"])
def test_no_setting_of_who_runs_it_reaches_a_server(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Settings are read whatever their case."""
    monkeypatch.setenv(name, "grpcio")
    monkeypatch.setenv("OTHER", "stays")
    made = environment({"listen": "127.0.0.1:0"})
    assert [key for key in made if key.upper().startswith("AUTHZ_")] == ["AUTHZ_LISTEN"]
    assert made["OTHER"] == "stays"


async def test_keys_are_made_once_and_changed_in_place(tmp_path: Path) -> None:
    keys = KeyFiles(tmp_path)
    made = await keys.make_keys(1_800_000_000)
    assert await keys.keyring() == made
    kek = keys.kek_file.read_bytes()
    await keys.change_keys(lambda keyring: keyring)
    assert keys.kek_file.read_bytes() == kek
