"""Evaluates the admission policies that ship, by the reference implementation of CEL in C++.

Kubernetes evaluates with cel-go; of the functions beyond the language itself, the policies use only
those of the strings extension, which both have, and Kubernetes' `authorizer`, whose answer is an
argument here. Tests with a real API server are in tests/admission.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings
from ruamel.yaml import YAML

from tests.admission.rows import Account, plural

Json: TypeAlias = dict[str, Any]

ADMISSION = Path(__file__).parent.parent.parent / "deploy" / "platform" / "admission"
TENANT = "tenant-authz.dev/tenant"
SOMEBODY = Account("somebody")

_NAMES = ("object", "oldObject", "namespaceObject", "request", "variables")
_ENV = cel.NewEnv(
    variables=dict.fromkeys(_NAMES, cel.Type.DYN), extensions=[ext_strings.ExtStrings()]
)


@dataclass(frozen=True)
class Request:
    """What is asked of the API server."""

    obj: Mapping[str, Any]
    old: Mapping[str, Any] | None = None
    subresource: str = ""
    by: Account = SOMEBODY
    namespace: Mapping[str, Any] = field(default_factory=lambda: {"metadata": {}})
    """The Namespace that the object is in."""
    may_change_all: bool = False
    """Whether `by` may change every namespace."""

    @property
    def what(self) -> tuple[str, str, str]:
        """API group, resource with its subresource, operation."""
        group, slash, _ = self.obj["apiVersion"].rpartition("/")
        resource = plural(self.obj["kind"])
        if self.subresource == "binding":
            resource = "pods"
        way = f"/{self.subresource}" if self.subresource else ""
        update = self.old is not None and self.subresource != "binding"
        return (group if slash else "", resource + way, "UPDATE" if update else "CREATE")


class AdmissionPolicy:
    """One ValidatingAdmissionPolicy."""

    def __init__(self, policy: Json, binding: Json) -> None:
        self.spec, self.binding = policy["spec"], binding["spec"]
        self.name = policy["metadata"]["name"]

    def matches(self, request: Request) -> bool:
        """Whether it looks at a request at all."""
        group, resource, operation = request.what
        constraints = self.spec["matchConstraints"]
        if "namespaceSelector" in constraints:
            (rule,) = constraints["namespaceSelector"]["matchExpressions"]
            assert rule == {"key": TENANT, "operator": "Exists"}
            if TENANT not in request.namespace["metadata"].get("labels", {}):
                return False
        return any(
            {group, "*"} & set(rule["apiGroups"])
            and operation in rule["operations"]
            and any(_names(pattern, resource) for pattern in rule["resources"])
            for rule in constraints["resourceRules"]
        )

    def refusals(self, request: Request) -> list[str]:
        """The messages with which a request is refused; none if it may pass."""
        if not self.matches(request):
            return []
        part = {"subResource": request.subresource} if request.subresource else {}
        data: Json = {
            "object": request.obj,
            "oldObject": request.old,
            "namespaceObject": request.namespace,
            "request": {
                "userInfo": {"username": request.by.name, "groups": list(request.by.groups)},
                "namespace": request.obj["metadata"].get("namespace", ""),
                "operation": request.what[2],
                "resource": {"resource": request.what[1].partition("/")[0]},
                **part,
            },
            "variables": {},
        }
        for condition in self.spec.get("matchConditions", []):
            if not _value(condition["expression"], data):
                return []
        for variable in self.spec.get("variables", []):
            name, expression = variable["name"], variable["expression"]
            asks = "authorizer." in expression
            value = request.may_change_all if asks else _value(expression, data)
            data["variables"][name] = value
        return [
            rule.get("message") or _value(rule["messageExpression"], data)
            for rule in self.spec["validations"]
            if _value(rule["expression"], data) is not True
        ]


def policies() -> dict[str, AdmissionPolicy]:
    """All that ship, by their names."""
    documents = [
        document
        for file in sorted(ADMISSION.glob("*.yaml"))
        for document in YAML(typ="safe", pure=True).load_all(file.read_text())
    ]
    bindings = {
        one["spec"]["policyName"]: one
        for one in documents
        if one["kind"] == "ValidatingAdmissionPolicyBinding"
    }
    return {
        one["metadata"]["name"]: AdmissionPolicy(one, bindings[one["metadata"]["name"]])
        for one in documents
        if one["kind"] == "ValidatingAdmissionPolicy"
    }


def _names(pattern: str, resource: str) -> bool:
    """Whether a rule's pattern names a resource, as `pods/status`, `*/status`, `*` or `*/*`."""
    if pattern == "*":
        return "/" not in resource
    return pattern in {"*/*", resource} or (
        pattern.startswith("*/") and resource.endswith(pattern[1:])
    )


def _value(expression: str, data: Mapping[str, Any]) -> Any:
    return _ENV.compile(expression).eval(data=dict(data)).plain_value()
