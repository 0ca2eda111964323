"""The policy file: YAML in, a `Policy` out, or every problem with its line.

Nothing is guessed, see `yamlfile`, and a file with one problem changes nothing.
"""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    WithJsonSchema,
)

from authz.domain.hosts import HostTemplate
from authz.domain.identity import SpiffeId, parse_service_account
from authz.domain.names import (
    LABEL,
    MAX_NAME,
    Namespace,
    is_dns_name,
    is_label,
    parse_cluster_domain,
    parse_namespace,
    parse_service,
)
from authz.domain.policy import EVERYONE, Exemption, Grant, Mode, NamespacePolicy, Policy, Role
from authz.errors import BadPolicy, InvalidIdentity
from authz.policysource.days import day_or_text, end_of
from authz.yamlfile import (
    DAY,
    STRICT,
    field_name,
    line_of,
    parse_plain,
    read_input,
    text_like,
)

MAX_BYTES: Final = 2 * 1024 * 1024
"""A larger file is refused. A ConfigMap holds at most 1 MiB."""


def _spiffe_id(text: str) -> str:
    SpiffeId.parse(text)
    return text


def _trust_domain(text: str) -> str:
    try:
        SpiffeId.parse(f"spiffe://{text}/ns/any/sa/any")
    except InvalidIdentity:
        raise ValueError(f"{text!r} is not a trust domain such as 'cluster.local'") from None
    return text


def _dns_name(text: str) -> str:
    if not is_dns_name(text):
        raise ValueError(f"{text!r} is not a lower-case DNS name")
    return text


def _path(text: str) -> str:
    """A path as it arrives: Envoy has normalized it, and it stands before `?`."""
    if _whole_path.fullmatch(text) is None:
        raise ValueError(
            f"{text!r} is the path of no request: it begins with '/', is printable ASCII, ends "
            "before '?', and has no '#', no backslash, and neither '.' nor '..' between slashes"
        )
    return text


def _source(text: str) -> str:
    return text if text == EVERYONE else parse_namespace(text)


def _service(text: str) -> str:
    return str(parse_service(text))


def _template(text: str) -> str:
    return HostTemplate.parse(text).text


def _public(value: object) -> object:
    match value:
        case bool() | None:  # a field without a value is told by `yamlfile`
            return value
        case list():
            return [_service_name(name) for name in value]
        case _:
            raise ValueError(f"{value!r} is not true, false or a list of Services such as [web]")


def _service_name(name: object) -> str:
    if isinstance(name, str) and is_label(name):
        return str(name)
    raise ValueError(f"{name!r} is not a Service's name: write it without its namespace")


_PATH: Final = r'/[!"$->@-\[\]-~]*'
"""Printable ASCII without `?`, `#` and `\\`: none of these is in a path as we are asked of it."""
_NO_DOTS: Final = r"(?!.*/\.{1,2}(?:/|$))"
_whole_path = re.compile(rf"{_NO_DOTS}{_PATH}")
_DNS_NAME: Final = text_like(rf"{LABEL}(\.{LABEL})*", MAX_NAME)
_ACCOUNT: Final = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_SPIFFE: Final = text_like(rf"spiffe://[a-z0-9._-]+/ns/{LABEL}/sa/{_ACCOUNT}")
_PUBLIC: Final = WithJsonSchema(
    {
        "anyOf": [
            {"type": "boolean"},
            {"type": "array", "items": {"type": "string", "pattern": f"^{LABEL}$"}},
        ]
    }
)

_Namespace = Annotated[str, AfterValidator(parse_namespace), text_like(LABEL)]
_SpiffeId = Annotated[str, AfterValidator(_spiffe_id), _SPIFFE]
_DnsName = Annotated[str, AfterValidator(_dns_name), _DNS_NAME]
_ClusterDomain = Annotated[str, AfterValidator(parse_cluster_domain), _DNS_NAME]
_TrustDomain = Annotated[str, AfterValidator(_trust_domain), text_like(r"[a-z0-9._-]+", 255)]
_Service = Annotated[str, AfterValidator(_service), text_like(rf"{LABEL}\.{LABEL}")]
_Template = Annotated[str, AfterValidator(_template), text_like(r".*\{\{\.Namespace\}\}\..+")]
_Source = Annotated[str, AfterValidator(_source), text_like(rf"\*|{LABEL}")]
_ServiceAccount = Annotated[
    str, AfterValidator(parse_service_account), text_like(_ACCOUNT, MAX_NAME)
]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Public = Annotated[Any, AfterValidator(_public), _PUBLIC]
_Path = Annotated[str, AfterValidator(_path), text_like(rf"{_NO_DOTS}{_PATH}")]
_Text = Annotated[str, Field(min_length=1)]
_Day = Annotated[dt.date, BeforeValidator(day_or_text), DAY]


class _Model(BaseModel):
    model_config = STRICT


