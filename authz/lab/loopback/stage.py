"""The stage on which scenarios are played."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from authz.lab.harness.service import AuthzServer
from authz.lab.loopback.mesh import Mesh


@dataclass(frozen=True)
class Stage:
    """What a scenario may touch; `loot` is what has leaked so far."""

    mesh: Mesh
    authz: AuthzServer
    directory: Path
    loot: dict[str, str] = field(default_factory=dict)
