"""The policy file: YAML in, a `Policy` out, or every problem with its line.

Nothing is guessed: unknown fields, duplicate keys and values of another type are errors, and a file
with one problem changes nothing. It is plain data: aliases, which can make a small file grow
without bound, and tags are errors, too.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent

from authz.errors import BadPolicy, InvalidIdentity
from authz.identity import SpiffeId, is_service_account
from authz.names import (
    Namespace,
    is_dns_name,
    parse_cluster_domain,
    parse_namespace,
    parse_service,
)
from authz.policy import (
    EVERYONE,
    Exemption,
    Grant,
    Mode,
    NamespacePolicy,
    Policy,
    Role,
)

MAX_BYTES: Final = 2 * 1024 * 1024
"""A larger file is refused. A ConfigMap holds at most 1 MiB."""

_EPOCH: Final = dt.date(1970, 1, 1)
_PLAIN: Final = "a policy has no aliases and no tags, so write it out"
_LONGEST_QUOTE: Final = 80  # characters


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


def _service_account(text: str) -> str:
    if not is_service_account(text):
        raise ValueError(f"{text!r} is not the name of a service account")
    return text


def _source(text: str) -> str:
    return text if text == EVERYONE else parse_namespace(text)


def _service(text: str) -> str:
    return str(parse_service(text))


_Namespace = Annotated[str, AfterValidator(parse_namespace)]
_SpiffeId = Annotated[str, AfterValidator(_spiffe_id)]
_DnsName = Annotated[str, AfterValidator(_dns_name)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_Text = Annotated[str, Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Tenant(_Model):
    namespaces: list[_Namespace]
    mode: Annotated[Mode | None, Field(strict=False)] = None


class _NamespaceEntry(_Model):
    mode: Annotated[Mode | None, Field(strict=False)] = None
    public: bool = True
    plaintext_peers: bool = False


class _GrantEntry(_Model):
    to: _Namespace
    from_: Annotated[str, AfterValidator(_source), Field(alias="from")]
    service_account: Annotated[str, AfterValidator(_service_account)] | None = None
    port: _Port | None = None
    until: dt.date | None = None


class _ExemptionEntry(_Model):
    peer: _SpiffeId
    port: _Port
    path: Annotated[str, Field(pattern=r"^/[^?#]*$")] | None = None
    user_agent: _Text | None = None
    network_probe: _Text | None = None


class _File(_Model):
    cluster_domains: Annotated[
        list[Annotated[str, AfterValidator(parse_cluster_domain)]], Field(min_length=1)
    ] = ["cluster.local"]
    trust_domains: Annotated[
        list[Annotated[str, AfterValidator(_trust_domain)]], Field(min_length=1)
    ] = ["cluster.local"]
    relays: list[Annotated[str, AfterValidator(_service)]] = []
    default_mode: Annotated[Mode, Field(strict=False)] = Mode.ENFORCE
    roles: dict[Annotated[Role, Field(strict=False)], list[_SpiffeId]] = {}
    tenants: dict[_DnsName, _Tenant] = {}
    namespaces: dict[_Namespace, _NamespaceEntry] = {}
    grants: list[_GrantEntry] = []
    exemptions: list[_ExemptionEntry] = []
    hosts: dict[_DnsName, _Namespace] = {}


def read_policy(file: Path) -> Policy:
    """Read a policy file.

    Raises:
        BadPolicy: it cannot be read, or see `parse_policy`.
    """
    return parse_policy(_text_of(file))


def read_policy_as_json(file: Path) -> str:
    """Read and check a policy file: the same in JSON, which `policy_of_json` reads much faster.

    Raises:
        BadPolicy: it cannot be read, or see `parse_policy`.
    """
    return _checked(_text_of(file)).model_dump_json(by_alias=True)


def parse_policy(text: str) -> Policy:
    """Read a policy file's text.

    Raises:
        BadPolicy: with every problem, each as `line <n>: <field>: <what is wrong>`.
    """
    return _policy(_checked(text))


def policy_of_json(text: bytes) -> Policy:
    """Undo `read_policy_as_json`.

    Raises:
        BadPolicy: it is something else.
    """
    try:
        return _policy(_File.model_validate_json(text))
    except ValidationError as error:
        raise BadPolicy([f"not a policy: {error.error_count()} problems"]) from None


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise BadPolicy([f"policy_file: {file}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise BadPolicy([f"policy_file: {file} is not UTF-8 text"]) from None


def _checked(text: str) -> _File:
    if len(text) > MAX_BYTES:
        raise BadPolicy([f"the policy file is larger than {MAX_BYTES} bytes"])
    data = _load(text)
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        raise BadPolicy(
            [
                f"line {_line(data, problem['loc'])}: {_field(problem['loc'])}: {_said(problem)}"
                for problem in error.errors(include_url=False, include_context=False)
            ]
        ) from None
    problems = list(_contradictions(file, data))
    if problems:
        raise BadPolicy(problems)
    return file


class _PlainComposer(Composer):
    """Composes what is written out: no aliases, no tags."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent) or getattr(event, "ctag", None) is not None:
            raise ComposerError(None, None, _PLAIN, event.start_mark)
        return super().compose_node(parent, index)


