"""Folders for servers: with all that they need, and without keys."""

from pathlib import Path

import pytest

from tests.server.support import GRANT, ROLES, now
from tests.support.processes import Folder


@pytest.fixture
def keyless(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.policy_file.write_text(ROLES + GRANT)
    return made


@pytest.fixture
async def folder(keyless: Folder) -> Folder:
    await keyless.make_keys(now() - 60)
    return keyless
