"""kubeconfigs, read and merged as kubectl does: which cluster is meant, and as whom.

No library that is kept takes all that kubectl takes, several files and plug-ins above all, and a
field that is passed over in silence leads past a proxy or to another identity.

Sources: kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig (merging),
kubernetes.io/docs/reference/config-api/kubeconfig.v1 (fields), client-go tools/clientcmd (v1.37).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from authz.kube.errors import KubeError, NoCluster
from authz.yamlfile import read_input

MAX_BYTES: Final = 4 << 20
"""A larger kubeconfig is refused."""


class _Model(BaseModel):
    # kubectl passes over what it does not know, and so do we: tools keep notes of theirs there.
    model_config = ConfigDict(extra="ignore", strict=True, populate_by_name=True)


class Cluster(_Model):
    """Where an API server is, and how it is known."""

    server: str = ""
    tls_server_name: str = Field("", alias="tls-server-name")
    insecure: bool = Field(False, alias="insecure-skip-tls-verify")
    ca_file: str = Field("", alias="certificate-authority")
    ca_data: str = Field("", alias="certificate-authority-data")
    proxy_url: str = Field("", alias="proxy-url")


class Variable(_Model):
    """A variable of a plug-in's environment."""

    name: str
    value: str


class Plugin(_Model):
    """A program that prints credentials."""

    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    version: str = Field("", alias="apiVersion")
    hint: str = Field("", alias="installHint")
    cluster_info: bool = Field(False, alias="provideClusterInfo")
    interactive: str = Field("", alias="interactiveMode")


class User(_Model):
    """As whom we ask."""

    cert_file: str = Field("", alias="client-certificate")
    cert_data: str = Field("", alias="client-certificate-data", repr=False)
    key_file: str = Field("", alias="client-key")
    key_data: str = Field("", alias="client-key-data", repr=False)
    token: str = Field("", repr=False)
    token_file: str = Field("", alias="tokenFile")
    username: str = ""
    password: str = Field("", repr=False)
    acting_as: str = Field("", alias="as")
    acting_uid: str = Field("", alias="as-uid")
    acting_groups: list[str] | None = Field(None, alias="as-groups")
    acting_extra: dict[str, list[str]] | None = Field(None, alias="as-user-extra")
    auth_provider: dict[str, Any] | None = Field(None, alias="auth-provider", repr=False)
    plugin: Plugin | None = Field(None, alias="exec")


class _Context(_Model):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


class _NamedCluster(_Model):
    name: str
    cluster: Cluster


class _NamedUser(_Model):
    name: str
    user: User


class _NamedContext(_Model):
    name: str
    context: _Context


class _File(_Model):
    current: str | None = Field(None, alias="current-context")
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The cluster, user and namespace of the current context."""

    cluster: Cluster
    user: User
    namespace: str = "default"


def named_files(variable: str) -> list[Path]:
    """The files that `KUBECONFIG` names, each once."""
    return [Path(name).expanduser() for name in dict.fromkeys(variable.split(os.pathsep)) if name]


def choose(files: Iterable[Path]) -> Chosen:
    """The current context of these files together; what is not there is passed over.

    Raises:
        NoCluster: none is there.
        KubeError: one cannot be read, or they name no cluster.
    """
    merged = _Merged()
    files = list(files)
    for path in files:
        merged.add(path)
    names = ", ".join(map(str, files))
    if not merged.found:
        raise NoCluster(f"{names} not found")
    if not merged.current:
        raise KubeError(f"{names}: no current-context: choose one with kubectl config use-context")
    if (context := merged.contexts.get(merged.current)) is None:
        raise KubeError(f"{names}: current-context: there is no context {merged.current!r}")
    where = f"{names}: contexts: {merged.current!r} names a"
    if context.cluster not in merged.clusters:
        raise KubeError(f"{where} cluster that is not there: {context.cluster!r}")
    if context.user and context.user not in merged.users:
        raise KubeError(f"{where} user that is not there: {context.user!r}")
    user = merged.users.get(context.user, User())
    return Chosen(merged.clusters[context.cluster], user, context.namespace or "default")


class _Merged:
    """Of each name, what the first file says of it."""

    def __init__(self) -> None:
        self.clusters: dict[str, Cluster] = {}
        self.users: dict[str, User] = {}
        self.contexts: dict[str, _Context] = {}
        self.current = ""
        self.found = False

    def add(self, path: Path) -> None:
        file = _read(path)
        if file is None:
            return
        self.found = True
        self.current = self.current or file.current or ""
        for name, cluster in _by_name(path, "clusters", file.clusters):
            self.clusters.setdefault(name, _cluster_at(cluster, path.parent))
        for name, user in _by_name(path, "users", file.users):
            self.users.setdefault(name, _user_at(user, path.parent))
        for name, context in _by_name(path, "contexts", file.contexts):
            self.contexts.setdefault(name, context)


def decoded(field: str, text: str) -> bytes:
    """What a field ending in `-data` holds.

    Raises:
        KubeError: it is not base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise KubeError(f"{field} is not base64") from None


def _read(path: Path) -> _File | None:
    try:
        text = read_input(path, MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KubeError(f"{path}: {error.strerror}") from None
    try:
        data = YAML(typ="safe", pure=True).load(text.decode("utf-8"))
    except (YAMLError, ValueError, LookupError, RecursionError, TypeError):  # quotes what it reads
        raise KubeError(f"{path} cannot be read: it is not YAML") from None
    try:
        return _File.model_validate({} if data is None else data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(step) for step in problem["loc"])
        raise KubeError(f"{path} cannot be read: {field or 'its top'}: {problem['msg']}") from None


def _by_name(path: Path, field: str, entries: list[Any] | None) -> list[tuple[str, Any]]:
    kind = field.removesuffix("s")
    pairs = [(entry.name, getattr(entry, kind)) for entry in entries or ()]
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise KubeError(f"{path}: {field}: {twice!r} is there twice")
    return pairs


def _cluster_at(cluster: Cluster, folder: Path) -> Cluster:
    return cluster.model_copy(update={"ca_file": _at(cluster.ca_file, folder)})


def _user_at(user: User, folder: Path) -> User:
    changed: dict[str, Any] = {
        name: _at(getattr(user, name), folder) for name in ("cert_file", "key_file", "token_file")
    }
    if user.plugin is not None and os.sep in user.plugin.command:
        command = _at(user.plugin.command, folder)
        changed["plugin"] = user.plugin.model_copy(update={"command": command})
    return user.model_copy(update=changed)


def _at(name: str, folder: Path) -> str:
    """A relative name is relative to the file that it stands in."""
    return str(folder / name) if name else ""
