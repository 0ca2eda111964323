"""Asks everything, once or until it is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from authz.check import (
    accounts,
    admission,
    apiserver,
    filters,
    hops,
    istio,
    knative,
    rights,
    telemetry,
    tenants,
    webhooks,
    workload,
)
from authz.check.lines import Check, Group, Level, Line, unread
from authz.check.site import Site
from authz.errors import AuthzError
from authz.kube import KubeError, NoCluster

GROUPS: Final[Sequence[Group]] = (
    apiserver.GROUP,
    apiserver.INSTALLER,
    istio.GROUP,
    knative.GROUP,
    hops.GROUP,
    webhooks.GROUP,
    accounts.GROUP,
    rights.GROUP,
    workload.GROUP,
    telemetry.GROUP,
    accounts.MODES,
    filters.GROUP,
    admission.GROUP,
    tenants.GROUP,
)
PAUSE: Final = 5.0
"""Seconds between two tries of `--wait`."""
_FORBIDDEN: Final = "give the account that checks the right to read it"
_OTHERWISE: Final = "mend what this line says, then look again"


def asked(*, before: bool) -> list[tuple[Group, Check]]:
    """What is asked: before the installation, or of one."""
    installer = apiserver.INSTALLER
    return [
        (group, check)
        for group in GROUPS
        if (group.before if before else group is not installer)
        for check in group.checks
    ]


async def examine(site: Site) -> list[Line]:
    """Ask everything once.

    Raises:
        KubeError: the API server cannot be asked at all.
    """
    await site.server.version()
    await site.read_policy()
    return [await _line(site, group, check) for group, check in asked(before=site.before)]


async def _line(site: Site, group: Group, check: Check) -> Line:
    try:
        answer = await check.ask(site)
    except KubeError as error:
        answer = unread(str(error), _FORBIDDEN if error.status == 403 else _OTHERWISE)
    except Exception as error:  # noqa: BLE001 - objects are others', and what is odd is never ok
        what = f"an object has a form that this does not understand: {type(error).__name__}"
        answer = unread(
            what, "look at the objects that this line is about; report it if they are fine"
        )
    return Line(group.title, check, answer)


def is_well(lines: Sequence[Line]) -> bool:
    """Whether everything was read and nothing is a problem."""
    return all(line.answer.level in {Level.OK, Level.WARNING} for line in lines)


async def until_well(
    look: Callable[[], Awaitable[list[Line]]],
    seconds: float,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> list[Line]:
    """Look until all is well, or so many seconds are over; what the last look showed.

    Raises:
        AuthzError: the last look could not be made.
    """
    end = monotonic() + seconds
    while True:
        failed: AuthzError | None = None
        lines: list[Line] = []
        try:
            lines = await look()
        except NoCluster:
            raise  # nor will there be one in a moment
        except AuthzError as error:
            failed = error
        if failed is None and is_well(lines):
            return lines
        if monotonic() + PAUSE > end:
            if failed is not None:
                raise failed
            return lines
        await sleep(PAUSE)
