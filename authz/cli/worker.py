"""One worker, `python -m authz.cli.worker`: the supervisor starts it, nobody types it.

Its standard input is the line to the supervisor.
"""

import socket
import sys

from authz.cli.output import exits
from authz.cli.streams import guard
from authz.server import run
from authz.server.workers import Link


def main() -> None:
    """Serve until the supervisor says that it is enough, or is gone."""
    link = Link(socket.socket(fileno=sys.stdin.fileno()))
    guard()
    with exits():
        run(link.settings, link)


if __name__ == "__main__":
    main()
