"""What a row of the table is: an attack on an admission policy, and its honest twin."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

Json: TypeAlias = dict[str, Any]

SPACE: Final = "acme-web"
"""The attacker's namespace."""

DOMAINS: Final = "acme-web.apps.example.com,acme.example"
EXTERNAL_NAMES: Final = "stripe.com"


@dataclass(frozen=True)
class Account:
    """Who asks the API server."""

    name: str
    groups: tuple[str, ...] = ()

    @classmethod
    def of(cls, namespace: str, name: str) -> Account:
        """A service account, as the API server knows it."""
        return cls(
            f"system:serviceaccount:{namespace}:{name}",
            ("system:serviceaccounts", f"system:serviceaccounts:{namespace}"),
        )


MALLORY: Final = Account("mallory", ("acme-devs",))
"""May do everything in its namespace, and nothing elsewhere: more than any tenant should."""
PLATFORM: Final = Account("platform", ("system:masters",))
SERVING: Final = Account.of("knative-serving", "controller")
EVENTING: Final = Account.of("knative-eventing", "eventing-controller")
IMC: Final = Account.of("knative-eventing", "imc-controller")
KAFKA: Final = Account.of("knative-eventing", "kafka-controller")
CERT_MANAGER: Final = Account.of("cert-manager", "cert-manager")


@dataclass(frozen=True)
class Row:
    """An object that a policy refuses, and one that differs from it where it counts.

    Where `old` is given, both are changes of it, and `subresource` says by which way; `evil` and
    `twin` then say only what changes, path by path: see `changed`.
    """

    name: str
    policy: str
    said: str
    """A part of the message."""
    evil: Json
    twin: Json | None = None
    """`None`: the same, sent by `twin_by`."""
    old: Json | None = None
    subresource: str = ""
    by: Account = MALLORY
    twin_by: Account | None = None
    """By default `by`."""

    def __str__(self) -> str:
        return self.name

    @property
    def honest(self) -> Account:
        """Who sends the twin."""
        return self.twin_by or self.by

    @property
    def harmless(self) -> Json:
        """What the twin is."""
        return self.evil if self.twin is None else self.twin


def changed(original: Mapping[str, Any], changes: Mapping[str, object]) -> Json:
    """A copy with fields set; a path's steps are divided by spaces.

    In a list, a step is the name of an element. A value of `None` takes the field away.
    """
    copy: Json = deepcopy(dict(original))
    for path, value in changes.items():
        *steps, last = path.split(" ")
        at: Any = copy
        for step in steps:
            if isinstance(at, list):
                (at,) = (it for it in at if it["name"] == step)
            else:
                at = at.setdefault(step, {})
        if value is None:
            at.pop(last, None)
        else:
            at[last] = value
    return copy


def thing(
    version: str, kind: str, name: str, namespace: str | None = SPACE, **more: object
) -> Json:
    """An object of Kubernetes."""
    metadata: Json = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}


def plural(kind: str) -> str:
    """What a kind is called in paths."""
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("y") and not name.endswith("ay"):
        return f"{name[:-1]}ies"
    return f"{name}es" if name.endswith("s") else f"{name}s"
