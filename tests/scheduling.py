"""Which tests share a worker: those that share something that takes long to start."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    import pytest
    from xdist.remote import Producer

TOGETHER: Final = {
    "tests/attacks/test_box.py": "attacks",
    "tests/doctor/test_box.py": "mesh in a box",
    "tests/admission/": "control plane",
    "tests/conformance/": "mesh in a box",
    "tests/kube/": "installed",
    "tests/mesh/": "mesh in a box",
    "tests/oracle/test_oracle.py": "oracle",
    "tests/paths/": "mesh in a box",
    "tests/image/": "engine",
    "tests/loadtest/": "measurements",  # one at a time
}


class Together(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives each worker a test after the other, and what belongs together to one worker."""

    def _split_scope(self, nodeid: str) -> str:
        return next((it for start, it in TOGETHER.items() if nodeid.startswith(start)), nodeid)


def scheduler(config: pytest.Config, log: Producer) -> Together:
    """What pytest-xdist distributes tests by."""
    return Together(config, log)
