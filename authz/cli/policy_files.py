"""Policies as the commands of `authz policy` are given them: in files and in the cluster."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.domain.policy import Mode, Policy
from authz.errors import BadSettings, to_install
from authz.policysource.file import read_policy
from authz.policysource.location import ConfigMapKey

_CONFIG_MAP: Final = "configmap:"

POLICY_FILE: Final = "The policy file; or configmap:NAMESPACE/NAME/KEY, in KUBECONFIG's cluster."
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help=POLICY_FILE)]
Cluster = Annotated[
    bool,
    typer.Option(
        "--cluster",
        help="Add the labels, Grants and domain claims of the cluster of KUBECONFIG, as servers "
        "with policy_from_cluster do. Nothing is written there.",
    ),
]
Enforced = Annotated[
    bool,
    typer.Option("--enforced", help="Judge as if every namespace were in mode enforce."),
]


def load(file: Path, *, cluster: bool = False, enforced: bool = False) -> Policy:
    """The policy that a command is about.

    Raises:
        BadPolicy: it cannot be used.
        BadSettings: it is in the cluster, and what that needs is not there.
        KubeError: the cluster cannot be asked.
    """
    policy = _in_cluster(str(file)) if str(file).startswith(_CONFIG_MAP) else read_policy(file)
    if cluster:
        policy = _with_cluster(policy)
    return as_enforced(policy) if enforced else policy


def as_enforced(policy: Policy) -> Policy:
    """The same with mode enforce everywhere."""
    spaces = {name: replace(said, mode=None) for name, said in policy.namespaces.items()}
    return replace(policy, namespaces=spaces, default_mode=Mode.ENFORCE)


def _in_cluster(text: str) -> Policy:
    try:
        where = ConfigMapKey.parse(text.removeprefix(_CONFIG_MAP))
    except ValueError as error:
        raise BadSettings([f"FILE: {error}"]) from None
    try:
        from authz.policysource.snapshot import policy_in  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _missing("FILE", error) from None
    return asyncio.run(policy_in(where))


def _with_cluster(policy: Policy) -> Policy:
    try:
        from authz.policysource.snapshot import with_cluster  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise _missing("--cluster", error) from None
    merged = asyncio.run(with_cluster(policy))
    refused = (
        f"grant {where}: {status.reason}: {status.message}"
        for where, status in merged.statuses.items()
        if not status.accepted
    )
    for problem in (*refused, *merged.problems):
        typer.echo(f"does not count: {problem}", err=True)
    return merged.policy


def _missing(what: str, error: ImportError) -> BadSettings:
    problem = f"{what}: it needs more packages, {error.name} is missing: {to_install('kubernetes')}"
    return BadSettings([problem])


now: Final = time.time  # noqa: TID251 - the command line is where time enters
