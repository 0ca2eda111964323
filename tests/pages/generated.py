"""Which parts of pages are generated, and by what.

A part stands between two comments, `<!-- NAME: made by python -m tests.pages -->` and
`<!-- end of NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from authz import __version__
from authz.domain import decision
from tests.pages import reference
from tests.paths import matrix

ROOT: Final = Path(__file__).parents[2]

PARTS: Final[dict[str, dict[str, Callable[[], str]]]] = {
    "authz/REFERENCE.md": {
        "commands": reference.commands,
        "checks": reference.checks,
        "exit codes": reference.exit_codes,
        "settings": reference.settings,
        "policy": reference.policy,
        "cases": reference.cases,
        "ways": reference.ways,
        "modes": reference.modes,
        "roles": reference.roles,
        "grant": reference.grant,
        "reasons": reference.reasons,
        "grounds": reference.grounds,
        "metrics": reference.metrics,
        "words": reference.words,
    },
    "authz/README.md": {"decision tables": decision.markdown},
    "envoyfilters/PATHS.md": {"paths": matrix.markdown},
}
"""For each page, its parts by name."""


VERSIONED: Final = (
    *("CONTRIBUTING.md", "Dockerfile", "README.md", "deploy/OPERATIONS.md"),
    *("deploy/README.md", "deploy/base/kustomization.yaml", "deploy/conformance/job.yaml"),
    *("deploy/keys/kustomization.yaml", "deploy/standalone/compose.yaml"),
)
"""Files that name the image and its version."""
_VERSION: Final = re.compile(
    r"((?:tenant-authz|\$registry):|(?:name: tenant-authz\n +|\$registry, )newTag: |ARG VERSION="
    r"|[?&]ref=v)\d+\.\d+\.\d+"
)


def stale() -> list[str]:
    """The pages that are not as they should be."""
    return sorted({page for page, text in _fresh() if (ROOT / page).read_text() != text})


def write() -> None:
    """Make all pages fresh."""
    for page, text in _fresh():
        (ROOT / page).write_text(text)


def _fresh() -> Iterator[tuple[str, str]]:
    for page in VERSIONED:
        yield page, versioned((ROOT / page).read_text())
    for page, parts in PARTS.items():
        text = (ROOT / page).read_text()
        for name, made in parts.items():
            text = replaced(text, name, made(), page)
        yield page, text


def names_version(text: str) -> bool:
    """Whether a file's text names a version of the image."""
    return _VERSION.search(text) is not None


def versioned(text: str) -> str:
    """A file's text that names this version of the image."""
    return _VERSION.sub(rf"\g<1>{__version__}", text)


def replaced(text: str, name: str, body: str, page: str) -> str:
    """A page's text with another body of a part.

    Raises:
        ValueError: a comment of the part is missing, or there twice.
    """
    start, end = f"<!-- {name}: made by python -m tests.pages -->\n", f"<!-- end of {name} -->"
    if text.count(start) != 1 or text.count(end) != 1:
        raise ValueError(f"{page}: write {start!r} once, and {end!r} once after it")
    before, _, rest = text.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page}: {end!r} is before {start!r}")
    return f"{before}{start}{body}{end}{after}"
