"""Proof on a running mesh: two throwaway tenants, each way between them, and attacks.

    matrix      what is called, by whom, and what must come of it: data
    probe       what runs inside a pod and makes the calls; the standard library only
    run         has a driver make the calls, compares, and cleans up
    kubernetes  a driver for Kubernetes with Istio and Knative

`authz.lab.box.conformance` is a driver for the mesh in a box.

A call that is kept out proves something only beside one that gets in: each target is called by its
own tenant, too.
"""

from authz.conformance.matrix import MATRIX, MUST
from authz.conformance.run import Driver, play

__all__ = ["MATRIX", "MUST", "Driver", "play"]
