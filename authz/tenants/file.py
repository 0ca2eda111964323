"""The tenants file: who the platform's tenants are, and what differs from the defaults for each.

The defaults are IBM Code Engine's public limits for a project, which is one namespace here.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema

from authz.domain.names import (
    LABEL,
    MAX_NAME,
    is_dns_name,
    parse_cluster_domain,
    parse_namespace,
)
from authz.errors import BadSettings
from authz.policysource.merge import MOST_GRANTS
from authz.yamlfile import STRICT, line_of, parse_plain, read_input, text_like

MAX_BYTES: Final = 4 * 1024 * 1024
"""A larger file is refused."""

RESERVED: Final = frozenset({"svc", "pod", "cluster", "default", "image-prepull"})
"""Namespaces that no tenant gets: parts of cluster names, and the platform's own."""

_NO_TOP_LEVEL_DOMAIN: Final = re.compile(r"(?!xn--).*[0-9-].*")
"""Top-level domains, and the names that networks use inside, are words of letters or begin so."""

_LONGEST_DOMAIN: Final = 125
RESERVED_PREFIXES: Final = ("kube-", "istio-", "knative-")


def _tenants_namespace(text: str) -> str:
    name = parse_namespace(text)
    if name in RESERVED or name.startswith(RESERVED_PREFIXES) or name.endswith("-system"):
        raise ValueError(
            f"{text!r} is reserved: svc, pod and cluster are parts of cluster names, default, "
            "image-prepull, kube-*, istio-*, knative-* and *-system are the platform's; choose "
            "another"
        )
    return name


def _domain(text: str) -> str:
    if not is_dns_name(text) or "." not in text or text.rpartition(".")[2][0].isdigit():
        raise ValueError(f"{text!r} is not a domain: use a lower-case name such as 'acme.example'")
    if len(text) > _LONGEST_DOMAIN:
        raise ValueError(
            f"a domain of {len(text)} characters leaves no room for <service>.<namespace> within "
            f"a name's 253: use at most {_LONGEST_DOMAIN}"
        )
    if text.endswith((".local", ".svc", ".internal")):
        raise ValueError(f"{text!r} is a name inside clusters: use one that the tenant owns")
    return text


def _owner(text: str) -> str:
    kind, colon, name = text.partition(":")
    if kind not in {"group", "user"} or not colon or not name.strip():
        raise ValueError(f"{text!r} is not an owner: write group:<name> or user:<name>")
    return text


def _whole_number(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _quantity(units: str) -> WithJsonSchema:
    pattern = rf"^[0-9]+(\.[0-9]+)?({units})?$"
    return WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": pattern}]}
    )


_DNS_NAME: Final = text_like(rf"{LABEL}(\.{LABEL})*", MAX_NAME)

