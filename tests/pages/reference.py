"""The tables of authz/REFERENCE.md, made of the code that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from typer.main import get_command

import authz.cli as command_line
from authz import wire
from authz.check import asked
from authz.config import KeySettings, Settings
from authz.domain.policy import Mode, Role
from authz.domain.reason import Reason
from authz.domain.verdict import Ground
from authz.observe import Metrics
from authz.policysource import file as policy_file
from authz.reach.cases import Case
from authz.reach.ways import Way
from authz.testing import ManualClock
from tests.pages.markdown import meanings, table, text

CRD: Final = Path(__file__).parents[2] / "deploy/crds/grants.yaml"

# Commands --------------------------------------------------------------------------------------


def commands() -> str:
    """A section for each command, from its help."""
    return "\n".join(_command(words, one) for words, one in sorted(every_command()))


def every_command() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    for name, command in _subcommands(get_command(command_line.app)):
        inner = dict(_subcommands(command)) or {"": command}
        yield from ((f"authz {name} {sub}".strip(), one) for sub, one in inner.items())


def _subcommands(group: Any) -> Iterator[tuple[str, Any]]:
    for name in getattr(group, "commands", ()):
        yield name, group.get_command(None, name)


def _command(words: str, command: Any) -> str:
    own = [it for it in command.params if not it.rich_help_panel and it.name != "as_json"]
    arguments = [_argument(it) for it in own if not it.opts[0].startswith("-")]
    parts = [f"### `{' '.join([words, *arguments])}`\n\n{text(command.help)}\n"]
    if own:
        rows = [(_option(it), _default_of(it), it.help) for it in own]
        parts.append(f"\n{table(['argument or option', 'default', 'meaning'], rows)}")
    names = {param.name for param in command.params}
    taken = {
        "`--json`": "as_json" in names,
        "the settings as flags": "listen" in names,
        "the key settings as flags": "store" in names and "listen" not in names,
    }
    if any(taken.values()):
        parts.append(f"\nTakes {', '.join(it for it, does in taken.items() if does)}.\n")
    examples = (command.epilog or "").partition(": ")[2].split("; ")
    lines = "".join(f"{example.partition(', when ')[0]}\n" for example in examples)
    return "".join([*parts, f"\n```sh\n{lines}```\n"])


def _argument(argument: Any) -> str:
    word = (argument.metavar or argument.name.upper().replace("_", "-")).strip("[]")
    return word if argument.required else f"[{word}]"


def _option(option: Any) -> str:
    name = option.opts[0]
    if not name.startswith("-"):
        return f"`{_argument(option)}`"
    value = "" if option.is_flag else f" {option.metavar or option.name.upper().replace('_', '-')}"
    return f"`{name}{value}`{', repeatable' if option.multiple else ''}"


def _default_of(option: Any) -> str:
    if option.required:
        return "required"
    return "" if option.default in (None, False, []) else f"`{option.default}`"


def exit_codes() -> str:
    """What the command line's own docstring says of them."""
    return table(["code", "meaning"], re.findall(r"(\d) ([^,.]+)", command_line.__doc__ or ""))


def checks() -> str:
    """What `authz check` asks."""
    before = {check.name for _, check in asked(before=True)}
    every = dict.fromkeys((*asked(before=True), *asked(before=False)))
    rows = [
        (
            group.title,
            f"`{it.name}`" + (", `--pre`" if it.name in before else ""),
            it.title,
            f"[{it.page.partition('#')[0]}](../{it.page})",
        )
        for group, it in every
    ]
    return table(["part", "line", "ok if", "see"], rows)


# Settings and policy ---------------------------------------------------------------------------


def settings() -> str:
    """Every setting of a server."""
    rows = [
        (
            f"`{name}`" + (" (key)" if name in KeySettings.model_fields else ""),
            _value(field.default, as_yaml=False),
            _bounds(field),
            field.description,
        )
        for name, field in Settings.model_fields.items()
    ]
    return table(["name", "default", "allowed", "meaning"], rows)


