"""The matrix for people and for machines."""

from __future__ import annotations

import json as json_module
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from authz.lab.harness import processes
from authz.lab.harness.envoy import Envoy
from authz.lab.harness.service import AuthzServer
from authz.lab.loopback.mesh import Mesh
from authz.testing import Result

_WIDTH: Final = 160  # where there is no terminal to fit into

_EXAMPLES: Final = (
    ("acme-web", "hello.acme-db", "its own tenant"),
    ("globex", "hello.acme-db", "another tenant: denied"),
    ("globex", "idle.acme-db", "the same through the activator: denied"),
    ("initech", "idle.acme-db", "granted"),
    ("globex", "hello.umbrella", "shadow mode: let in"),
)


def differences(results: Sequence[Result[Any]]) -> int:
    """How many rows are not as expected."""
    return sum(not result.ok for result in results)


def show(results: Sequence[Result[Any]], envoy_version: str, *, json: bool) -> None:
    """Print all rows to standard output."""
    if json:
        sys.stdout.write(_as_json(results, envoy_version) + "\n")
        sys.stdout.flush()
    else:
        _print_table(results, envoy_version)


def invite(mesh: Mesh, authz: AuthzServer, envoys: Sequence[Envoy], *, on_stderr: bool) -> None:
    """Say what to type while the demo stays up."""
    lines = ["", "The cluster is up. An app calls through its own sidecar:", ""]
    for source, host, why in _EXAMPLES:
        address = mesh.tenants[source].outbound
        lines.append(f"  curl -i -H 'Host: {host}' http://{address}/  # {source}: {why}")
    public = f"curl -i -H 'Host: hello.acme-web.example.com' http://{mesh.gateway.outbound}/"
    lines += [f"  {public}  # from outside", "", "Every namespace's sidecar:", ""]
    lines += [f"  {name:<10}{it.outbound}" for name, it in mesh.tenants.items()]
    lines += ["", "What can be looked at:", ""]
    lines += [f"  log      {authz.log}", f"  metrics  http://{mesh.authz_http}/metrics"]
    lines += [
        f"  Envoy    http://{it.admin_address.read_text().strip()}/  # {it.name}" for it in envoys
    ]
    lines += ["", "Commands to try on it:", "", *(f"  {command}" for command in _commands(authz))]
    lines += ["", "Ctrl-C ends it.", ""]
    console = Console(stderr=on_stderr, soft_wrap=True, highlight=False)
    console.print("\n".join(lines), markup=False)


def _commands(authz: AuthzServer) -> Sequence[str]:
    """Three that work from another terminal."""
    name = "authz" if shutil.which("authz") else f"{sys.executable} -m authz"
    keys = " ".join(
        f"--{setting.replace('_', '-')} {value}"
        for setting, value in authz.keys.key_settings.items()
    )
    return (
        f"{name} policy explain {authz.policy_file} globex acme-db  # why it is denied",
        f"{name} report {authz.log} --policy {authz.policy_file}  # who was denied",
        f"{name} keys revoke acme-web {keys}  # its tokens count no more",
    )


def last_words(directory: Path) -> str:
    """The ends of all logs, to find out why something differed."""
    tails = {log.stem: processes.last_words(log) for log in sorted(directory.glob("*.log"))}
    return "\n".join(f"--- {name}\n{tail}" for name, tail in tails.items() if tail)


def _as_json(results: Sequence[Result[Any]], envoy_version: str) -> str:
    rows = [
        {
            "name": result.case.name,
            "shows": result.case.shows,
            "expected": result.case.expected,
            "seen": result.outcome,
            "ok": result.ok,
        }
        for result in results
    ]
    whole = {"envoy": envoy_version, "scenarios": rows, "differences": differences(results)}
    return json_module.dumps(whole, indent=2)


def _print_table(results: Sequence[Result[Any]], envoy_version: str) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH
    table = Table(title=f"Tenants kept apart by Envoy {envoy_version}", title_justify="left")
    table.add_column("scenario", no_wrap=True)
    table.add_column("what it shows")
    table.add_column("expected")
    table.add_column("seen", overflow="fold")
    for result in results:
        row = result.case
        style = None if result.ok else "bold red"
        table.add_row(row.name, row.shows, row.expected, result.outcome, style=style)
    console.print(table)
    console.print(f"{len(results)} scenarios, differences: {differences(results)}")
