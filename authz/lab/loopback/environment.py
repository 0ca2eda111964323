"""What scenarios run in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from authz.lab.harness.service import AuthzServer
from authz.lab.loopback.mesh import Mesh


@dataclass(frozen=True)
class Environment:
    """What a scenario may touch; `leaked` is what has leaked so far."""

    mesh: Mesh
    authz: AuthzServer
    directory: Path
    leaked: dict[str, str] = field(default_factory=dict)
