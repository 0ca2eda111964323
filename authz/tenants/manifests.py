"""Writes Kubernetes objects: one YAML stream, or a folder that `kubectl apply -k` takes.

The writer is our own: plain data needs thirty lines, and a YAML package takes seconds for a hundred
tenants. Whatever is not certainly a plain word is written in quotation marks.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from authz.errors import BadSettings
from authz.tenants.render import Manifest

_MADE: Final = "# Made by `authz tenant render`; change the tenants file, not this.\n"
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_NO_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_SPECIAL: Final = re.compile(r'["\\]|[^ -~]')
_BLOCK: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?\n)(?:[ ]*[!-~](?:[ -~]*[!-~])?\n)*")


def as_yaml(objects: Iterable[Manifest]) -> str:
    """A stream of documents. Keys stay in the order in which they were made."""
    return "---\n".join("".join(f"{line}\n" for line in _lines(one)) for one in objects)


def _lines(value: Mapping[str, Any]) -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{_scalar(key)}:"
            yield from (f"  {line}" for line in _lines(item))
        elif isinstance(item, list) and item:
            yield f"{_scalar(key)}:"
            yield from _items(item)
        elif isinstance(item, str) and _BLOCK.fullmatch(item):
            yield f"{_scalar(key)}: |"
            yield from (f"  {line}" for line in item.splitlines())
        else:
            yield f"{_scalar(key)}: {_scalar(item)}"


def _items(items: Sequence[Any]) -> Iterator[str]:
    for item in items:
        if isinstance(item, dict) and item:
            for number, line in enumerate(_lines(item)):
                yield f"- {line}" if number == 0 else f"  {line}"
        else:
            yield f"- {_scalar(item)}"


def _scalar(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _WORD.fullmatch(value) and value.lower() not in _NO_WORDS:
        return value
    return f'"{_SPECIAL.sub(_escaped, value)}"'


def _escaped(match: re.Match[str]) -> str:
    return f"\\U{ord(match[0]):08x}"


def write_folder(folder: Path, files: Mapping[str, Sequence[Manifest]]) -> list[str]:
    """Write one file for each name, and the kustomization that holds them all.

    Returns the names of the files that changed; the others are left alone. A file of ours that is
    not among `files` any more is not deleted, but it is no longer in the kustomization.

    Raises:
        BadSettings: the folder or a file in it cannot be written.
    """
    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"{name}.yaml" for name in sorted(files)],
    }
    texts = {f"{name}.yaml": _MADE + as_yaml(objects) for name, objects in files.items()}
    texts["kustomization.yaml"] = _MADE + as_yaml([kustomization])
    changed = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in sorted(texts.items()):
            file = folder / name
            if not file.exists() or file.read_text("utf-8") != text:
                file.write_text(text, "utf-8")
                changed.append(name)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings([f"--output: {error}"]) from None
    return changed
