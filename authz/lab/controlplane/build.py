"""Build the control plane's programs with Go, once for each version, into the user's cache.

Go's own cache keeps what was compiled, so that a second build of the same is a matter of seconds;
the checksums of all modules are verified by Go as for any build.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from authz.lab.controlplane.versions import ETCD, HELM, ISTIODS, KUBERNETES, REGISTRY
from authz.lab.harness.processes import CouldNotStart

Tell = Callable[[str], None]

_ETCD_MAIN: Final = """package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""
_NO_GO: Final = (
    "the control plane is built with Go and there is no `go` on PATH: install Go 1.26 or newer"
)


@dataclass(frozen=True)
class Program:
    """A program that can be built.

    `make` gets the folder to work in, which is empty, and the file to write.
    """

    name: str
    version: str
    make: Callable[[Path, Path], None]

    @property
    def file(self) -> Path:
        """Where it is once it is built."""
        return cache() / f"{self.name}-{self.version}"


def cache() -> Path:
    """The folder of built programs: `$XDG_CACHE_HOME/tenant-authz/controlplane`."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tenant-authz" / "controlplane"


def missing() -> str:
    """Why nothing can be built here; empty if it can."""
    return "" if shutil.which("go") else _NO_GO


def etcd() -> Program:
    """The database of the API server."""
    return Program("etcd", ETCD, _make_etcd)


def api_server() -> Program:
    """The API server of Kubernetes."""
    return Program("kube-apiserver", KUBERNETES, _make_api_server)


def istiod(name: str) -> Program:
    """One of `versions.ISTIODS`.

    Raises:
        CouldNotStart: it is none of them.
    """
    return _istio(name, "istiod", "pilot-discovery")


def agent(name: str) -> Program:
    """What runs beside Envoy in a pod, of the version of an istiod; for recordings.

    Raises:
        CouldNotStart: there is no such istiod.
    """
    return _istio(name, "pilot-agent", "pilot-agent")


def helm() -> Program:
    """What installs charts; for tests of ours."""
    return _command("helm", "helm.sh/helm/v3", HELM)


def registry() -> Program:
    """A registry of images, for tests that push one."""
    return _command("registry", "github.com/distribution/distribution/v3", REGISTRY)


def everything() -> list[Program]:
    """All programs of the control plane, and those that install into it."""
    return [etcd(), api_server(), *map(istiod, ISTIODS), helm(), registry()]


def built(program: Program, tell: Tell) -> Path:
    """The program's file; it is built first if it is not there.

    Raises:
        CouldNotStart: Go is missing, or the build fails.
    """
    if program.file.exists():
        return program.file
    if reason := missing():
        raise CouldNotStart(reason)
    cache().mkdir(parents=True, exist_ok=True)
    with _locked(cache() / f"{program.name}-{program.version}.lock"):
        if not program.file.exists():
            tell(f"building {program.name} {program.version}")
            began = time.monotonic()
            with tempfile.TemporaryDirectory(dir=cache()) as folder:
                new = Path(folder) / program.name
                work = Path(folder) / "work"
                work.mkdir()
                program.make(work, new)
                new.rename(program.file)
            megabytes = program.file.stat().st_size / 1e6
            seconds = time.monotonic() - began
            tell(f"built {program.name} {program.version}: {seconds:.0f} s, {megabytes:.0f} MB")
    return program.file


def module(path: str, version: str) -> Path:
    """The folder of a module in Go's cache, which Go fetches if need be.

    Raises:
        CouldNotStart: Go is missing, or the module cannot be had.
    """
    return Path(_downloaded(path, version)["Dir"])


def istio_module(name: str) -> Path:
    """The source of an istiod: its CRDs are in there."""
    return module("istio.io/istio", ISTIODS[name])


def gateway_api_module(name: str) -> Path:
    """The source of the Gateway API that an istiod was written for: its CRDs are in there."""
    path = "sigs.k8s.io/gateway-api"
    go_mod = (istio_module(name) / "go.mod").read_text()
    [version] = re.findall(rf"^\s*{re.escape(path)} (\S+)", go_mod, re.MULTILINE)
    return module(path, version)


def _make_etcd(work: Path, file: Path) -> None:
    _write_module(work)
    (work / "etcd").mkdir()
    (work / "etcd" / "main.go").write_text(_ETCD_MAIN)
    _build(work, file, "./etcd", mod="mod")


def _make_api_server(work: Path, file: Path) -> None:
    _write_module(work)
    major, minor, _ = KUBERNETES.split(".")
    version = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    set_to = {f"k8s.io/component-base/version.{key}": value for key, value in version.items()}
    _build(work, file, "k8s.io/kubernetes/cmd/kube-apiserver", mod="mod", variables=set_to)


def _write_module(work: Path) -> None:
    """A module that needs Kubernetes and etcd: one, since they have most of theirs in common.

    Who needs Kubernetes must itself say which versions its staging modules have.
    """
    go_mod = Path(_downloaded("k8s.io/kubernetes", f"v{KUBERNETES}")["GoMod"]).read_text()
    staged = re.findall(r"^\s*(k8s\.io/\S+) => \./staging", go_mod, re.MULTILINE)
    staging = KUBERNETES.replace("1", "0", 1)
    replaced = "\n".join(f"\t{it} => {it} v{staging}" for it in staged)
    (work / "go.mod").write_text(
        "module controlplane\n\ngo 1.26\n\n"
        f"require k8s.io/kubernetes v{KUBERNETES}\n\n"
        f"require go.etcd.io/etcd/server/v3 v{ETCD}\n\nreplace (\n{replaced}\n)\n"
    )
    (work / "nothing.go").write_text("package controlplane\n")


def _command(name: str, path: str, version: str) -> Program:
    """A module's own command of that name."""

    def make(_: Path, file: Path) -> None:
        _build(module(path, f"v{version}"), file, f"./cmd/{name}")

    return Program(name, version, make)


def _istio(name: str, program: str, command: str) -> Program:
    if name not in ISTIODS:
        raise CouldNotStart(f"no istiod {name!r}; there are: {', '.join(ISTIODS)}")

    def make(_: Path, file: Path) -> None:
        package = "istio.io/istio/pkg/version"
        revision = ISTIODS[name].rsplit("-", 1)[1]
        set_to = {f"{package}.buildVersion": name, f"{package}.buildGitRevision": revision}
        _build(istio_module(name), file, f"./pilot/cmd/{command}", variables=set_to)

    return Program(program, name, make)


def _build(
    folder: Path,
    file: Path,
    package: str,
    *,
    mod: str = "readonly",
    variables: dict[str, str] | None = None,
) -> None:
    """Build `package`, seen from `folder`, with Go variables set; without symbols and DWARF."""
    flags = ["-s", "-w", *(f"-X {key}={value}" for key, value in (variables or {}).items())]
    _go("build", f"-mod={mod}", "-ldflags", " ".join(flags), "-o", str(file), package, cwd=folder)


def _downloaded(path: str, version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_go("mod", "download", "-json", f"{path}@{version}"))
    return found


def _go(*arguments: str, cwd: Path | None = None) -> str:
    if reason := missing():
        raise CouldNotStart(reason)
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off"}
    done = subprocess.run(  # noqa: S603 - a command of ours
        ["go", *arguments],  # noqa: S607 - the user's Go
        cwd=cwd or Path.home(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-20:])
        raise CouldNotStart(f"go {' '.join(arguments)} failed:\n{last}")
    return done.stdout


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Of several who want to build the same at once, one builds and the others wait."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
