"""Policy from the cluster: labels of namespaces, and `Grant` objects, which are told if they count.

It imports `authz.kube`, so import it only where `policy_from_cluster` is set.
"""

from authz.clusterpolicy.objects import GRANTS, NAMESPACES
from authz.clusterpolicy.source import ClusterPolicy

__all__ = ["GRANTS", "NAMESPACES", "ClusterPolicy"]
