"""Files that people write: YAML in, a checked model out, or every problem with its line.

Nothing is guessed: unknown fields, duplicate keys and values of another type are errors. It is
plain data: aliases, which can make a small file grow without bound, and tags are errors, too.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent

from authz.errors import ProblemsError

_LONGEST_QUOTE: Final = 80  # characters


STRICT: Final = ConfigDict(extra="forbid", frozen=True, strict=True)
"""The configuration of every model of such a file."""

M = TypeVar("M", bound=BaseModel)


def parse_plain(text: str, kind: type[M], what: str, wrong: type[ProblemsError]) -> tuple[M, Any]:
    """Read a file's text; `what` is the file's name in problems, such as "policy".

    Returns the model, and the data for `line_of`.

    Raises:
        wrong: with every problem, each as `line <n>: <field>: <what is wrong>`.
    """
    data = _load(text, what, wrong)
    try:
        return kind.model_validate(data), data
    except ValidationError as error:
        raise wrong(
            [
                f"line {line_of(data, problem['loc'])}: "
                f"{field_name(problem['loc']) or what}: {_said(problem)}"
                for problem in error.errors(include_url=False, include_context=False)
            ]
        ) from None


def line_of(data: Any, location: tuple[int | str, ...]) -> int:
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


def field_name(location: tuple[int | str, ...]) -> str:
    """The name of a field, from the file's top."""
    return ".".join(str(step) for step in location)


class _PlainComposer(Composer):
    """Composes what is written out: no aliases, no tags."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent) or getattr(event, "ctag", None) is not None:
            raise ComposerError(None, None, "", event.start_mark)
        return super().compose_node(parent, index)


class _MarkingConstructor(RoundTripConstructor):
    """Says where a value stands that looks like a date or number and is none."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from None


def _load(text: str, what: str, wrong: type[ProblemsError]) -> Any:
    yaml = YAML(typ="rt", pure=True)
    yaml.Composer, yaml.Constructor = _PlainComposer, _MarkingConstructor
    try:
        data = yaml.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        said = error.problem or f"a {what} has no aliases and no tags, so write it out"
        raise wrong([f"line {line}: not valid YAML: {said}"]) from None
    except RecursionError:
        raise wrong(["not valid YAML: it is nested too deeply"]) from None
    except Exception as error:  # noqa: BLE001 - the parser meets garbage with errors of any kind
        raise wrong([f"not valid YAML: {error}"]) from None
    if data is None:
        return {}
    if not isinstance(data, Mapping):
        raise wrong([f"line 1: the {what} must be a mapping, such as 'tenants: {{}}'"])
    return data


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
