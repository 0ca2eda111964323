"""Gets dumps from files, folders and admin endpoints."""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz.doctor.dump import CannotRead
from authz.yamlfile import read_input

LONGEST: Final = 512 << 20
"""Bytes of one dump. That of a proxy that sees thousands of services is a tenth of it."""

_SECONDS: Final = 30.0
_SCHEMES: Final = ("http://", "https://")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A pod answers for itself, and sends us to nobody: a tenant may control it."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects)


class Source(NamedTuple):
    """Where a dump is to be had."""

    name: str
    read: Callable[[], str]
    """Raises CannotRead."""


def from_places(places: Iterable[str], stdin: TextIO = sys.stdin) -> Iterator[Source]:
    """Files, folders of `*.json`, `-` for standard input, URLs of admin endpoints.

    Raises:
        CannotRead: there is no such file, or a folder without dumps.
    """
    for place in places:
        path = Path(place)
        if place == "-":
            yield Source("standard input", stdin.read)
        elif place.startswith(_SCHEMES):
            yield Source(place, lambda url=place: _fetched(url))  # type: ignore[misc]
        elif path.is_dir():
            files = sorted(path.glob("*.json"))
            if not files:
                raise CannotRead(f"{place}: no *.json in this folder")
            for file in files:
                yield Source(str(file), lambda file=file: _content(file))  # type: ignore[misc]
        else:
            yield Source(place, lambda file=path: _content(file))  # type: ignore[misc]


def _content(file: Path) -> str:
    try:
        return read_input(file, LONGEST).decode("utf-8", "replace")
    except OSError as error:
        raise CannotRead(f"{file}: {error.strerror}") from None


def _fetched(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if "/" not in rest.rstrip("/"):
        url = f"{scheme}://{rest.rstrip('/')}/config_dump"
    try:
        with _opener.open(url, timeout=_SECONDS) as answer:
            body: bytes = answer.read(LONGEST + 1)
    except (OSError, ValueError, HTTPException) as error:
        raise CannotRead(f"{url} does not answer: {error}") from None
    if len(body) > LONGEST:
        raise CannotRead(f"{url} answers with more than {LONGEST} bytes")
    return body.decode("utf-8", "replace")


def read_documents(file: Path) -> list[dict[str, Any]]:
    """Kubernetes objects from a stream of YAML, or from a List.

    Raises:
        CannotRead: it is none.
    """
    try:
        loaded = list(YAML(typ="safe").load_all(_content(file)))
        documents = [item for one in loaded if one for item in one.get("items", [one])]
        for document in documents:
            document["kind"], document["metadata"]["name"]
    except (YAMLError, AttributeError, KeyError, TypeError):
        raise CannotRead(
            f"{file}: no Kubernetes objects; give what `kubectl kustomize` prints"
        ) from None
    return documents
