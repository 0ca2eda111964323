"""Files that people name and write: YAML in, a checked model out, or every problem with its line.

Nothing is guessed: unknown fields, duplicate keys and values of another type are errors, and so are
fields without a value, unless a file says otherwise: what was to narrow a grant would open it. It
is plain data: aliases, which can make a small file grow without bound, and tags are errors, too.
"""

import datetime as dt
import errno
import os
import re
import select
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, WithJsonSchema
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent

from authz.errors import ProblemsError

DEEPEST: Final = 16
"""Levels of such a file; what is documented has at most seven."""
_LONGEST_QUOTE: Final = 80  # characters
_PIPE_SECONDS: Final = 5.0
"""How long a pipe may be without anybody who writes to it."""
_PIPE_PAUSE: Final = 20  # milliseconds
_PART: Final = 1 << 16  # bytes
_SCALAR: Final = re.compile(r"[^\s,\[\]{}:#'\"]{1,80}")


STRICT: Final = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
"""The configuration of every model of such a file. What stands below a field describes it."""

M = TypeVar("M", bound=BaseModel)


def read_input(path: Path, most: int) -> bytes:
    """What a file holds that somebody names, or a pipe, such as of `<(command)`.

    Raises:
        OSError: it cannot be read, has more than `most` bytes, is a device, which may have no end,
            or a pipe that nobody writes to, which would be waited for.
    """
    content = b"".join(chunks_of(path, most))
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most} bytes")
    return content


def chunks_of(path: Path, most: int | None = None) -> Iterator[bytes]:
    """The same in parts, little more than `most` bytes of it.

    Raises:
        OSError: see `read_input`.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb", buffering=0) as file:
        mode, told = os.fstat(handle).st_mode, 0
        if stat.S_ISFIFO(mode):
            first = _first_of_pipe(handle)
            told += len(first)
            yield first
        elif not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise OSError(errno.EINVAL, "it is a device: name a file or a pipe")
        os.set_blocking(handle, True)
        while (most is None or told <= most) and (part := file.read(_PART)):
            told += len(part)
            yield part


def _first_of_pipe(handle: int) -> bytes:
    """What is in a pipe first: as long as nobody writes, to read it is to be at its end."""
    deadline = time.monotonic() + _PIPE_SECONDS
    events = select.poll()
    events.register(handle, select.POLLIN)
    while True:
        ended = bool(events.poll(_PIPE_PAUSE))  # of a pipe that nobody has opened, nothing is told
        try:
            if (first := os.read(handle, _PART)) or ended:
                return first
        except BlockingIOError:
            return b""  # somebody is there, and takes their time
        if time.monotonic() > deadline:
            raise OSError(errno.ENODATA, "it is a pipe, and nobody writes to it")


def text_like(pattern: str, longest: int | None = None) -> WithJsonSchema:
    """What editors are told of a text: a regular expression, without anchors, matches it whole."""
    limit = {} if longest is None else {"maxLength": longest}
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$", **limit})


DAY: Final = WithJsonSchema(
    {"type": "string", "format": "date", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
)
"""What editors are told of a day."""


def parse_plain(
    text: str,
    kind: type[M],
    what: str,
    wrong: type[ProblemsError],
    *,
    may_be_empty: bool = False,
) -> tuple[M, Any]:
    """Read a file's text; `what` is the file's name in problems, such as "policy".

    With `may_be_empty`, it is up to `kind` whether a field may be there without a value.

    Returns the model, and the data for `line_of`.

    Raises:
        wrong: with every problem, each as `line <n>: <field>: <what is wrong>`.
    """
    data = _load(text, what, wrong)
    empty = () if may_be_empty else _empty(data)
    problems = dict.fromkeys(empty, "has no value: write one, or leave it out")
    told = []
    try:
        model = kind.model_validate(data)
    except ValidationError as error:
        lines = text.splitlines()
        told = [
            (_place(problem), _message(problem, lines, data))
            for problem in error.errors(include_url=False, include_context=False)
            if problem["loc"] not in problems
        ]
    if problems or told:
        raise wrong(
            [
                f"line {line_of(data, location)}: {field_name(location) or what}: {said}"
                for location, said in [*told, *problems.items()]
            ]
        )
    return model, data


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


def _empty(data: Any, location: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    """Where nothing stands after a name, or `null`."""
    inner: Iterable[tuple[int | str, Any]] = ()
    if isinstance(data, Mapping):
        inner = data.items()
    elif isinstance(data, list):
        inner = enumerate(data)
    for step, value in inner:
        if value is None:
            yield (*location, step)
        else:
            yield from _empty(value, (*location, step))


class _PlainComposer(Composer):
    """Composes what is written out: no aliases, no tags, and nothing that is nested deeply.

    ruamel.yaml looks at every level again with each token: two thousand brackets take seconds.
    """

    _level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(event, AliasEvent) or getattr(event, "ctag", None) is not None:
            raise ComposerError(None, None, "", event.start_mark)
        self._level += 1
        if self._level > DEEPEST:
            raise ComposerError(
                None, None, f"it is nested more than {DEEPEST} deep", event.start_mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self._level -= 1


class _MarkingConstructor(RoundTripConstructor):
    """Says where a value stands that looks like a date or number and is none."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from None

    def construct_number(self, node: Any) -> Any:
        """An integer, without the underscores that YAML 1.1 had."""
        if "_" in node.value:
            raise ValueError(f"{node.value[:_LONGEST_QUOTE]}: write a number without _")
        return self.construct_yaml_int(node)


_MarkingConstructor.add_constructor("tag:yaml.org,2002:int", _MarkingConstructor.construct_number)


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


def _place(problem: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Where the problem is: a key that is no text is named by itself."""
    location: tuple[int | str, ...] = problem["loc"]
    return location[:-1] if _is_no_text(problem) and location[-1] == "[key]" else location


def _is_no_text(problem: Mapping[str, Any]) -> bool:
    """Whether text is wanted and YAML makes a number, a boolean or a day of what stands there."""
    return problem["type"] == "string_type" and isinstance(
        problem["input"], bool | int | float | dt.date
    )


def _written(lines: list[str], data: Any, problem: Mapping[str, Any]) -> str:
    """What stands at a place of the file, which may not be what YAML makes of it, such as 0123."""
    location = problem["loc"]
    path, of_key = (location[:-2], True) if location[-1] == "[key]" else (location[:-1], False)
    try:
        for step in path:
            data = data[step]
        marks = data.lc.data[problem["input"] if of_key else location[-1]]
        line, column = marks[:2] if of_key or len(marks) == 2 else marks[2:4]
        found = _SCALAR.match(lines[line], column)
    except (AttributeError, LookupError, TypeError):
        return ""
    return found[0] if found else ""


def _message(problem: Mapping[str, Any], lines: list[str], data: Any) -> str:
    text = str(problem["msg"]).removeprefix("Value error, ")
    match problem["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "there is no such field"
        case "value_error":
            return text
        case "date_type" | "date_from_datetime_inexact":
            return "write a day without time, such as 2027-01-31"
        case "string_type" if _is_no_text(problem):
            shown = _written(lines, data, problem) or str(problem["input"])
            return f'{shown} is text here, and YAML takes it for something else: write "{shown}"'
        case _:
            return f"{text}, not {_quoted(problem['input'])}"


def _quoted(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
