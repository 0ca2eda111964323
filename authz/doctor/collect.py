"""Gets dumps: from files, folders, admin endpoints, or every proxy of a cluster."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz.doctor.dump import CannotRead
from authz.doctor.pods import PROXY, has_proxy, name_of, read_pods

LONGEST: Final = 512 << 20
"""Bytes of one dump. That of a proxy that sees thousands of services is a tenth of it."""

_SECONDS: Final = 30.0
_AT_ONCE: Final = 8  # each is a process and a stream through the API server
_SCHEMES: Final = ("http://", "https://")
_ADMIN: Final = ("pilot-agent", "request", "GET", "config_dump")


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


def from_cluster(namespaces: Iterable[str] = ()) -> tuple[str, Iterator[Source]]:
    """The pods of a cluster as JSON, and the dump of each that has a proxy, by way of kubectl.

    kubectl knows the kubeconfig, the context and how to log in. It runs `pilot-agent` in each
    container `istio-proxy`: that takes the right to `create` `pods/exec`.

    Raises:
        CannotRead: there is no kubectl, or it may not list pods.
    """
    wanted = frozenset(namespaces)
    listed = _kubectl("get", "pods", "--all-namespaces", "--output=json")
    pods = [it for it in read_pods(listed, "kubectl get pods") if has_proxy(it)]
    names = [name_of(it) for it in pods]
    return listed, _dumps([it for it in names if not wanted or it[0] in wanted])


def mesh_mode() -> str:
    """Knative's `mesh-compatibility-mode`, by way of kubectl; empty, if it cannot be had."""
    place = ("configmap", "config-network", "--namespace=knative-serving", "--output=json")
    try:
        data = json.loads(_kubectl("get", *place)).get("data", {})
        return str(data.get("mesh-compatibility-mode", "auto"))  # Knative's default
    except (CannotRead, ValueError, AttributeError):
        return ""


def _dumps(pods: list[tuple[str, str]]) -> Iterator[Source]:
    def dump(pod: tuple[str, str]) -> str:
        namespace, name = pod
        place = (f"--namespace={namespace}", name, f"--container={PROXY}")
        return _kubectl("exec", *place, "--", *_ADMIN)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(pods), _AT_ONCE):  # no more in memory than are asked at once
            several = pods[start : start + _AT_ONCE]
            for pod, future in [(it, pool.submit(dump, it)) for it in several]:
                yield Source("/".join(pod), future.result)


def _kubectl(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and names come from the API server
            ["kubectl", *arguments],  # noqa: S607 - the one that is used otherwise
            capture_output=True,
            check=False,
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotRead(f"kubectl {' '.join(arguments)}: {error}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()[:300]
        raise CannotRead(f"kubectl {' '.join(arguments)}: {said}")
    return done.stdout.decode(errors="replace")


def _content(file: Path) -> str:
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError as error:
        raise CannotRead(f"{file}: {error.strerror}") from None


def _fetched(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if "/" not in rest.rstrip("/"):
        url = f"{scheme}://{rest.rstrip('/')}/config_dump"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - HTTP, see above
            body: bytes = answer.read(LONGEST + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
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
        for it in documents:
            it["kind"], it["metadata"]["name"]
    except (YAMLError, AttributeError, KeyError, TypeError):
        raise CannotRead(
            f"{file}: no Kubernetes objects; give what `kubectl kustomize` prints"
        ) from None
    return documents
