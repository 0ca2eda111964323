"""The proxy that the environment names for an API server, as Go's programs read it.

Source: golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Final

_HTTPS: Final = 443


def proxy_of_environment(host: str, port: int | None) -> str | None:
    """The URL in `HTTPS_PROXY`, unless `NO_PROXY` has the host; never for loopback."""
    proxy = _variable("HTTPS_PROXY")
    if not proxy or host == "localhost" or _passes_by(host, port or _HTTPS):
        return None
    return proxy


def _variable(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower()) or ""


def _passes_by(host: str, port: int) -> bool:
    address = _address(host)
    if address is not None and address.is_loopback:
        return True
    return any(
        _fits(entry.strip().lower(), host.lower(), port, address)
        for entry in _variable("NO_PROXY").split(",")
        if entry.strip()
    )


def _fits(
    entry: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    name = entry
    if _address(entry.strip("[]")) is None and ":" in entry:
        name, _, number = entry.rpartition(":")
        if number != str(port):
            return False
    if (other := _address(name.strip("[]"))) is not None:
        return other == address
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else f".{host}".endswith(f".{name}")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
