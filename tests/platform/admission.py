"""Evaluates the admission policies that ship, by the reference implementation of CEL in C++.

Kubernetes evaluates with cel-go; of the functions beyond the language itself, the policies use only
those of the strings extension, which both have.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_strings
from ruamel.yaml import YAML

ADMISSION = Path(__file__).parent.parent.parent / "deploy" / "platform" / "admission"

_NAMES = ("object", "oldObject", "namespaceObject", "request", "variables")
_ENV = cel.NewEnv(
    variables=dict.fromkeys(_NAMES, cel.Type.DYN), extensions=[ext_strings.ExtStrings()]
)


class AdmissionPolicy:
    """One ValidatingAdmissionPolicy."""

    def __init__(self, file: str) -> None:
        policy, self.binding = YAML(typ="safe").load_all((ADMISSION / file).read_text())
        self.spec = policy["spec"]
        self.name = policy["metadata"]["name"]

    def refusals(
        self,
        obj: Mapping[str, Any],
        *,
        old: Mapping[str, Any] | None = None,
        namespace: Mapping[str, Any] | None = None,
        user: str = "somebody",
    ) -> list[str]:
        """The messages with which an object is refused; none if it may pass."""
        data: dict[str, Any] = {
            "object": obj,
            "oldObject": old,
            "namespaceObject": namespace or {"metadata": {}},
            "request": {
                "userInfo": {"username": user},
                "namespace": obj["metadata"].get("namespace", ""),
            },
            "variables": {},
        }
        for condition in self.spec.get("matchConditions", []):
            if not _value(condition["expression"], data):
                return []
        for variable in self.spec.get("variables", []):
            data["variables"][variable["name"]] = _value(variable["expression"], data)
        return [
            rule.get("message") or _value(rule["messageExpression"], data)
            for rule in self.spec["validations"]
            if _value(rule["expression"], data) is not True
        ]


def _value(expression: str, data: Mapping[str, Any]) -> Any:
    return _ENV.compile(expression).eval(data=dict(data)).plain_value()
