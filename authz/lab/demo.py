"""A cluster on the loopback interface, with real Envoys, in which tenants are kept apart.

It starts the service, an Envoy for every workload and small apps behind them, plays the whole
matrix of who may call whom, and says where what it sees is not what it expects. No root, no
Docker, no cluster. As root it can do so in network namespaces, with Knative and Istio modelled in
full: see `authz.lab.box.paths`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

from authz.errors import AuthzError

__all__ = ["run"]

AS_EXPECTED: Final = 0
DIFFERENT: Final = 1
NOT_STARTED: Final = 3


def run(*, once: bool, json: bool, knative: bool = False) -> int:
    """Play the matrix, print it, and unless it is for `once` stay up until Ctrl-C.

    Args:
        once: end when the matrix is played.
        json: print the result as JSON.
        knative: in a box with Knative and Istio as they are in a cluster, which needs root.

    Returns:
        The exit code: 0 as expected, 1 not, 3 if it could not start.
    """
    try:
        # Either needs the extra `demo`.
        if knative:
            from authz.lab.box.paths.play import play  # noqa: PLC0415
        else:
            from authz.lab.loopback.play import play  # noqa: PLC0415

        return AS_EXPECTED if asyncio.run(play(once=once, json=json)) else DIFFERENT
    except ModuleNotFoundError as error:
        return _give_up(f"there is no module {error.name}: pip install 'tenant-authz[demo]'")
    except AuthzError as error:
        return _give_up(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _give_up("interrupted before the end")


def _give_up(why: str) -> int:
    print(f"authz demo: {why}", file=sys.stderr)  # noqa: T201 - for whoever typed it
    return NOT_STARTED
