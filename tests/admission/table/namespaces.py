"""Attacks on the rules for namespaces: names that mean something else, and what all rests on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.admission.rows import DOMAINS, EXTERNAL_NAMES, PLATFORM, SPACE, Json, Row, changed, thing

_POLICY: Final = "tenant-authz-namespaces"
_A: Final = "metadata annotations tenant-authz.dev/"
_L: Final = "metadata labels "


def namespace(name: str, changes: Json | None = None) -> Json:
    """A tenant's namespace."""
    made = thing("v1", "Namespace", name, None)
    made["metadata"]["labels"] = {
        "tenant-authz.dev/tenant": "acme",
        "istio-injection": "enabled",
        "pod-security.kubernetes.io/enforce": "baseline",
    }
    made["metadata"]["annotations"] = {
        "tenant-authz.dev/domains": DOMAINS,
        "tenant-authz.dev/external-names": EXTERNAL_NAMES,
    }
    return changed(made, changes or {})


OWN: Final = namespace(SPACE)
_GOOD: Final = namespace("acme-new")


def _row(name: str, said: str, evil: Json, twin: Json = _GOOD) -> Row:
    return Row(name, _POLICY, said, evil, twin, by=PLATFORM)


def _names() -> Iterator[Row]:
    for name in ("com", "io", "dev", "app", "bank", "corp", "internal", "localhost", "xn--p1ai"):
        yield _row(f"{name}, a tenant's", "may be a top-level domain", namespace(name))
    for name in ("svc", "pod", "cluster", "local"):
        bare = thing("v1", "Namespace", name, None)
        yield _row(f"{name}, anybody's", "parts of", bare, thing("v1", "Namespace", "web", None))
    for name in ("kube-x", "istio-x", "knative-x", "x-system", "image-prepull"):
        yield _row(f"{name}, a tenant's", "the platform's", namespace(name))


def _labels() -> Iterator[Row]:
    enforce = "pod-security.kubernetes.io/enforce"
    for name, said, changes in (
        ("no injection", "istio-injection", {_L + "istio-injection": None}),
        ("injection off", "istio-injection", {_L + "istio-injection": "disabled"}),
        (
            "injection off, and a revision",
            "istio-injection",
            {_L + "istio-injection": "disabled", _L + "istio.io/rev": "stable"},
        ),
        ("ambient", "dataplane-mode", {_L + "istio.io/dataplane-mode": "ambient"}),
        ("privileged pods", enforce, {_L + enforce: "privileged"}),
        ("no limit for pods", enforce, {_L + enforce: None}),
        ("mode in capitals", "is not a mode", {_L + "tenant-authz.dev/mode": "Enforce"}),
        ("mode on", "is not a mode", {_L + "tenant-authz.dev/mode": "on"}),
        ("a mistyped label", "unknown", {_L + "tenant-authz.dev/mod": "enforce"}),
        ("a label for an annotation", "unknown", {_L + "tenant-authz.dev/domains": "acme.example"}),
        ("a mistyped annotation", "unknown", {_A + "domain": "acme.example"}),
        ("a wildcard", "metadata.annotations", {_A + "domains": "*.acme.example"}),
        ("a space", "metadata.annotations", {_A + "domains": "acme.example, shop.example"}),
        ("a top-level domain", "metadata.annotations", {_A + "domains": "com"}),
        ("the cluster's domain", "metadata.annotations", {_A + "domains": "cluster.local"}),
        ("a part of it", "metadata.annotations", {_A + "domains": "svc.cluster.local"}),
        ("an address", "metadata.annotations", {_A + "external-names": "10.96.0.1"}),
        ("an inner name", "metadata.annotations", {_A + "external-names": "google.internal"}),
    ):
        yield _row(f"a namespace with {name}", said, namespace("acme-new", changes))
    evil, honest = (
        changed(thing("v1", "Namespace", "plain", None), {_L + "tenant-authz.dev/mode": mode})
        for mode in ("OFF", "off")
    )
    name = "a mode in capitals, on a namespace that is no tenant's"
    yield _row(name, "is not a mode", evil, honest)


def _later() -> Iterator[Row]:
    """What may be changed of a namespace by whom, and by which way."""
    other = {_A + "domains": f"{DOMAINS},victim.example"}
    for way in ("", "status", "finalize"):
        by = f", by way of {way}" if way else ""
        yield Row(
            f"another tenant{by}",
            _POLICY,
            "never changes",
            {_L + "tenant-authz.dev/tenant": "victim"},
            {},
            OWN,
            way,
        )
        yield Row(
            f"no tenant{by}",
            _POLICY,
            "never changes",
            {_L + "tenant-authz.dev/tenant": None},
            {},
            OWN,
            way,
        )
        yield Row(
            f"another's domain{by}",
            _POLICY,
            "ask the platform",
            other,
            None,
            OWN,
            way,
            twin_by=PLATFORM,
        )
        yield Row(
            f"no injection any more{by}",
            _POLICY,
            "ask the platform",
            {_L + "istio-injection": None, _L + "istio.io/rev": "its-own"},
            {_L + "istio-injection": None, _L + "istio.io/rev": "stable"},
            OWN,
            way,
            twin_by=PLATFORM,
        )
        yield Row(
            f"the platform itself takes injection away{by}",
            _POLICY,
            "istio-injection",
            {_L + "istio-injection": "disabled"},
            {_L + "tenant-authz.dev/mode": "shadow"},
            OWN,
            way,
            by=PLATFORM,
        )


ROWS: Final = [*_names(), *_labels(), *_later()]
