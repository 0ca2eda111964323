"""Runs the command line in this process."""

import io
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from authz.cli import main


class Ran(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`authz` as a function of its arguments and of what it is given on standard input.

    With `None`, standard input is closed.
    """

    def running(*arguments: str, given: str | None = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["authz", *arguments])
        monkeypatch.setattr(sys, "stdin", None if given is None else io.StringIO(given))
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, output.out, output.err)

    return running
