"""All attacks on the admission policies that ship."""

from __future__ import annotations

from typing import Final

from tests.admission.rows import Row
from tests.admission.table import controllers, hosts, namespaces, pods, services

ROWS: Final[list[Row]] = [
    *pods.ROWS,
    *services.ROWS,
    *hosts.ROWS,
    *namespaces.ROWS,
    *controllers.ROWS,
]
