"""JSON Schemas of the files that people write, for editors: made of the models that read them.

A schema knows each field by itself. What fields must be together, the command that reads the file
says.
"""

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from authz.config import Settings
from authz.policysource import file as policy_file
from authz.reach import cases
from authz.tenants.file import Tenants

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NULL: Final = {"type": "null"}


class Kind(enum.StrEnum):
    """A kind of file."""

    POLICY = "policy"
    CASES = "cases"
    SETTINGS = "settings"
    TENANTS = "tenants"


def schema(kind: Kind) -> dict[str, Any]:
    """The schema of a kind of file."""
    return _MAKERS[kind]()


def _settings() -> dict[str, Any]:
    """All settings but the secret, which no file may hold."""
    made = _schema_of(Settings, "Settings of tenant-authz")
    del made["properties"]["kek"]
    for name, said in made["properties"].items():
        if isinstance(said.get("default"), list) and "pattern" in said:  # an address
            said["default"] = str(Settings.model_fields[name].default)
    return made


_MAKERS: Final[Mapping[Kind, Callable[[], dict[str, Any]]]] = {
    Kind.POLICY: lambda: _schema_of(policy_file.FILE, "Policy of tenant-authz"),
    Kind.CASES: lambda: _schema_of(cases.FILE, "Cases of a policy of tenant-authz"),
    Kind.SETTINGS: _settings,
    Kind.TENANTS: lambda: _schema_of(Tenants, "Tenants of tenant-authz", may_be_empty=True),
}


def _schema_of(kind: type[BaseModel], title: str, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The schema of what a model reads; `may_be_empty` as in `yamlfile.parse_plain`."""
    made = _plain(kind.model_json_schema(by_alias=True), may_be_empty=may_be_empty)
    return {"$schema": _DIALECT, **made, "title": title}


def _plain(schema: Any, *, may_be_empty: bool) -> Any:
    """What an editor needs: no names of ours, no field without a value, no key of another form."""
    if isinstance(schema, list):
        return [_plain(each, may_be_empty=may_be_empty) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _plain(each, may_be_empty=may_be_empty) for name, each in value.items()}
        if key in {"properties", "$defs", "patternProperties"}
        else _plain(value, may_be_empty=may_be_empty)
        for key, value in schema.items()
        if key != "title"
    }
    if "patternProperties" in made:
        made.setdefault("additionalProperties", False)
    if "description" in made:
        made["description"] = " ".join(str(made["description"]).split())
    if made.get("default", ...) is None:
        del made["default"]
    if not may_be_empty and _NULL in made.get("anyOf", ()):
        left = [each for each in made.pop("anyOf") if each != _NULL]
        made |= left[0] if len(left) == 1 else {"anyOf": left}
    return made
