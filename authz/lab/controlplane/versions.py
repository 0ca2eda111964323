"""Which programs the control plane is made of, and where Go's proxy has them: all pins are here.

Istio's releases are not served as Go modules, and its development versions are: two of them, four
months apart, stand for what clusters run. Their names begin with the minor version that the
module's file `VERSION` tells.
"""

from __future__ import annotations

from typing import Final

KUBERNETES: Final = "1.37.2"
ETCD: Final = "3.7.3"
HELM: Final = "3.22.0"
REGISTRY: Final = "3.1.2"
ISTIODS: Final = {
    "1.31-20260827": "v0.0.0-20260827124520-eed52ebb66ad",
    "1.31-20260423": "v0.0.0-20260423205519-b01690e6db7d",
}
"""The istiods, newest first: what we call them, and their modules' versions."""

ISTIO: Final = next(iter(ISTIODS))
"""The istiod that runs unless another is asked for."""
