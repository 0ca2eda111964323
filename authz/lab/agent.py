"""The bootstrap of a proxy as Istio's own agent writes it: what istiod does not send.

The agent writes it for the Envoy that it starts. Here that is a script which keeps the file;
neither an istiod nor a network is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from authz.lab.controlplane import build
from authz.lab.harness.certs import Authority
from authz.lab.harness.processes import CouldNotStart
from authz.lab.world.model import DOMAIN

Json = dict[str, Any]

KINDS: Final = ("sidecar", "router")
_SECONDS: Final = 60
_KEEP: Final = '#!/bin/sh\ncp "$2" kept.json\n'  # -c FILE
_TEMPLATE: Final = Path("tools") / "packaging" / "common" / "envoy_bootstrap.json"


def bootstraps(istio: str, tell: Callable[[str], None]) -> dict[str, Json]:
    """The bootstraps of a sidecar and of a gateway (`router`), without the node.

    Args:
        istio: one of `versions.ISTIODS`.
        tell: gets a line if the agent has to be built first.

    Raises:
        CouldNotStart: the agent cannot be built, or writes none.
    """
    agent = build.built(build.agent(istio), tell)
    return {kind: _written(agent, build.istio_module(istio) / _TEMPLATE, kind) for kind in KINDS}


def _written(agent: Path, template: Path, kind: str) -> Json:
    with tempfile.TemporaryDirectory(prefix="authz-agent-") as folder:
        script = Path(folder) / "envoy"
        script.write_text(_KEEP)
        script.chmod(0o700)
        root = Path(folder) / "var" / "run" / "secrets" / "istio" / "root-cert.pem"
        root.parent.mkdir(parents=True)
        root.write_bytes(Authority(Path(folder) / "ca").ca_file.read_bytes())
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "POD_NAME": "pod",
            "POD_NAMESPACE": "namespace",
            "INSTANCE_IP": "10.244.0.1",
            "TRUST_DOMAIN": DOMAIN,
            "PROXY_CONFIG": json.dumps({"binaryPath": "./envoy"}),
        }
        options = ["--domain", f"namespace.svc.{DOMAIN}", "--templateFile", str(template)]
        done = subprocess.run(  # noqa: S603 - a program that we have built
            [agent, "proxy", kind, *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )
        try:
            made: Json = json.loads((Path(folder) / "kept.json").read_text())
        except OSError:
            last = done.stdout.splitlines()[-5:]
            raise CouldNotStart("\n".join(["pilot-agent wrote no bootstrap:", *last])) from None
    del made["node"]
    return made