class _Tenant(_Model):
    namespaces: list[_Namespace]
    """The namespaces that belong together. A namespace belongs to one tenant."""
    mode: Annotated[Mode | None, Field(strict=False)] = None
    """The mode of the namespaces listed here, in place of `default_mode`."""


class _NamespaceEntry(_Model):
    mode: Annotated[Mode | None, Field(strict=False)] = None
    """Its mode, in place of its tenant's and of `default_mode`."""
    public: _Public = None
    """Whether requests from outside the cluster, by the public gateway, may enter: `true`, `false`,
    or the list of the Services that they may enter. Default: `default_public`."""
    plaintext_peers: bool = False
    """Its pods accept plaintext: a token counts although nothing proves who presents it."""
    reuse: bool = True
    """Whether proxies may keep answers about requests that it sends or gets; `false`: each is asked
    about. Without the settings `reuse_*_seconds` no answer is kept anyway."""


class _GrantEntry(_Model):
    to: _Namespace
    """The namespace that is opened, the destination."""
    from_: Annotated[_Source, Field(alias="from")]
    """The namespace that is let in; `"*"`: every namespace, but not the outside world."""
    service_account: _ServiceAccount | None = None
    """Only this service account of it."""
    port: _Port | None = None
    """Only this port of the pods: Knative's is 8012, or 8013 for HTTP/2. No event has one."""
    until: _Day | None = None
    """The last day on which it counts, in UTC."""


class _ExemptionEntry(_Model):
    peer: _SpiffeId
    """The peer that needs no token. It may hold no role."""
    port: _Port
    """The pod's port."""
    path: _Path | None = None
    """The whole path before `?`."""
    user_agent: _Text | None = None
    """What the header `User-Agent` begins with."""
    network_probe: _Text | None = None
    """The whole header `K-Network-Probe`, of a GET without a body."""


class _File(_Model):
    cluster_domains: Annotated[list[_ClusterDomain], Field(min_length=1)] = ["cluster.local"]
    """The cluster's DNS domains, the ends of its Services' names."""
    trust_domains: Annotated[list[_TrustDomain], Field(min_length=1)] = ["cluster.local"]
    """The mesh's trust domains. Several assert that a namespace is the same one in each."""
    relays: list[_Service] = []
    """Services, `<name>.<namespace>`, that many namespaces share and that route by Host."""
    default_mode: Annotated[Mode, Field(strict=False)] = Mode.ENFORCE
    """The mode of every namespace for which nothing else is said."""
    default_public: bool = True
    """Whether a namespace that says nothing of `public` lets the outside world in."""
    route_owners: list[_Namespace] = []
    """Namespaces of the platform whose routes at the public gateway may lead to anybody."""
    host_templates: list[_Template] = []
    """Knative's `domain-template`s: a Host that fits leads to the namespace that it names only."""
    roles: dict[Annotated[Role, Field(strict=False)], list[_SpiffeId]] = {}
    """For each role, the SPIFFE IDs of the platform's workloads that hold it."""
    tenants: dict[_DnsName, _Tenant] = {}
    """Tenants by name. A namespace that is not listed is a tenant of its own."""
    namespaces: dict[_Namespace, _NamespaceEntry] = {}
    """What differs for a namespace, by its name."""
    grants: list[_GrantEntry] = []
    """Which namespaces let others in."""
    exemptions: list[_ExemptionEntry] = []
    """Requests that need no token. Every field that is given must match."""
    hosts: dict[_DnsName, _Namespace] = {}
    """Outside Istio: Hosts of yours, and the namespace that each means."""


FILE: Final = _File
"""The form of the file, for whoever describes it."""


def read_policy(file: Path) -> Policy:
    """Read a policy file.

    Raises:
        BadPolicy: it cannot be read, or see `parse_policy`.
    """
    return parse_policy(read_policy_text(file))


def parse_policy_as_json(text: str) -> str:
    """Check a policy's text: the same in JSON, which `policy_of_json` reads much faster.

    Raises:
        BadPolicy: see `parse_policy`.
    """
    return _checked(text).model_dump_json(by_alias=True)


def parse_policy(text: str) -> Policy:
    """Read a policy file's text.

    Raises:
        BadPolicy: with every problem, each as `line <n>: <field>: <what is wrong>`.
    """
    return _policy(_checked(text))


def policy_of_json(text: bytes) -> Policy:
    """Undo `parse_policy_as_json`.

    Raises:
        BadPolicy: it is something else.
    """
    try:
        return _policy(_File.model_validate_json(text))
    except ValidationError as error:
        raise BadPolicy([f"not a policy: {error.error_count()} problems"]) from None


