"""What ships to be applied: every folder as rendered, from a clone or from the wheel.

`python deploy/render.py` and `python envoyfilters/render.py` make the files; the tests keep them
as fresh as the kustomizations. No kustomize is needed to read them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from authz import __version__
from authz.envoyfilters import directory
from authz.errors import BadSettings

IMAGE: Final = "tenant-authz"
"""What the manifests call the image before a registry is named."""

_ours = re.compile(rf"(?m)^(\s*(?:- )?image: ){IMAGE}$")
_first_line = re.compile(r"# Made by \S+ from (\S+?)\.? ")


def names() -> Mapping[str, str]:
    """What can be had, by name, with the folder that it is made from."""
    return {name: _folder_of(file) for name, file in sorted(_files().items())}


def text(name: str, image: str = "") -> str:
    """The objects of a folder as YAML, with `image` for our containers.

    Without one it is this version's of no registry, as in the kustomizations.

    Raises:
        BadSettings: there is no such name, or the image cannot be one.
    """
    found = _files()
    if name not in found:
        raise BadSettings([f"NAME: there is no {name!r}; there is {', '.join(sorted(found))}"])
    image = image or f"{IMAGE}:{__version__}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", image):
        raise BadSettings([f"--image: {image!r} is no image: write registry.example/name:tag"])
    return _ours.sub(rf"\g<1>{image}", found[name].read_text("utf-8"))


@cache
def objects(name: str, image: str = "") -> tuple[dict[str, Any], ...]:
    """The same as objects.

    Raises:
        BadSettings: there is no such name, or the image cannot be one.
    """
    return tuple(it for it in YAML(typ="safe").load_all(text(name, image)) if it)


def _files() -> dict[str, Path]:
    filters = {f"filters-{path.stem}": path for path in (directory() / "rendered").glob("*.yaml")}
    return {it.stem: it for it in _rendered().glob("*.yaml")} | filters


def _rendered() -> Path:
    """Where they are: in the wheel, or at the root of a clone."""
    package = Path(str(files("authz")))
    packed = package / "_manifests"
    return packed if packed.is_dir() else package.parent / "deploy" / "rendered"


def _folder_of(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        made = _first_line.match(lines.readline())
    folder = made[1] if made else ""
    return folder if folder.startswith("deploy/") else f"envoyfilters/{folder}"
