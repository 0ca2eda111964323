"""Files in place of the secrets that a recorded proxy names."""

from __future__ import annotations

from pathlib import Path

from authz.lab.recordings import Files

FILES = Files(Path("/cert"), Path("/key"))

SECRETS = {
    "default": FILES,
    "ROOTCA": Files(authority=Path("/ca")),
    "kubernetes://public": FILES,
}