def _bounds(field: FieldInfo) -> str:
    least = next((it.ge for it in field.metadata if isinstance(it, Ge)), None)
    most = next((it.le for it in field.metadata if isinstance(it, Le)), None)
    if most is not None:
        return f"{least:,} to {most:,}"
    return "" if least is None else f"from {least:,}"


def _value(value: object, *, as_yaml: bool = True) -> str:
    if value in (None, [], {}):
        return ""
    if as_yaml and isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`[{', '.join(map(str, value))}]`" if isinstance(value, list) else f"`{value}`"


_INSIDE: Final[Mapping[str, tuple[str, type[BaseModel]]]] = {
    "tenants": ("tenants.NAME.", policy_file._Tenant),
    "namespaces": ("namespaces.NAME.", policy_file._NamespaceEntry),
    "grants": ("grants[].", policy_file._GrantEntry),
    "exemptions": ("exemptions[].", policy_file._ExemptionEntry),
}


def policy() -> str:
    """Every field of the policy file."""
    return table(["field", "default", "meaning"], _fields(policy_file._File, ""))


def _fields(model: type[BaseModel], path: str) -> Iterator[tuple[str, str, str]]:
    meaning = meanings(model)
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _value(field.default)
        yield f"`{path}{field.alias or name}`", default, meaning[name]
        if not path and name in _INSIDE:
            inner, of = _INSIDE[name]
            yield from _fields(of, inner)


def cases() -> str:
    """Every field of a case in the file for `authz policy test`."""
    return table(["field", "default", "meaning"], _fields(Case, "cases[]."))


def modes() -> str:
    """What the modes of a namespace mean."""
    said = {Mode.ENFORCE.name: "Deny what is to be denied.", **meanings(Mode)}
    return table(["mode", "meaning"], [(f"`{Mode[it]}`", what) for it, what in said.items()])


def ways() -> str:
    """The ways of `authz policy matrix` and its relatives."""
    return table(
        ["way", "a request comes"], [(f"`{Way[it]}`", what) for it, what in meanings(Way).items()]
    )


def roles() -> str:
    """What holders of a role do."""
    rows = [(f"`{Role[it]}`", what) for it, what in meanings(Role).items()]
    return table(["role", "its holder"], rows)


def grant() -> str:
    """The fields of the kind `Grant`, as its CustomResourceDefinition describes them."""
    (version,) = YAML(typ="safe").load(CRD.read_text())["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rows = [
        (f"`spec.{it}`", one["type"], "required" * (it in spec["required"]), one["description"])
        for it, one in spec["properties"].items()
    ]
    return table(["field", "type", "", "meaning"], rows)


# What a server says ----------------------------------------------------------------------------


def reasons() -> str:
    """Why a request may be denied, and what its caller is told."""
    rows = [(f"`{it.slug}`", f"`{it.outward.value}`", it.sentence) for it in Reason]
    return table(["denied: reason", "the caller is told", "because"], rows)


def grounds() -> str:
    """Why a request may be allowed."""
    return table(["allowed: reason", "because"], [(f"`{it.slug}`", it.value) for it in Ground])


def exported_name(family: Any) -> str:
    """What a metric is called in queries."""
    ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
    return f"{family.name}{ending}"


def metrics() -> str:
    """Every metric, from its own help text."""
    rows = []
    for family in Metrics(ManualClock()).registry.collect():
        name = exported_name(family)
        labels = ", ".join(getattr(family, "_labelnames", ()))
        shown = f"{name}{{{labels}}}" if labels else name
        rows.append((f"`{shown}`", family.type, family.documentation))
    return table(["metric", "type", "meaning"], rows)


def words() -> str:
    """Headers, metadata and labels."""
    said = meanings(wire).items()
    return table(["word", "meaning"], [(f"`{getattr(wire, it)}`", what) for it, what in said])
