"""`authz manifests`: the same from a clone and from the wheel, as fresh as the kustomizations."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from authz import __version__, manifests
from tests.command import Run
from tests.deploy.manifests import DEPLOY, ROOT, Json
from tests.support.processes import environment

REGISTRY = "registry.example:5000/team/tenant-authz@sha256:00"
CONTAINERS = {"base": 1, "deployment": 1, "xfcc": 1, "keys": 1, "conformance": 1}
"""How many of the service's own containers each has."""


def images(text: str) -> list[str]:
    """Of every container."""
    found: list[str] = []

    def look(value: Json | list[Json] | str) -> None:
        if isinstance(value, list):
            for it in value:
                look(it)
        elif isinstance(value, dict):
            found.extend(it for key, it in value.items() if key == "image")
            for it in value.values():
                look(it)

    look(list(YAML(typ="safe").load_all(text)))
    return found


def test_every_folder_and_overlay_is_there_once(run: Run) -> None:
    rows = run("manifests", "--json").json
    folders = [row["made_from"] for row in rows]
    found = [path.parent.relative_to(ROOT) for path in DEPLOY.rglob("kustomization.yaml")]
    found += [it.relative_to(ROOT) for it in (ROOT / "envoyfilters" / "overlays").iterdir()]
    wanted = [str(it) for it in found if "components" not in it.parts]
    wanted.append("deploy/components/policy-from-cluster")  # what it adds to any install
    assert sorted(folders) == sorted(wanted)
    assert all((ROOT / folder).is_dir() for folder in folders)


@pytest.mark.parametrize("name", sorted(manifests.names()))
def test_it_prints_the_objects_with_the_image_that_is_named(name: str, run: Run) -> None:
    plain, named = run("manifests", name).out, run("manifests", name, "--image", REGISTRY).out
    ours = f"tenant-authz:{__version__}"
    assert images(plain).count(ours) == CONTAINERS.get(name, 0)
    assert images(named) == [REGISTRY if image == ours else image for image in images(plain)]
    assert run("manifests", name, "--json").json == list(YAML(typ="safe").load_all(plain))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bases",), "NAME: there is no 'bases'; there is admission, base, "),
        (("../base",), "NAME: there is no '../base'"),
        (("base", "--image", "a\nb: c"), "--image: 'a\\nb: c' is no image: write registry"),
        (("base", "--image", "-x"), "--image: '-x' is no image"),
    ],
)
def test_what_cannot_be_printed_is_told(arguments: tuple[str, ...], said: str, run: Run) -> None:
    done = run("manifests", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


@pytest.mark.timeout(300)
def test_the_wheel_has_them(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    built = subprocess.run([*pip, str(ROOT)], capture_output=True, text=True, check=False)
    if "No matching distribution found" in built.stderr:
        pytest.skip("no index to fetch hatchling from")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(venv), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    (place,) = venv.glob("lib/python3*/site-packages")
    (place / "theirs.pth").write_text(sysconfig.get_path("purelib"))  # what it depends on

    def authz(*arguments: str) -> str:
        done = subprocess.run(
            [venv / "bin" / "authz", *arguments],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert json.loads(authz("manifests", "--json")) == [
        {"name": name, "made_from": folder} for name, folder in manifests.names().items()
    ]
    for name in manifests.names():
        assert authz("manifests", name) == manifests.text(name)
    code = "import authz.manifests; print(authz.manifests.__file__)"
    python = [str(venv / "bin" / "python"), "-c", code]
    told = subprocess.run(python, cwd=tmp_path, capture_output=True, check=True)
    assert str(venv) in told.stdout.decode()
