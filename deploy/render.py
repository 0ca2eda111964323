"""Renders each folder that is applied into `rendered/`, for `authz manifests` and the chart.

    python deploy/render.py           # writes
    python deploy/render.py --check   # only says whether they are fresh

Needs kubectl, and nothing from the network. Images of ours are left without a tag: `authz
manifests` names its own version's.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
RENDERED = HERE / "rendered"
CHART = HERE / "chart" / "Chart.yaml"
ADDED = "components/policy-from-cluster"
"""What this component adds to any install: objects of its own, beside its patches."""
HEADER = "# Made by deploy/render.py from deploy/{}. Why it is so is said there.\n"
_TAG = re.compile(r"(image: tenant-authz):\S+")
_GROUPS = {"overlays", "platform"}


def folders() -> Iterator[tuple[str, Path]]:
    """Every folder that is applied alone, by the name that `authz manifests` has for it."""
    for file in sorted(HERE.rglob("kustomization.yaml")):
        parts = file.parent.relative_to(HERE).parts
        if parts[0] != "components":
            yield "-".join(it for it in parts if it not in _GROUPS), file.parent


def render(directory: Path) -> str:
    """What `kubectl apply -k` would send, without the image's tag.

    Raises:
        subprocess.CalledProcessError: it does not render.
    """
    kustomize = ["kubectl", "kustomize", str(directory)]
    text = subprocess.run(kustomize, check=True, capture_output=True, text=True).stdout  # noqa: S603
    return _TAG.sub(r"\1", text)


def added() -> str:
    """The objects that a component adds."""
    parts = [render(HERE / "crds"), (HERE / ADDED / "binding.yaml").read_text()]
    return "---\n".join(parts)


def chart() -> str:
    """The chart's own file, of this version."""
    version = re.search(
        r'(?m)^__version__ = "(.+)"$', (HERE.parent / "authz/__init__.py").read_text()
    )
    assert version is not None  # noqa: S101 - or the package has none
    return re.sub(r"(?m)^((?:appV|v)ersion): .*$", rf"\1: {version[1]}", CHART.read_text())


def main() -> None:
    """Write, or compare, one file for each folder, and the chart's version."""
    wanted = {
        f"{name}.yaml": HEADER.format(folder.relative_to(HERE)) + render(folder)
        for name, folder in folders()
    }
    wanted["policy-from-cluster.yaml"] = HEADER.format(ADDED) + added()
    if chart() != CHART.read_text():
        if "--check" in sys.argv:
            sys.exit("stale: chart/Chart.yaml; run python deploy/render.py")
        CHART.write_text(chart())
    there = {file.name: file.read_text() for file in RENDERED.glob("*.yaml")}
    if wanted == there:
        return
    if "--check" in sys.argv:
        stale = sorted(it for it in {*wanted, *there} if wanted.get(it) != there.get(it))
        sys.exit(f"stale: {', '.join(stale)}; run python deploy/render.py")
    RENDERED.mkdir(exist_ok=True)
    for name in there.keys() - wanted.keys():
        (RENDERED / name).unlink()
    for name, text in wanted.items():
        (RENDERED / name).write_text(text)


if __name__ == "__main__":
    main()
