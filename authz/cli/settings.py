"""Makes flags of settings, so that each is described in one place: its field."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import SecretStr

from authz.config import KeySettings, load_settings

T = TypeVar("T", bound=KeySettings)

_PANEL = "Settings"
_Config = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="AUTHZ_CONFIG", help="the settings file, YAML", rich_help_panel=_PANEL
    ),
]


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
            rich_help_panel=_PANEL,
        ),
    ]


def _types(field: Any) -> tuple[Any, ...]:
    return getattr(field.annotation, "__args__", (field.annotation,))
