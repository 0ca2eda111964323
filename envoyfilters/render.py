"""Renders what each overlay installs into `rendered/`, for whoever has no kustomize.

    python envoyfilters/render.py           # writes
    python envoyfilters/render.py --check   # only says whether they are fresh

Needs kubectl, and nothing from the network.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RENDERED = HERE / "rendered"
HEADER = "# Made by envoyfilters/render.py from overlays/{}. Why it is so is said there.\n"


def render(directory: Path) -> str:
    """What `kubectl apply -k` would send.

    Raises:
        subprocess.CalledProcessError: it does not render.
    """
    kustomize = ["kubectl", "kustomize", str(directory)]
    return subprocess.run(kustomize, check=True, capture_output=True, text=True).stdout  # noqa: S603


def main() -> None:
    """Write, or compare, one file for each overlay."""
    stale = []
    for overlay in sorted(path for path in (HERE / "overlays").iterdir() if path.is_dir()):
        file = RENDERED / f"{overlay.name}.yaml"
        text = HEADER.format(overlay.name) + render(overlay)
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(file.name)
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; run python envoyfilters/render.py")


if __name__ == "__main__":
    main()
