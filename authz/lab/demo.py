"""A cluster on the loopback interface, with real Envoys, in which tenants are kept apart.

It starts the service, an Envoy for every workload and small apps behind them, plays the whole
matrix of who may call whom, and says where what it sees is not what it expects. No root, no
Docker, no cluster. As root it can do so in network namespaces, a pod for each of them and Knative
in between: see `authz.lab.box.paths`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Final

from authz.errors import AuthzError, to_install

if TYPE_CHECKING:
    from authz.lab.box.istio.mesh import Source

__all__ = ["run"]

AS_EXPECTED: Final = 0
DIFFERENT: Final = 1
NOT_STARTED: Final = 3


def run(
    *, once: bool, json: bool, knative: bool = False, istiod: bool = False, reuse: bool = False
) -> int:
    """Play the matrix, print it, and unless it is for `once` stay up until Ctrl-C.

    Args:
        once: end when the matrix is played.
        json: print the result as JSON.
        knative: in a box with Knative and Istio as they are in a cluster, which needs root.
        istiod: there, a real istiod feeds the Envoys, in place of recordings; it is built by Go.
        reuse: there, sidecars give answers again, as with `overlays/reuse`.

    Returns:
        The exit code: 0 as expected, 1 not, 3 if it could not start.
    """
    try:
        # Each needs an extra.
        if knative:
            from authz.lab.box.paths import play as box  # noqa: PLC0415

            source = _live() if istiod else None
            playing = box.play(once=once, json=json, source=source, reuse=reuse)
        elif istiod or reuse:
            return _give_up(f"{'--istiod' if istiod else '--reuse'} goes with --knative")
        else:
            from authz.lab.loopback.play import play  # noqa: PLC0415

            playing = play(once=once, json=json)
        return AS_EXPECTED if asyncio.run(playing) else DIFFERENT
    except ModuleNotFoundError as error:
        return _give_up(f"there is no module {error.name}: {to_install('lab')}")
    except AuthzError as error:
        return _give_up(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _give_up("interrupted before the end")


def _live() -> Source:
    from authz.lab.live import live  # noqa: PLC0415
    from authz.lab.loopback.play import say  # noqa: PLC0415

    return live(tell=say)


def _give_up(why: str) -> int:
    print(f"authz demo: {why}", file=sys.stderr)  # noqa: T201 - for whoever typed it
    return NOT_STARTED
