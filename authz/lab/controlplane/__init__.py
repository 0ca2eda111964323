"""A real control plane for tests and the demo: etcd, kube-apiserver and istiod on loopback.

python -m authz.lab.controlplane build        build the programs, once
python -m authz.lab.controlplane run COMMAND  run a command beside an API server of its own

async with controlplane.running() as plane:   run them; see `running`
    async with plane.api() as api:
        await api.apply(objects)
"""

from authz.lab.controlplane.running import UPSTREAM_ENVOY, Istiod, Plane, running

__all__ = ["UPSTREAM_ENVOY", "Istiod", "Plane", "running"]