def read_policy_text(file: Path) -> str:
    """What is in a policy file, unchecked.

    Raises:
        BadPolicy: it cannot be read.
    """
    try:
        return read_input(file, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise BadPolicy([f"policy_file: {file}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise BadPolicy([f"policy_file: {file} is not UTF-8 text"]) from None


def _checked(text: str) -> _File:
    if len(text) > MAX_BYTES:
        raise BadPolicy([f"the policy file is larger than {MAX_BYTES} bytes"])
    file, data = parse_plain(text, _File, "policy", BadPolicy)
    if not data:
        raise BadPolicy(
            ["the policy has no field: an emptied file is not taken; write at least one field"]
        )
    problems = list(_contradictions(file, data))
    if problems:
        raise BadPolicy(problems)
    return file


def _policy(file: _File) -> Policy:
    roles: dict[SpiffeId, frozenset[Role]] = {}
    for role, holders in file.roles.items():
        for holder in map(SpiffeId.parse, holders):
            roles[holder] = roles.get(holder, frozenset()) | {role}
    exemptions: dict[SpiffeId, tuple[Exemption, ...]] = {}
    for entry in file.exemptions:
        peer = SpiffeId.parse(entry.peer)
        exemption = Exemption(entry.port, entry.path, entry.user_agent, entry.network_probe)
        exemptions[peer] = (*exemptions.get(peer, ()), exemption)
    return Policy(
        cluster_domains=tuple(file.cluster_domains),
        trust_domains=frozenset(file.trust_domains),
        relays=frozenset(map(parse_service, file.relays)),
        default_mode=file.default_mode,
        default_public=file.default_public,
        namespaces=_namespaces(file),
        grants=tuple(
            Grant(
                Namespace(entry.to),
                Namespace(entry.from_),
                entry.service_account,
                entry.port,
                None if entry.until is None else end_of(entry.until),
            )
            for entry in file.grants
        ),
        roles=roles,
        exemptions=exemptions,
        hosts={host: Namespace(namespace) for host, namespace in file.hosts.items()},
        host_templates=tuple(map(HostTemplate.parse, file.host_templates)),
        route_owners=frozenset(map(Namespace, file.route_owners)),
    )


def _namespaces(file: _File) -> dict[Namespace, NamespacePolicy]:
    tenant_of = {
        name: tenant for tenant, entry in file.tenants.items() for name in entry.namespaces
    }
    known: dict[Namespace, NamespacePolicy] = {}
    for name in {**tenant_of, **file.namespaces}:
        entry = file.namespaces.get(name, _NamespaceEntry())
        tenant = tenant_of.get(name)
        tenant_mode = None if tenant is None else file.tenants[tenant].mode
        public = frozenset(entry.public) if isinstance(entry.public, list) else entry.public
        known[Namespace(name)] = NamespacePolicy(
            tenant, entry.mode or tenant_mode, public, entry.plaintext_peers, entry.reuse
        )
    return known


def _renamed(file: _File, data: Any) -> Iterator[str]:
    """Hosts that name their namespace themselves, in the cluster or in a tenant's mind."""
    ends = ("svc", *(f"svc.{domain}" for domain in file.cluster_domains))
    for host in file.hosts:
        if any(host == end or host.endswith(f".{end}") for end in ends):
            yield (
                f"line {line_of(data, ('hosts', host))}: hosts.{host}: a Service's name says its "
                "namespace itself: list only names of yours outside the cluster"
            )


def _contradictions(file: _File, data: Any) -> Iterator[str]:
    """What each field allows and all of them together do not."""
    owner: dict[str, str] = {}
    for tenant, entry in file.tenants.items():
        for index, name in enumerate(entry.namespaces):
            if name in owner:
                line = line_of(data, ("tenants", tenant, "namespaces", index))
                yield (
                    f"line {line}: tenants.{tenant}.namespaces: {name} is in tenant "
                    f"{owner[name]} already; a namespace belongs to one tenant"
                )
            owner[name] = tenant
    yield from _renamed(file, data)
    holders_of_roles = {peer for holders in file.roles.values() for peer in holders}
    for index, exemption in enumerate(file.exemptions):
        if exemption.peer in holders_of_roles:
            yield (
                f"line {line_of(data, ('exemptions', index, 'peer'))}: exemptions.{index}.peer: "
                f"{exemption.peer} has a role, so it passes on what tenants send; it cannot be "
                "exempt beyond the probes that are built in"
            )
    named: list[tuple[tuple[int | str, ...], str]] = [
        (("roles", role.value, index), holder)
        for role, holders in file.roles.items()
        for index, holder in enumerate(holders)
    ]
    named += [
        (("exemptions", index, "peer"), exemption.peer)
        for index, exemption in enumerate(file.exemptions)
    ]
    for location, workload in named:
        if SpiffeId.parse(workload).trust_domain not in file.trust_domains:
            yield (
                f"line {line_of(data, location)}: {field_name(location)}: {workload} is not of a "
                "trust domain in trust_domains"
            )
