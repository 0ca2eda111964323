"""The file of cases beside a policy: who calls whom, and whether that must get in."""

import datetime as dt
import enum
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator

from authz.domain.identity import parse_service_account
from authz.domain.names import LABEL, MAX_NAME, PUBLIC, is_label, parse_namespace
from authz.errors import BadSettings
from authz.policysource.days import day_or_text
from authz.reach.ways import Way
from authz.yamlfile import DAY, STRICT, line_of, parse_plain, read_input, text_like

MAX_BYTES: Final = 2 * 1024 * 1024
"""A larger file is refused."""


class Expected(enum.StrEnum):
    """What must be decided."""

    ALLOW = "allow"
    DENY = "deny"


def _source(text: str) -> str:
    if "/" in text:
        raise ValueError(f"{text!r}: write the service account under service_account")
    return text if text == PUBLIC else parse_namespace(text)


def _service(text: str) -> str:
    if not is_label(text):
        raise ValueError(f"{text!r} is not a Service's name: write it without its namespace")
    return text


def _askable(day: dt.date) -> dt.date:
    if not 1971 <= day.year < 5075:  # tokens can be made for these, see `ways.LATEST`
        raise ValueError(f"{day} is too far away: write a day from 1971 to 5074")
    return day


_Namespace = Annotated[str, AfterValidator(parse_namespace), text_like(LABEL)]
_ACCOUNT: Final = text_like(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", MAX_NAME)


class Case(BaseModel):
    """One case. What it leaves out is open: without a port it is about every port."""

    model_config = STRICT
    name: Annotated[str, Field(min_length=1)] | None = None
    """What it is called in the report."""
    from_: Annotated[
        str, AfterValidator(_source), text_like(rf"@public|{LABEL}"), Field(alias="from")
    ]
    """The namespace that calls, or `"@public"`: the outside world."""
    to: _Namespace
    """The namespace that is called."""
    service_account: Annotated[str, AfterValidator(parse_service_account), _ACCOUNT] | None = None
    """The caller's; without it, every one."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The pod's; without it, every one. No event has one, so that a case with a port is about
    none."""
    way: Annotated[Way | None, Field(strict=False)] = None
    """One of the ways that `authz policy matrix` names; without it, every one that there is."""
    route: _Namespace | None = None
    """From outside: whose route at the gateway it is; without it, the destination's own."""
    service: Annotated[str, AfterValidator(_service), text_like(LABEL)] | None = None
    """From outside: the Service that is called; without it, every one."""
    host: Annotated[str, Field(min_length=1)] | None = None
    """From outside: the Host that is called; without it, one that is nobody's."""
    on: Annotated[dt.date, BeforeValidator(day_or_text), AfterValidator(_askable), DAY] | None = (
        None
    )
    """The day, in UTC, on which it is asked; without it, now."""
    expect: Annotated[Expected, Field(strict=False)]
    """`allow` or `deny`."""
    row: Annotated[str, Field(min_length=1)] | None = None
    """The row of the decision tables that must answer, see `authz policy tables`; with `way`."""
    reason: Annotated[str, Field(min_length=1)] | None = None
    """The reason that the log would give, such as `no-grant` or `same-tenant`; with `way`."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        outside = {it for it in ("route", "service", "host") if getattr(self, it) is not None}
        inside = {it for it in ("service_account", "port") if getattr(self, it) is not None}
        if self.from_ == PUBLIC and inside:
            raise ValueError(f"{min(inside)} says nothing of a request from {PUBLIC}: leave it out")
        if self.from_ != PUBLIC and outside:
            raise ValueError(f"{min(outside)} is for requests from {PUBLIC} only: leave it out")
        if self.way is not None and (self.way is Way.OUTSIDE) != (self.from_ == PUBLIC):
            raise ValueError(f"way {self.way} does not begin at {self.from_}: leave it out")
        if (self.row or self.reason) and self.way is None and self.from_ != PUBLIC:
            raise ValueError("row and reason are of one way: write which under way")
        if self.way is Way.EVENT and self.port is not None:
            raise ValueError("an event has no port: leave it out")
        return self


class _File(BaseModel):
    model_config = STRICT
    cases: Annotated[list[Case], Field(min_length=1)]
    """Who calls whom, and whether that must get in."""


FILE: Final = _File
"""The form of the file, for whoever describes it."""


def read_cases(file: Path) -> list[tuple[int, Case]]:
    """Read a file of cases: each with its line.

    Raises:
        BadSettings: it cannot be read, or with every problem, each as
            `line <n>: <field>: <what is wrong>`.
    """
    try:
        text = read_input(file, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise BadSettings([f"CASES: {file}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise BadSettings([f"CASES: {file} is not UTF-8 text"]) from None
    found, data = parse_plain(text, _File, "file of cases", BadSettings)
    return [(line_of(data, ("cases", it)), case) for it, case in enumerate(found.cases)]
