"""A process and its machine: the address that it binds, and what it does with signals."""

import asyncio
import signal
from collections.abc import Callable
from typing import Final

import structlog

from authz.config import EVERY_ADDRESS, Endpoint
from authz.transport import every_address

_END: Final = (signal.SIGTERM, signal.SIGINT)
_NOTED: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""By default they kill; others send them to have files read again, or logs opened anew."""


def bindable(address: Endpoint) -> Endpoint:
    """The address itself, or for `*` the one that takes every family that this machine has."""
    return Endpoint(every_address(), address.port) if address.host == EVERY_ADDRESS else address


def attend(stop: Callable[[], None], log: structlog.typing.FilteringBoundLogger) -> None:
    """Call `stop` for SIGTERM and SIGINT from now on; log the others, and go on."""
    loop = asyncio.get_running_loop()
    for number in _END:
        loop.add_signal_handler(number, stop)
    for number in _NOTED:
        loop.add_signal_handler(number, _noted, number, log)


def _noted(number: signal.Signals, log: structlog.typing.FilteringBoundLogger) -> None:
    log.info(
        "signal without effect",
        signal=number.name,
        because="policy, keys and certificate are followed, a change needs no signal; settings "
        "are read at the start only",
    )