_Namespace = Annotated[str, AfterValidator(_tenants_namespace), text_like(LABEL)]
_Domain = Annotated[
    str, AfterValidator(_domain), text_like(rf"({LABEL}\.)+{LABEL}", _LONGEST_DOMAIN)
]
_ClusterDomain = Annotated[str, AfterValidator(parse_cluster_domain), _DNS_NAME]
_Owner = Annotated[str, AfterValidator(_owner), text_like(r"(group|user):.*\S.*")]
_Label = Annotated[str, AfterValidator(parse_namespace), text_like(LABEL)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Count = Annotated[int, Field(ge=0)]
_Cpu = Annotated[
    str,
    BeforeValidator(_whole_number),
    Field(pattern=r"^[0-9]+(\.[0-9]+|m)?$"),
    _quantity("m"),
]
_Memory = Annotated[
    str,
    BeforeValidator(_whole_number),
    Field(pattern=r"^[0-9]+(\.[0-9]+)?([KMGT]i|[kMGT])?$"),
    _quantity("[KMGT]i|[kMGT]"),
]


class Quota(BaseModel):
    """What one namespace may hold."""

    model_config = STRICT
    apps: _Count = 40
    revisions: _Count = 120
    secrets: _Count = 100
    grants: _Count = MOST_GRANTS
    instances: _Count = 250
    cpu: _Cpu = "128"
    memory: _Memory = "512G"


class Limits(BaseModel):
    """What one container may use, and what it gets that says nothing."""

    model_config = STRICT
    cpu: _Cpu = "12"
    memory: _Memory = "48G"
    default_cpu: _Cpu = "1"
    default_memory: _Memory = "4G"


class Tenant(BaseModel):
    """One tenant, as the file has it."""

    model_config = STRICT
    namespaces: Annotated[list[_Namespace], Field(min_length=1)] | None = None
    """`None`: one, with the tenant's name."""
    owners: list[_Owner] = []
    domains: list[_Domain] = []
    external_names: list[_Domain] = []
    """Domains under which its Services of type ExternalName may point."""
    calls: list[_Label] = []
    """Namespaces of others whose services it calls: what its sidecars know besides its own."""
    ports: list[_Port] = []
    """Ports of its pods besides Knative's that others may reach; `verify` covers HTTP only."""
    quota: Quota | None = None
    limits: Limits | None = None


class Tenants(BaseModel):
    """The whole file."""

    model_config = STRICT
    domain: _Domain | None = None
    """Services are at `<service>.<namespace>.<domain>`; without it, no Gateway is made."""
    issuer: _Label = "letsencrypt"
    """The ClusterIssuer of cert-manager; wildcards need one that proves by DNS."""
    cluster_domain: _ClusterDomain = "cluster.local"
    gateway: _Label = "istio-ingressgateway"
    gateway_namespace: _Label = "istio-system"
    gateway_labels: dict[str, str] = {"istio": "ingressgateway"}
    istio_revision: _Label | None = None
    """A revision or tag of istiod; `None`: the label istio-injection."""
    pod_security: Literal["baseline", "restricted"] = "baseline"
    monitoring: _Label = "monitoring"
    plain_names: list[_Label] = []
    """Namespaces named by a word of letters, of which the platform knows that no domain ends so."""
    quota: Quota = Quota()
    limits: Limits = Limits()
    tenants: dict[_Label, Tenant | None] = {}

    def namespaces_of(self, name: str) -> list[str]:
        """A tenant's namespaces."""
        tenant = self.of(name)
        return [name] if tenant.namespaces is None else tenant.namespaces

    def of(self, name: str) -> Tenant:
        """What the file says of a tenant; a tenant that it does not name has the defaults."""
        return self.tenants.get(name) or Tenant()


def read_tenants(file: Path) -> Tenants:
    """Read a tenants file.

    Raises:
        BadSettings: it cannot be read, or see `parse_tenants`.
    """
    try:
        return parse_tenants(read_input(file, MAX_BYTES).decode("utf-8"))
    except OSError as error:
        raise BadSettings([f"--file: {file}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise BadSettings([f"--file: {file} is not UTF-8 text"]) from None


def parse_tenants(text: str) -> Tenants:
    """Read a tenants file's text.

    Raises:
        BadSettings: with every problem, each as `line <n>: <field>: <what is wrong>`.
    """
    if len(text) > MAX_BYTES:
        raise BadSettings([f"the tenants file is larger than {MAX_BYTES} bytes"])
    file, data = parse_plain(text, Tenants, "tenants file", BadSettings, may_be_empty=True)
    problems = list(_contradictions(file, data))
    if problems:
        raise BadSettings(problems)
    return file


def chosen(file: Tenants, names: list[str]) -> list[str]:
    """The tenants to render: those named, or all of the file, in a stable order.

    Raises:
        BadSettings: a name is no tenant's, or nothing is left to do.
    """
    if not names and not file.tenants:
        raise BadSettings(["NAME: name a tenant, or give --file with some under `tenants`"])
    problems = []
    for name in names:
        try:
            if not file.tenants:
                _check_namespace(file, name)
        except ValueError as error:
            problems.append(f"NAME: {error}")
            continue
        if file.tenants and name not in file.tenants:
            problems.append(f"NAME: {name!r} is not in the file: add it under `tenants`")
    if problems:
        raise BadSettings(problems)
    return sorted(set(names) or file.tenants)


def _check_namespace(file: Tenants, namespace: str) -> None:
    """A service `stripe` in a namespace `com` is what every pod finds under stripe.com."""
    _tenants_namespace(namespace)
    if namespace in file.cluster_domain.split("."):
        raise ValueError(
            f"{namespace!r} is a part of the cluster's domain {file.cluster_domain}; choose another"
        )
    if namespace not in file.plain_names and not _NO_TOP_LEVEL_DOMAIN.fullmatch(namespace):
        raise ValueError(
            f"{namespace!r} may be a top-level domain, and every pod would look here for the names "
            f"under it; choose one with a digit or a hyphen, such as '{namespace}-1', or add it to "
            "plain_names once you know that no domain, anywhere or in your network, ends so"
        )


def _contradictions(file: Tenants, data: Any) -> Iterator[str]:
    """What each field allows and all of them together do not."""
    owner: dict[str, str] = {}
    owner_of_domain: dict[str, str] = {}
    for name in file.tenants:
        at = line_of(data, ("tenants", name))
        for namespace in file.namespaces_of(name):
            try:
                _check_namespace(file, namespace)
            except ValueError as error:
                yield f"line {at}: tenants.{name}: {error}"
            if namespace in owner:
                yield (
                    f"line {at}: tenants.{name}.namespaces: {namespace} is in tenant "
                    f"{owner[namespace]} already; a namespace belongs to one tenant"
                )
            owner[namespace] = name
        for domain in (*file.of(name).domains, *file.of(name).external_names):
            if _overlap(domain, file.cluster_domain):
                yield (
                    f"line {at}: tenants.{name}: {domain} overlaps the cluster's own domain "
                    f"{file.cluster_domain}, where others' services are; use a domain outside of it"
                )
        for domain in file.of(name).domains:
            if domain in owner_of_domain:
                yield (
                    f"line {at}: tenants.{name}.domains: {domain} is tenant "
                    f"{owner_of_domain[domain]}'s already; a domain belongs to one tenant"
                )
            owner_of_domain[domain] = name
    yield from _nested_domains(file, data, owner_of_domain)


def _nested_domains(file: Tenants, data: Any, owners: dict[str, str]) -> Iterator[str]:
    """A tenant's domain must not lie under, or hold, another's: its host rules would, too."""
    for domain, name in owners.items():
        at = line_of(data, ("tenants", name, "domains"))
        labels = domain.split(".")
        for start in range(1, len(labels)):
            above = ".".join(labels[start:])
            if owners.get(above, name) != name:
                yield (
                    f"line {at}: tenants.{name}.domains: {domain} lies under {above}, which is "
                    f"tenant {owners[above]}'s; give it to that tenant, or take the other away"
                )
        if file.domain is not None and _overlap(domain, file.domain):
            yield (
                f"line {at}: tenants.{name}.domains: {domain} overlaps the platform's own domain "
                f"{file.domain}, where each namespace has its part already; take it away"
            )


def _overlap(one: str, other: str) -> bool:
    """Whether one domain is the other, lies under it or holds it."""
    return f".{one}".endswith(f".{other}") or f".{other}".endswith(f".{one}")
