"""A container engine to test with, and a base image, both made here if need be.

Where no engine runs and we are root, we start Debian's `dockerd`, away from everything: its own
socket and folders, no bridge, no firewall rules. Images cannot be pulled everywhere, so the base is
a minimal Debian with Python, made by `debootstrap` and kept in `$TENANT_AUTHZ_CACHE`, which is
`~/.cache/tenant-authz` unless it is set.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.support.waiting import at_last

ROOT = Path(__file__).parents[2]
SUITE, PYTHON = "bookworm", "3.11"  # a Debian and its Python
BASE = "tenant-authz-test-base"
LOCKS = ("requirements.txt", "build-requirements.txt")
"""What the image installs and what builds it, in deploy/image."""
_NOT_NEEDED = ("./dev/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*",
               "./usr/share/doc/*", "./usr/share/locale/*", "./usr/share/man/*")  # fmt: skip


@contextmanager
def engine() -> Iterator[docker.DockerClient]:
    """The engine that is there, or one of our own until the end of the block."""
    if _answers(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")):
        with closing(docker.from_env()) as client:
            yield client
    else:
        _need_root("no Docker engine answers, and only root can start one")
        _need_command("dockerd", "docker.io")
        with _own_engine() as url, closing(docker.DockerClient(base_url=url)) as client:
            yield client


@contextmanager
def _own_engine() -> Iterator[str]:
    # Not in pytest's folder, whose name may be too long for a socket's.
    with tempfile.TemporaryDirectory(prefix="authz-engine-") as name:
        folder = Path(name)
        url, log = f"unix://{folder}/socket", folder / "log"
        command = ["dockerd", "--bridge=none", "--iptables=false", f"--host={url}",
                   f"--data-root={folder}/data", f"--exec-root={folder}/exec",
                   f"--pidfile={folder}/pid"]  # fmt: skip
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            at_last(lambda: _answers(url) or _has_ended(process, log), "dockerd answers")
            yield url
        finally:
            process.terminate()
            process.wait(60)
            # The engine leaves the host's network namespace mounted.
            for mount in (folder / "exec" / "netns").glob("*"):
                subprocess.run(["umount", mount], check=False, capture_output=True)


def _answers(url: str) -> bool:
    """Whether somebody listens. The library's own client leaves sockets open when nobody does."""
    if not url.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as tried:
        return tried.connect_ex(url.removeprefix("unix://")) == 0


def _has_ended(process: "subprocess.Popen[bytes]", log: Path) -> bool:
    if process.poll() is not None:
        pytest.skip(f"dockerd does not run here: {_last_line(log.read_text())}")
    return False


def import_base(client: docker.DockerClient) -> str:
    """A base image with Python and nothing else; its name."""
    answer = client.api.import_image_from_file(str(_tarball()), repository=BASE, tag=SUITE)
    assert '"error"' not in answer, answer
    return f"{BASE}:{SUITE}"


def _tarball() -> Path:
    cache = Path(os.environ.get("TENANT_AUTHZ_CACHE", "~/.cache/tenant-authz")).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    tarball = cache / f"{SUITE}-python-{os.uname().machine}.tar"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tarball.exists():
            _need_root("only root can make a base image")
            _need_command("debootstrap", "debootstrap")
            _bootstrap(tarball)
    return tarball


def _bootstrap(tarball: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tarball.parent) as name:
        tree, unfinished = Path(name) / "tree", Path(name) / "tar"
        done = _run("debootstrap", "--force-check-gpg", "--variant=minbase", "--include=python3",
                    SUITE, str(tree))  # fmt: skip
        if done.returncode:
            pytest.skip(f"debootstrap cannot make a base image: {_last_line(done.stdout)}")
        excluded = [f"--exclude={pattern}" for pattern in _NOT_NEEDED]
        done = _run("tar", "-C", str(tree), "--numeric-owner", *excluded, "-cf",
                    str(unfinished), ".")  # fmt: skip
        assert done.returncode == 0, done.stdout
        unfinished.replace(tarball)


def make_context(folder: Path) -> None:
    """What the Dockerfile is given: the files that `.dockerignore` lets through, and a wheelhouse.

    A build reaches no package index everywhere, so what it installs is fetched before.
    """
    for name in (*let_through(), "Dockerfile", ".dockerignore"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    wheelhouse, image = folder / "wheelhouse", ROOT / "deploy" / "image"
    locked = [f"--requirement={image / name}" for name in LOCKS]
    for needed in (locked, ["pip"]):
        done = _run(sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:",
                    f"--python-version={PYTHON}", f"--dest={wheelhouse}", *needed)  # fmt: skip
        if done.returncode:
            pytest.skip(f"the image's packages cannot be fetched: {_last_line(done.stdout)}")


def let_through() -> list[str]:
    """The names that `.dockerignore` names as exceptions."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line.removeprefix("!") for line in lines if line.startswith("!")]


def build(client: docker.DockerClient, folder: Path, base: str, tag: str) -> Any:
    """Build the image from a context, without a network."""
    image, _ = client.images.build(
        path=str(folder), tag=tag, buildargs={"BASE": base}, network_mode="none", rm=True
    )
    return image


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def _need_root(reason: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(reason)


def _need_command(name: str, package: str) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name}: apt-get install {package}")


def _last_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines() or ["it says nothing"]
    return lines[-1]