class _MarkingConstructor(RoundTripConstructor):
    """Says where a value stands that looks like a date or number and is none."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from None


def _load(text: str) -> Any:
    yaml = YAML(typ="rt", pure=True)
    yaml.Composer, yaml.Constructor = _PlainComposer, _MarkingConstructor
    try:
        data = yaml.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadPolicy([f"line {line}: not valid YAML: {error.problem}"]) from None
    except RecursionError:
        raise BadPolicy(["not valid YAML: it is nested too deeply"]) from None
    except Exception as error:  # noqa: BLE001 - the parser meets garbage with errors of any kind
        raise BadPolicy([f"not valid YAML: {error}"]) from None
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise BadPolicy(["line 1: the policy must be a mapping, such as 'tenants: {}'"])
    return data


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
        namespaces=_namespaces(file),
        grants=tuple(
            Grant(
                Namespace(entry.to),
                Namespace(entry.from_),
                entry.service_account,
                entry.port,
                _end_of(entry.until),
            )
            for entry in file.grants
        ),
        roles=roles,
        exemptions=exemptions,
        hosts={host: Namespace(namespace) for host, namespace in file.hosts.items()},
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
        known[Namespace(name)] = NamespacePolicy(
            tenant, entry.mode or tenant_mode, entry.public, entry.plaintext_peers
        )
    return known


def _end_of(day: dt.date | None) -> int | None:
    """The last moment of a day in UTC, so that `until` includes the day that it names."""
    if day is None:
        return None
    return ((day - _EPOCH).days + 1) * 86400


def _contradictions(file: _File, data: Any) -> Iterator[str]:
    """What each field allows and all of them together do not."""
    owner: dict[str, str] = {}
    for tenant, entry in file.tenants.items():
        for index, name in enumerate(entry.namespaces):
            if name in owner:
                line = _line(data, ("tenants", tenant, "namespaces", index))
                yield (
                    f"line {line}: tenants.{tenant}.namespaces: {name} is in tenant "
                    f"{owner[name]} already; a namespace belongs to one tenant"
                )
            owner[name] = tenant
    holders_of_roles = {peer for holders in file.roles.values() for peer in holders}
    for index, exemption in enumerate(file.exemptions):
        if exemption.peer in holders_of_roles:
            yield (
                f"line {_line(data, ('exemptions', index, 'peer'))}: exemptions.{index}.peer: "
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
                f"line {_line(data, location)}: {_field(location)}: {workload} is not of a trust "
                "domain in trust_domains"
            )


def _line(data: Any, location: tuple[int | str, ...]) -> int:
    """The line of a field, or of the closest thing around it that is there."""
    line = 0
    for step in location:
        try:
            marks = data.lc
            line = (marks.item(step) if isinstance(step, int) else marks.key(step))[0]
            data = data[step]
        except (AttributeError, KeyError, IndexError, TypeError):
            break
    return int(line) + 1


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(str(step) for step in location) or "policy"


def _said(problem: Mapping[str, Any]) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    match problem["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "there is no such field"
        case "value_error":
            return text
        case "date_type":
            return "write a day without time and quotation marks, such as 2027-01-31"
        case _:
            return f"{text}, not {_quoted(problem['input'])}"


def _quoted(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
