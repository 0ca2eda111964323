"""Names: which namespace does a host, or a cluster of Envoy, belong to?

The functions answer `None` where no namespace can be told. A token is made only for a namespace,
so `None` is the safe answer: anything that is not listed here is external.

Source: DNS-1123 labels (RFC 1123 section 2.1, as Kubernetes restricts them).
"""

import re
from collections.abc import Collection
from typing import Final, NamedTuple, NewType

from authz.errors import InvalidName
from authz.wire import host_of_cluster

Namespace = NewType("Namespace", str)
"""A Kubernetes namespace: a DNS-1123 label, checked by `parse_namespace`."""

PUBLIC: Final = Namespace("@public")
"""Stands for the outside world where a source namespace is expected. Never a namespace's name."""

LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""A DNS-1123 label, as a regular expression without anchors: use it with fullmatch."""

MAX_NAME: Final = 253
"""Longest DNS name, in characters (RFC 1035 section 2.3.4, without the trailing dot)."""

_LONGEST_HOST: Final = MAX_NAME + len(".:65535")
"""More is not matched at all: that takes some 60 nanoseconds a character."""

_label = re.compile(LABEL)
_name = re.compile(rf"{LABEL}(?:\.{LABEL})*")
_host = re.compile(rf"({LABEL}(?:\.{LABEL})*)\.?(?::[0-9]{{1,5}})?")
_number = re.compile(r"[0-9]+|0x[0-9a-f]*")
_any_cluster = re.compile(
    r"(?:-?|(?:Inbound)?PassthroughCluster|BlackHoleCluster"
    r"|(?:in|out)bound\|[0-9]{0,5}\|[A-Za-z0-9._-]*\|[A-Za-z0-9.*_-]*)"
)
_virtual_service = re.compile(
    rf"/apis/networking\.istio\.io/v1[a-z0-9]*/namespaces/({LABEL})/virtual-service/[^/\s]+"
)


class Service(NamedTuple):
    """A Kubernetes Service, named as `<name>.<namespace>`."""

    name: str
    namespace: Namespace

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"


def is_label(text: str) -> bool:
    """Whether `text` is a DNS-1123 label, such as the name of a Service."""
    return _label.fullmatch(text) is not None


def is_dns_name(text: str) -> bool:
    """Whether `text` is one or more DNS-1123 labels joined by dots, at most 253 characters."""
    return len(text) <= MAX_NAME and _name.fullmatch(text) is not None


def parse_namespace(text: str) -> Namespace:
    """Check that `text` is a namespace's name.

    Raises:
        InvalidName: it is not a DNS-1123 label of 1 to 63 characters.
    """
    if _label.fullmatch(text) is None:
        raise InvalidName(
            f"{text!r} is not a namespace: use 1 to 63 lower-case letters, digits and '-', "
            "with a letter or digit at both ends"
        )
    return Namespace(text)


def parse_service(text: str) -> Service:
    """Read `<name>.<namespace>`.

    Raises:
        InvalidName: it is not two DNS-1123 labels joined by a dot.
    """
    name, dot, namespace = text.partition(".")
    if not dot or _label.fullmatch(name) is None or _label.fullmatch(namespace) is None:
        raise InvalidName(f"{text!r} is not a service: write it as <name>.<namespace>")
    return Service(name, Namespace(namespace))


def parse_cluster_domain(text: str) -> str:
    """Check a cluster domain such as `cluster.local`.

    Raises:
        InvalidName: it is not a DNS name, or has a label `svc`, which would make hosts ambiguous.
    """
    if not is_dns_name(text) or "svc" in text.split("."):
        raise InvalidName(
            f"{text!r} is not a cluster domain: use a lower-case DNS name such as 'cluster.local', "
            "without a label 'svc'"
        )
    return text


def normal_host(host: str) -> str | None:
    """A Host or :authority in its normal form: lower case, without port and trailing dot.

    Returns `None` for whatever is not a plain DNS name: IP literals, user info, escapes, empty.
    """
    # str.lower() turns some non-ASCII letters into ASCII ones, so look before lowering.
    if len(host) > _LONGEST_HOST or not host.isascii():
        return None
    match = _host.fullmatch(host.lower())
    return match[1] if match is not None and len(match[1]) <= MAX_NAME else None


def namespace_of_host(host: str, cluster_domains: Collection[str]) -> Namespace | None:
    """The namespace of `<name>.<namespace>.svc` or `<name>.<namespace>.svc.<cluster domain>`.

    More labels may precede the namespace, as in `<pod>.<service>.<namespace>.svc`.
    """
    name = normal_host(host)
    return None if name is None else _namespace_of_name(name, cluster_domains)


def namespace_of_full_name(host: str, cluster_domains: Collection[str]) -> Namespace | None:
    """The namespace of `<name>.<namespace>.svc.<cluster domain>`, and of no other form."""
    name = normal_host(host)
    if name is None:
        return None
    _, _, rest = name.partition(".")
    namespace, _, rest = rest.partition(".")
    full = rest.startswith("svc.") and rest.removeprefix("svc.") in cluster_domains
    return Namespace(namespace) if full else None


def namespace_of_relayed_host(
    host: str, cluster_domains: Collection[str], *, caller: Namespace
) -> Namespace | None:
    """The namespace that a relay, which routes by Host, will send `host` to.

    Behind a relay the short forms count too: `<name>.<namespace>`, and `<name>` for a service in
    the caller's own namespace.
    """
    name = normal_host(host)
    if name is None:
        return None
    namespace = _namespace_of_name(name, cluster_domains)
    if namespace is not None:
        return namespace
    labels = name.split(".")
    # A name that ends in a number is an IP address to every URL parser; `a.svc` is external.
    if len(labels) > 2 or _number.fullmatch(labels[-1]) or labels[-1] == "svc":
        return None
    return caller if len(labels) == 1 else Namespace(labels[1])


def _namespace_of_name(name: str, cluster_domains: Collection[str]) -> Namespace | None:
    # No cluster domain has a label `svc`, so at most one of these suffixes fits.
    for suffix in (".svc", *(f".svc.{domain}" for domain in cluster_domains)):
        if name.endswith(suffix):
            service, dot, namespace = name.removesuffix(suffix).rpartition(".")
            return Namespace(namespace) if service and dot else None
    return None


def service_of_cluster(cluster: str, cluster_domains: Collection[str]) -> Service | None:
    """The Service behind one of istiod's outbound clusters.

    `outbound|80|v1|hello.shop.svc.cluster.local` is `hello.shop`. `PassthroughCluster`, inbound
    clusters, hosts outside the cluster and anything else have none.
    """
    host = host_of_cluster(cluster)
    if host is None or not is_dns_name(host):
        return None
    for domain in cluster_domains:
        if host.endswith(suffix := f".svc.{domain}"):
            labels = host.removesuffix(suffix).split(".")
            if len(labels) == 2:
                return Service(labels[0], Namespace(labels[1]))
    return None


def is_cluster_name(text: str) -> bool:
    """Whether istiod gives clusters such names, be it that of a Service or of the way out.

    Also where a route leads to no cluster, for which Envoy says `-`. What is none may be the name
    of a cluster that an EnvoyFilter adds, or a cluster's name for statistics.
    """
    return _any_cluster.fullmatch(text) is not None


def namespace_of_virtual_service(config: str) -> Namespace | None:
    """The namespace in istiod's route metadata `istio.config`, where that names a VirtualService.

    Such as `/apis/networking.istio.io/v1alpha3/namespaces/shop/virtual-service/hello`. Those that
    istiod makes itself, of an Ingress or HTTPRoute, have a host, `*` or `~` in their names; only
    the namespace counts (istio.io pilot/pkg/config/kube: mergeHTTPRoutes, DerivedVirtualServices).
    """
    match = _virtual_service.fullmatch(config)
    return None if match is None else Namespace(match[1])
