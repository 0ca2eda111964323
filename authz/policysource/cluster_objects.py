"""What Kubernetes' objects say, as values: labels of namespaces, `Grant`s, claims of domains."""

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from authz.domain.identity import parse_service_account
from authz.domain.names import Namespace, normal_host, parse_namespace
from authz.domain.policy import EVERYONE, Grant
from authz.errors import InvalidName
from authz.kube import Resource
from authz.policysource.days import end_of, parse_day
from authz.policysource.merge import GrantName, Labels
from authz.wire import GROUP, MODE_LABEL, TENANT_LABEL

NAMESPACES: Final = Resource("namespaces", metadata_only=True)
GRANTS: Final = Resource("grants", group=GROUP, version="v1alpha1")
CLAIMS: Final = Resource(
    "clusterdomainclaims", group="networking.internal.knative.dev", version="v1alpha1"
)
"""Of Knative Serving: a host that DomainMappings of one namespace may use. Of the cluster."""

_LONGEST: Final = 300


def _source(text: str) -> str:
    return text if text == EVERYONE else parse_namespace(text)


def _day(text: str) -> str:
    parse_day(text)
    return text


class _Spec(BaseModel):
    """A `Grant`'s spec. A field that is not known might have narrowed the grant: it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    from_: Annotated[str, AfterValidator(_source), Field(alias="from")]
    service_account: Annotated[
        str | None, AfterValidator(lambda text: text and parse_service_account(text))
    ] = Field(None, alias="serviceAccount", min_length=1)
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    until: Annotated[str, AfterValidator(_day)] | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _has_a_value(cls, value: object) -> object:
        if value is None:
            raise ValueError("has no value: write one, or leave it out")
        return value


def labels_of(metadata: dict[str, Any]) -> Labels | None:
    """What a namespace's labels say to us; `None` where it has none of ours."""
    labels = metadata.get("labels")
    if not isinstance(labels, dict):
        return None
    said = Labels(_text(labels.get(TENANT_LABEL)), _text(labels.get(MODE_LABEL)))
    return None if said == Labels() else said


def grant_name(metadata: dict[str, Any]) -> GrantName | None:
    """Where a `Grant` is; `None` where its metadata do not say."""
    name = metadata.get("name")
    try:
        namespace = parse_namespace(str(metadata.get("namespace", "")))
    except InvalidName:
        return None
    return GrantName(namespace, name) if isinstance(name, str) and name else None


def grant_of(thing: dict[str, Any], destination: Namespace) -> Grant | str:
    """The grant that an object makes in its namespace, or what is wrong with it."""
    try:
        spec = _Spec.model_validate(thing.get("spec"))
    except ValidationError as error:
        return "; ".join(_message(problem) for problem in error.errors(include_url=False))[
            :_LONGEST
        ]
    return Grant(
        destination,
        Namespace(spec.from_),
        spec.service_account,
        spec.port,
        None if spec.until is None else end_of(parse_day(spec.until)),
    )


def claim_of(thing: dict[str, Any]) -> tuple[str, Namespace] | None:
    """A host and its namespace, as a ClusterDomainClaim has them; `None` if it is none.

    Source: knative.dev/networking pkg/apis/networking/v1alpha1/domainclaim_types.go.
    """
    metadata, spec = thing.get("metadata"), thing.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        return None
    host = normal_host(str(metadata.get("name", "")))
    try:
        namespace = parse_namespace(str(spec.get("namespace", "")))
    except InvalidName:
        return None
    return None if host is None else (host, namespace)


def _message(problem: Any) -> str:
    field = ".".join(str(step) for step in ("spec", *problem["loc"]))
    match problem["type"]:
        case "extra_forbidden":
            return f"{field}: there is no such field"
        case "missing":
            return f"{field}: is required"
        case _:
            return f"{field}: {str(problem['msg']).removeprefix('Value error, ')}"


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
