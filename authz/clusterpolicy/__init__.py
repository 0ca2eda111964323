"""Policy from the cluster: a ConfigMap, labels of namespaces, and `Grant` objects.

It imports `authz.kube`, so import it only where `policy_configmap` or `policy_from_cluster` is set.
"""

from authz.clusterpolicy.configmap import PolicyMap
from authz.clusterpolicy.objects import GRANTS, NAMESPACES
from authz.clusterpolicy.source import ClusterPolicy

__all__ = ["GRANTS", "NAMESPACES", "ClusterPolicy", "PolicyMap"]
