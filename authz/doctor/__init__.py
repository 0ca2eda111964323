"""Looks for holes: is what should keep tenants apart in force in each proxy?

Evidence is what Envoy's admin endpoint says under /config_dump, by which a proxy tells what it
does, not what it was meant to do. A list of what is wrong cannot be complete, so the doctor knows
what is right and calls everything else a finding. Our own filters must be what istiod would make of
the documents that are installed; all that stands around them must have the shape that istiod and
its agent give it, field by field. What may vary is marked harmless in its shape, with the reason.

    dump      reads a config_dump
    shape     the language in which it is said what a message may look like
    filters   compares our filters, their place, order and fields (`fields`) with the documents
    listeners, chains, http, transport, routes, clusters, bootstrap
              the shapes of what stands around them
    policies  compares who may call a hop with the AuthorizationPolicies that ship
    to_service  the way to the service: HTTP/2, and round the dead
    capture   ways into the pod that lead past its proxy, or without proof of who calls
    complete  whether all is in the dump that must be
    pods      how each pod stands to the mesh
    around    what takes from the proxies or leads past them: hops, webhooks, copies of our filters
    collect   gets dumps from files and URLs
    overview  the same as one HTML page
    summary   all that was found, and how many proxies of which version
    remote    gets objects and dumps from a cluster
    survey    looks at all of a cluster; it and `remote` are imported where they are wanted, since
              they take the packages of the extra `kubernetes`
"""

from authz.doctor.collect import Source, from_places, read_documents
from authz.doctor.dump import CannotRead, Workload, read_dump
from authz.doctor.examine import examine
from authz.doctor.expected import Expected
from authz.doctor.finding import Finding, Rule
from authz.doctor.overview import overview
from authz.doctor.pods import read_pods, uncovered
from authz.doctor.summary import Accepted, Report

__all__ = [
    "Accepted",
    "CannotRead",
    "Expected",
    "Finding",
    "Report",
    "Rule",
    "Source",
    "Workload",
    "examine",
    "from_places",
    "overview",
    "read_documents",
    "read_dump",
    "read_pods",
    "uncovered",
]
