"""What shapes change, and what that means for the calls of initech, on whom they do it.

acme-db grants it access. Its keys may be revoked, and the grant may be withdrawn and come back.
"""

from __future__ import annotations

from typing import Final

from authz.testing import NOT_ALLOWED
from loadtest.swarm.session import session

INITECH: Final = "initech"
GRANT: Final = "the grant of acme-db for initech"
KEYS: Final = "the keys of initech"


def expected(source: str, usual: str, begun: float, ended: float) -> str | None:
    """What must come of a call that took from `begun` to `ended`; None where it may be either.

    `usual` is what must, as long as nothing is changed. A call that is denied anyway stays so.
    """
    if source != INITECH:
        return usual
    if session.timeline.version(KEYS, begun, ended) is None:
        return None
    withdrawn = session.timeline.version(GRANT, begun, ended)
    if withdrawn is None and usual != NOT_ALLOWED:
        return None
    return usual if not withdrawn or withdrawn % 2 == 0 else NOT_ALLOWED
