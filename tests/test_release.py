"""What is released: a wheel that is the same wherever it is built, an image of locked parts."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from authz import __version__

ROOT: Final = Path(__file__).parent.parent
IMAGE: Final = ROOT / "deploy" / "image"
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LEFT_OUT: Final = {"grpcio"}
"""The reference transport's, which no server needs: see the Dockerfile."""
_PINNED: Final = re.compile(
    r"^([a-z0-9.-]+)==(\S+)(?: ; [^\\]+)? \\\n((?: +--hash=\S+(?: \\)?\n)+)", re.MULTILINE
)


# The wheel -------------------------------------------------------------------------------------


def built(folder: Path, umask: int) -> bytes:
    """The wheel, built of a copy of the project in a folder of its own."""
    sources = ("authz", "envoyfilters", "deploy", "pyproject.toml", "README.md", "LICENSE")
    folder.mkdir()
    for name in sources:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, folder / name)
    for each in folder.rglob("*"):
        each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)
        os.utime(each, (1_000_000_000 + umask, 1_000_000_000 + umask))
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "wheel",
        "-d",
        str(folder / "dist"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").iterdir()
    assert wheel.name == f"tenant_authz-{__version__}-py3-none-any.whl"
    return wheel.read_bytes()


def test_the_wheel_is_the_same_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the extra `release` is not installed")
    one = built(tmp_path / "here", 0o022)
    assert one == built(tmp_path / "in another place", 0o077)
    (tmp_path / "wheel").write_bytes(one)
    with zipfile.ZipFile(tmp_path / "wheel") as wheel:
        names = wheel.namelist()
        assert (
            f"Version: {__version__}\n"
            in wheel.read(f"tenant_authz-{__version__}.dist-info/METADATA").decode()
        )
    assert "authz/server/run.py" in names
    assert not [it for it in names if it.endswith((".pyc", ".key", ".db")) or "/tests/" in it]


# The lock --------------------------------------------------------------------------------------


def locked(name: str) -> dict[str, tuple[str, int]]:
    """Version and number of hashes of each package in a lock."""
    text = (IMAGE / name).read_text()
    found = {
        one: (version, hashes.count("--hash=sha256:"))
        for one, version, hashes in _PINNED.findall(text)
    }
    assert len(found) == len(re.findall(r"^[a-z]", text, re.MULTILINE))  # each line is read
    return found


def needed(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[Requirement]:
    """What these need, and what that needs, on Linux with CPython, as it is installed here."""
    environment: dict[str, str] = {**default_environment(), "extra": ""}  # type: ignore[dict-item]
    for text in requirements:
        one = Requirement(text)
        wanted = [{**environment, "extra": extra} for extra in (extras or {""})]
        marker = one.marker
        if marker is not None and not any(marker.evaluate(each) for each in wanted):
            continue
        yield one
        try:
            inner = distribution(one.name).requires or []
        except PackageNotFoundError:
            continue
        yield from needed(inner, frozenset(one.extras))


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        (
            "requirements.txt",
            [
                *PROJECT["project"]["dependencies"],
                *PROJECT["project"]["optional-dependencies"]["kubernetes"],
            ],
        ),
        ("build-requirements.txt", PROJECT["build-system"]["requires"]),
    ],
)
def test_what_the_image_installs_is_locked_with_hashes(name: str, requirements: list[str]) -> None:
    pins = locked(name)
    wanted = {canonicalize_name(it.name) for it in needed(requirements)} - LEFT_OUT
    assert wanted - {"colorama"} <= set(pins)
    assert not LEFT_OUT & set(pins)
    for one in needed(requirements):
        package = str(canonicalize_name(one.name))
        if package in pins:
            assert one.specifier.contains(pins[package][0]), one
    assert min(hashes for _, hashes in pins.values()) >= 1
    text = (IMAGE / name).read_text()
    assert "://" not in text  # no index is named
    for package in ("cryptography", "pydantic-core", "uvloop", "protobuf"):
        if package in pins:  # wheels of both architectures, and of each Python
            assert pins[package][1] > 4


# The bill of materials -------------------------------------------------------------------------


def test_a_bill_of_materials_names_what_is_locked(tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "cyclonedx-py"
    if not tool.exists():
        pytest.skip("the extra `release` is not installed")
    image = tmp_path / "image"
    venv.create(image)
    (site,) = image.glob("lib/*/site-packages")
    for name in (*locked("requirements.txt"), "tenant-authz"):
        (info,) = {
            file.parts[0] for file in distribution(name).files or () if "METADATA" in str(file)
        }
        (site / info).symlink_to(str(distribution(name).locate_file(info)))
    out = tmp_path / "sbom.cdx.json"
    command = [str(tool), "environment", "--pyproject", str(ROOT / "pyproject.toml"),
               "--output-reproducible", "-o", str(out), str(image)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "tenant-authz"
    found = {canonicalize_name(component["name"]): component for component in bill["components"]}
    assert set(locked("requirements.txt")) <= set(found)
    assert all(it["purl"].startswith("pkg:pypi/") for it in found.values() if "purl" in it)


# The image -------------------------------------------------------------------------------------


def test_the_image_installs_nothing_that_is_not_locked() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for install in re.findall(r"\$pip --python.*", text):
        assert "$locked -r deploy/image/" in install or "--no-index /opt/wheel" in install
    assert "--require-hashes" in text
    assert "linux/amd64,linux/arm64" in text


@pytest.mark.parametrize(
    "label",
    [
        *("authors", "base.name", "created", "description", "documentation", "licenses"),
        *("ref.name", "revision", "source", "title", "url", "vendor", "version"),
    ],
)
def test_the_image_has_every_label(label: str) -> None:
    """Of the OCI's image specification, annotations.md, all but the base's digest."""
    assert f"org.opencontainers.image.{label}=" in (ROOT / "Dockerfile").read_text()
