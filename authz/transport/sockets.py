"""Sockets to listen on: TCP, and Unix ones in the file system."""

import errno
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

_BACKLOG: Final = 1024
_MODE: Final = 0o660
_KERNEL: Final = 32_768
"""Bytes that the kernel may keep of either direction of a connection, which it doubles, instead of
the megabytes to which it would grow. Its room counts towards the memory of our container, and what
one read brings to what TLS has to keep."""


def every_address() -> str:
    """The host that stands for every address: `::`, which takes IPv4, too, where there is IPv6."""
    try:
        with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True):
            return "::"
    except (OSError, ValueError):  # no IPv6 in this kernel, or in this network namespace
        return "0.0.0.0"  # noqa: S104 - it is what was asked for


def listen_tcp(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Listen on a TCP address; `::` takes IPv4, too. With `reuse_port` several processes may.

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server(
            (host, port),
            family=family,
            backlog=_BACKLOG,
            reuse_port=reuse_port,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:  # whose text repeats the address
        raise OSError(error.errno, str(error.strerror).partition(" (while")[0]) from None
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KERNEL)  # accepted sockets inherit it
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _KERNEL)
    bound.setblocking(False)
    return bound


def listen_unix(path: Path) -> socket.socket:
    """Listen on a path, readable and writable for our user and group.

    A socket that nobody listens on any more is replaced, nothing else is.

    Raises:
        OSError: the path is in use, or not ours to write.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        bound.bind(str(path))
        path.chmod(_MODE)  # nobody can connect before we listen
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise OSError(error.errno or errno.ENAMETOOLONG, error.strerror or str(error)) from None
    return bound


def remove_unix(path: Path) -> None:
    """Remove the path of a socket that is closed, unless another process listens there by now."""
    with suppress(OSError):
        _remove_stale(path)


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or not _is_refused(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink()


def _is_refused(path: Path) -> bool:
    """Whether nobody listens on this socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        return client.connect_ex(str(path)) == errno.ECONNREFUSED
