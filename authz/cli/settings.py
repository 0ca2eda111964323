"""Puts settings together from flags, environment and file. A flag is described by its field."""

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from pydantic import SecretStr, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from authz.config import PREFIX, Endpoint, KeySettings, Settings
from authz.domain.names import parse_namespace
from authz.errors import BadSettings, InvalidName
from authz.policysource.location import ConfigMapKey
from authz.yamlfile import read_input

T = TypeVar("T", bound=KeySettings)

_KINDS: Final[Mapping[Any, str]] = {
    int: "INTEGER",
    float: "NUMBER",
    bool: "true|false",
    Path: "PATH",
    list[Path]: "PATH,PATH",
    Endpoint: "HOST:PORT",
    ConfigMapKey: "NAMESPACE/NAME/KEY",
}

_PANEL = "Settings"
_LONGEST_WORDS: Final = 20  # characters; more takes the room of the texts beside it
_MOST: Final = 1 << 20  # bytes of a settings file
_Config = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="AUTHZ_CONFIG", help="the settings file, YAML", rich_help_panel=_PANEL
    ),
]


def namespaces(parameter: typer.CallbackParam, value: Any) -> Any:
    """Callback of an option that takes one namespace or several.

    Raises:
        BadSettings: one is none.
    """
    for it in [value] if isinstance(value, str) else value or ():
        try:
            parse_namespace(it)
        except InvalidName as error:
            raise BadSettings([f"{parameter.opts[0]}: {error}"]) from None
    return value


def takes(kind: type[T]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command with a parameter `settings` one flag for each field of `kind`.

    Secrets get none: what is in a command line is in everybody's process list.
    """
    names = [name for name, field in kind.model_fields.items() if SecretStr not in _types(field)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.name != "settings"]

        def call(config: Path | None = None, **values: Any) -> None:
            flags = {name: values.pop(name) for name in names}
            given = {name: value for name, value in flags.items() if value is not None}
            command(**values, settings=load_settings(kind, given, config))

        flags = [
            inspect.Parameter(name, kind_of, default=None, annotation=annotation)
            for name, annotation in (
                ("config", _Config),
                *((name, _flag(kind, name)) for name in names),
            )
            for kind_of in (inspect.Parameter.KEYWORD_ONLY,)
        ]
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in (*own, *flags)}
        return call

    return decorate


def _flag(kind: type[KeySettings], name: str) -> Any:
    field = kind.model_fields[name]
    none = field.is_required() or field.default in (None, [])
    default = "" if none else f" [dim](default {field.default})[/dim]"
    return Annotated[
        str | None,
        typer.Option(
            f"--{name.replace('_', '-')}",
            help=f"{field.description}{default}",
            show_default=False,
            metavar=_metavar(field),
            rich_help_panel=_PANEL,
        ),
    ]


def _metavar(field: Any) -> str:
    """What kind of value a flag takes; the value itself is checked with all others."""
    kind = next(type_ for type_ in _types(field) if type_ is not type(None))
    if isinstance(kind, type) and issubclass(kind, Enum):
        words = "|".join(it.value for it in kind)
        return words if len(words) <= _LONGEST_WORDS else "NAME"
    return _KINDS.get(kind, "TEXT")


def _types(field: Any) -> tuple[Any, ...]:
    return getattr(field.annotation, "__args__", (field.annotation,))


def load_settings(kind: type[T], flags: Mapping[str, Any], file: Path | None) -> T:
    """Put the settings of a kind together. The file may hold settings of other kinds, too.

    Raises:
        BadSettings: with every problem, each naming the setting.
    """
    in_file = {} if file is None else _read(file)
    in_environment = {name.upper() for name in os.environ}
    values = {
        name: value
        for name, value in in_file.items()
        if name in kind.model_fields and f"{PREFIX}{name}".upper() not in in_environment
    }
    values.update(flags)
    problems = [f"{name}: unknown setting" for name in in_file if name not in Settings.model_fields]
    try:
        settings = kind(**values)
    except ValidationError as error:
        problems += [*_problems(error), *_contradicting(kind, values, error)]
    if problems:
        raise BadSettings(problems)
    return settings


def _contradicting(
    kind: type[KeySettings], values: Mapping[str, Any], error: ValidationError
) -> Iterator[str]:
    """What would also be found if the settings that are bad by themselves had their defaults."""
    bad = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
    if not bad:
        return
    try:
        kind(**{**values, **{name: kind.model_fields[name].default for name in bad}})
    except ValidationError as also:
        yield from (text for text in _problems(also) if text.partition(":")[0] not in bad)


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        yield from _messages(problem)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = YAML(typ="safe", pure=True).load(read_input(file, _MOST).decode("utf-8")) or {}
    except OSError as error:
        raise BadSettings([f"config: {file}: {error.strerror}"]) from None
    except MarkedYAMLError as error:  # its text would quote the line
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadSettings([f"config: {file} is not valid YAML: line {line}"]) from None
    except (YAMLError, ValueError, LookupError, RecursionError) as error:
        raise BadSettings([f"config: {file} is not valid YAML: {error}"]) from None
    if not (isinstance(values, dict) and all(isinstance(name, str) for name in values)):
        raise BadSettings([f"config: {file} must hold a mapping, such as 'listen: 127.0.0.1:9000'"])
    if "kek" in values:
        raise BadSettings(
            [f"kek: a secret does not belong in {file}: use kek_files or {PREFIX}KEK"]
        )
    return values


def _messages(problem: Mapping[str, Any]) -> list[str]:
    text = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:  # found by looking at several settings: each line names its own
        return text.splitlines()
    name = ".".join(str(step) for step in problem["loc"])
    return [f"{name}: {text}"]
