"""Looks for holes: is what should keep tenants apart in force in each proxy?

Evidence is what Envoy's admin endpoint says under /config_dump, by which a proxy tells what it
does, not what it was meant to do. What is right is what istiod would make of the same configuration
with the documents that are installed: the doctor takes our filters out of each listener, has
`authz.envoyfilters` put them in again, and compares.

    dump      reads a config_dump
    listeners compares filters, their place, order and fields
    clusters  the way to the service, and other clusters that must speak mutual TLS
    capture   ways into the pod that lead past its proxy, or without proof of who calls
    routes    what a route does to our filters and our header
    pods      pods that have no proxy
    collect   gets dumps from files, URLs and a cluster
"""

from authz.doctor.collect import from_cluster, from_places, mesh_mode, read_documents
from authz.doctor.dump import CannotRead, Workload, read_dump
from authz.doctor.examine import examine
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.pods import read_pods, without_proxy

__all__ = [
    "CannotRead",
    "Expected",
    "Finding",
    "Rule",
    "Workload",
    "examine",
    "from_cluster",
    "from_places",
    "mesh_mode",
    "read_documents",
    "read_dump",
    "read_pods",
    "without_proxy",
]
