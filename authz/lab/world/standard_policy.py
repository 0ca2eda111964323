"""The policy that the box starts with: the shipped one, enforced, and the tenants of `cluster`."""

from __future__ import annotations

import io
from typing import Any, Final

from ruamel.yaml import YAML

from authz import envoyfilters

_TENANTS: Final[dict[str, Any]] = {
    "default_mode": "enforce",
    "tenants": {"acme": {"namespaces": ["acme-web", "acme-db"]}},
    "namespaces": {"acme-db": {"public": False}, "umbrella": {"mode": "shadow"}},
    "grants": [{"to": "acme-db", "from": "initech"}],
}


def standard_policy(**changes: Any) -> str:
    """The policy as YAML, with `changes` to its top-level fields."""
    yaml = YAML(typ="safe", pure=True)
    policy = yaml.load(envoyfilters.directory() / "policy.yaml")
    written = io.StringIO()
    yaml.dump({**policy, **_TENANTS, **changes}, written)
    return written.getvalue()
