"""Kubernetes itself, and what whoever installs may do."""

from __future__ import annotations

from typing import Final

from authz.check.lines import Answer, Check, Group, ok, problem, several, unread, warning
from authz.check.site import Site
from authz.check.things import number_of, part
from authz.kube import Resource

OLDEST: Final = (1, 30)
MUTATING: Final = (1, 36)
"""The first with MutatingAdmissionPolicy in v1."""
REVIEWS: Final = Resource("selfsubjectaccessreviews", "authorization.k8s.io")

_INSTALLS: Final = (
    ("", "namespaces", ""),
    ("", "serviceaccounts", "home"),
    ("", "secrets", "home"),
    ("", "configmaps", "home"),
    ("", "services", "home"),
    ("apps", "daemonsets", "home"),
    ("batch", "jobs", "home"),
    ("networking.k8s.io", "networkpolicies", "home"),
    ("rbac.authorization.k8s.io", "roles", "home"),
    ("rbac.authorization.k8s.io", "rolebindings", "home"),
    ("scheduling.k8s.io", "priorityclasses", ""),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", ""),
    ("networking.istio.io", "envoyfilters", "root"),
    ("networking.istio.io", "destinationrules", "root"),
    ("security.istio.io", "peerauthentications", "root"),
)


async def _version(site: Site) -> Answer:
    said = await site.server.version()
    git, number = part(said, "gitVersion"), number_of(part(said, "gitVersion"))
    if number is None:
        return unread(f"version {git!r}", "ask `kubectl version` what it is")
    if number < OLDEST:
        return problem(f"it is {git}", "upgrade Kubernetes to 1.30 or newer")
    return ok(str(git))


async def _mutating(site: Site) -> Answer:
    number = number_of(part(await site.server.version(), "gitVersion"))
    if number is None:
        return unread("the version is unknown", "ask `kubectl version` what it is")
    if number < MUTATING:
        return warning(
            f"Kubernetes {number[0]}.{number[1]} has no MutatingAdmissionPolicy in v1",
            "leave injection.yaml out of deploy/platform/admission: a tenant can then run pods of "
            "its own without a sidecar",
        )
    return ok("MutatingAdmissionPolicy is there")


async def _rights(site: Site) -> Answer:
    places = {"": "", "home": site.wanted.home, "root": site.wanted.root_namespace}
    missing = []
    for group, plural, where in _INSTALLS:
        asked = {"group": group, "resource": plural, "verb": "create", "namespace": places[where]}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        said = await site.server.create(REVIEWS, review)
        if part(said, "status", "allowed") is not True:
            missing.append(f"{plural}.{group}".rstrip("."))
    if missing:
        return problem(
            f"you may not create {several(missing)}",
            "install as somebody who may: a cluster's administrator",
        )
    return ok("you may create all that is installed")


GROUP: Final = Group(
    "Kubernetes",
    (
        Check("kubernetes-version", "Kubernetes is 1.30 or newer", "deploy/README.md", _version),
        Check(
            "kubernetes-admission",
            "it has the kinds of all admission rules",
            "deploy/platform/README.md#admission",
            _mutating,
        ),
    ),
    before=True,
)

INSTALLER: Final = Group(
    "You",
    (Check("installer", "you may install", "deploy/README.md#install", _rights),),
    before=True,
)
