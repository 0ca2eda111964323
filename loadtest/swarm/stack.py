"""The stack: `python -m loadtest.swarm.stack`, which prints where it is and ends with its stdin.

Real Envoys in front of small apps as in `authz demo`, with the filters and the DestinationRule that
ship, and two replicas of the service. What can be changed while it runs is a command of `control`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from authz.domain import rotation
from authz.domain.identity import SpiffeId
from authz.domain.keys import Keyring, TokenLife
from authz.domain.names import parse_namespace
from authz.errors import AuthzError
from authz.lab.harness.certs import Certificate
from authz.lab.harness.envoy import Envoy
from authz.lab.harness.keyfiles import KeyFiles
from authz.lab.harness.ports import free_ports
from authz.lab.harness.service import environment
from authz.lab.loopback import mesh as demo
from authz.lab.loopback.mesh import AUTHZ_CLUSTER, AUTHZ_HOST, Mesh
from authz.lab.loopback.server import POLICY
from authz.lab.world.model import DOMAIN, Json
from loadtest.swarm.control import StackFailed, listening
from loadtest.swarm.expect import KEPT
from loadtest.swarm.flood import Flood
from loadtest.swarm.replicas import COUNT, Place, Replicas

GRANT: Final = "grants:\n  - {to: acme-db, from: initech}\n"
REUSE: Final = {"reuse_sign_seconds": 30, "reuse_verify_seconds": KEPT}
"""Settings of the service with which sidecars give answers again."""
_DRAIN_SECONDS: Final = 10.0  # as deploy/base/settings.yaml has it
_ROTATION_DELAY: Final = 2  # seconds until a new key signs; every server has seen it by then
_LIFE: Final = TokenLife()
# Requests that went on unsigned, since nobody answered in time; questions that took too long.
_FACTS: Final = r"(tenant_authz_sign\.failure_mode_allowed|authz-system.*\.upstream_rq_timeout)$"


class Stack:
    """What the commands act on."""

    def __init__(
        self, mesh: Mesh, directory: Path, replicas: Replicas, envoys: list[Envoy], policy: Path
    ) -> None:
        self._mesh = mesh
        self._replicas = replicas
        self._envoys = envoys
        self._policy = policy
        self._policy_text = policy.read_text()
        self._keys = KeyFiles(directory)
        self._flood = Flood(mesh.authority, directory)
        self._busy = asyncio.Lock()
        self._replacing = asyncio.Lock()

    async def handle(self, order: Mapping[str, Any]) -> Mapping[str, Any]:
        """Do what the order says. What changes keys or policy says when it was changed."""
        match order["do"]:
            case "site":
                return self._site()
            case "issue":
                return self._issue(order["namespace"])
            case "rotate":
                return await self._change(lambda ring, now: self._rotated(ring, now, order))
            case "revoke":
                namespace = parse_namespace(order["namespace"])
                return await self._change(
                    lambda ring, now: rotation.revoke_namespace(ring, namespace, now)
                )
            case "policy":
                return self._write_policy(order["granted"], broken=order.get("broken", False))
            case "replace":
                async with self._replacing:
                    await self._replicas.replace()
                return {}
            case "kill-worker":
                self._replicas.kill_worker()
                return {}
            case "flood":
                return await self._flood.run(self._replicas.some(), order["seconds"])
            case "facts":
                return await self._facts()
        raise StackFailed(f"there is no command {order['do']!r}")

    def _site(self) -> Mapping[str, Any]:
        mesh = self._mesh
        workloads = [*mesh.tenants.values(), mesh.activator]
        return {
            "tenants": {name: str(it.outbound) for name, it in mesh.tenants.items()},
            "gateway": str(mesh.gateway.outbound),
            "external": str(mesh.external),
            "authz_host": AUTHZ_HOST,
            "replicas": self._replicas.addresses,
            "certificates": {it.namespace: _files(it.certificate) for it in workloads},
        }

    def _issue(self, namespace: str) -> Mapping[str, Any]:
        who = SpiffeId(DOMAIN, parse_namespace(namespace), "default")
        return _files(self._mesh.authority.issue(who))

    async def _change(self, change: Callable[[Keyring, float], Keyring]) -> Mapping[str, Any]:
        async with self._busy:
            await self._keys.change_keys(lambda keyring: change(keyring, _now()))
        return {"at": _now()}

    def _rotated(self, keyring: Keyring, now: float, order: Mapping[str, Any]) -> Keyring:
        if name := order.get("namespace"):
            namespace = parse_namespace(name)
            if keyring.keys_of(namespace).previous_until > now:
                return keyring  # it still runs, and a second one would cut it short
            return rotation.rotate_namespace(
                keyring, namespace, now, delay=_ROTATION_DELAY, life=_LIFE
            )
        return rotation.rotate_root(keyring, now, delay=_ROTATION_DELAY, life=_LIFE)

    def _write_policy(self, granted: bool, *, broken: bool) -> Mapping[str, Any]:
        text = self._policy_text if granted else self._policy_text.replace(GRANT, "")
        fresh = self._policy.with_suffix(".new")
        fresh.write_text("tenants: [broken\n" if broken else text)
        fresh.replace(self._policy)
        return {"at": _now()}

    async def _facts(self) -> Mapping[str, int]:
        """What Envoys have counted since they began, and what the service holds."""
        texts = await asyncio.gather(*(it.admin(f"/stats?filter={_FACTS}") for it in self._envoys))
        counts = [line.rpartition(": ") for text in texts for line in text.splitlines()]
        return {
            "unsigned": sum(int(n) for name, _, n in counts if name.endswith("mode_allowed")),
            "timeouts": sum(int(n) for name, _, n in counts if name.endswith("rq_timeout")),
            "memory": self._replicas.memory(),
        }


def _files(certificate: Certificate) -> Mapping[str, str]:
    return {
        "cert": str(certificate.cert_file),
        "key": str(certificate.key_file),
        "ca": str(certificate.ca_file),
    }


def _now() -> float:
    return time.time()  # noqa: TID251 - keys and tokens live by the real clock


async def _run(policy: str | None, drain_seconds: float, *, kept: bool) -> None:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - there is one here
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    async with AsyncExitStack() as stack:
        prefix = "authz-swarm-"
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix)))
        mesh = demo.plan(directory)
        own = {"drain_seconds": drain_seconds, **(REUSE if kept else {})}
        replicas, policy_file = await _servers(mesh, directory, policy, own, stack)
        changed = {
            name: _with_endpoints(config, replicas.endpoints_file)
            for name, config in demo.configs(mesh, "reuse" if kept else "").items()
        }
        envoys = await stack.enter_async_context(demo.running(mesh, directory, changed))
        path = directory / "control"
        running = Stack(mesh, directory, replicas, envoys, policy_file)
        await stack.enter_async_context(listening(path, running.handle))
        sys.stdout.write(f"{path}\n")
        sys.stdout.flush()
        try:
            await asyncio.to_thread(sys.stdin.read)
        finally:
            await replicas.crash()  # nobody is left for whom they should drain


async def _servers(
    mesh: Mesh,
    directory: Path,
    policy: str | None,
    own: Mapping[str, object],
    stack: AsyncExitStack,
) -> tuple[Replicas, Path]:
    """The service's replicas, with keys, and the file of their policy."""
    keys = KeyFiles(directory)
    await keys.make_keys()
    policy_file = directory / "policy.yaml"
    policy_file.write_text(POLICY if policy is None else policy)
    certificate = mesh.authority.issue(demo.AUTHZ, dns_name=AUTHZ_HOST)
    settings = {
        **certificate.settings,
        **keys.key_settings,
        "policy_file": policy_file,
        **own,
    }
    free = iter(free_ports([mesh.authz.host], each=2 * COUNT))
    places = [Place(mesh.authz, mesh.authz_http)]
    places += [Place(next(free), next(free)) for _ in range(COUNT)]
    replicas = Replicas(places, environment(settings), AUTHZ_CLUSTER, directory, stack)
    await replicas.start()
    return replicas, policy_file


def _with_endpoints(config: Json, endpoints: Path) -> Json:
    """The configuration; our endpoints come by EDS, as from istiod, though from a file."""
    source = {"path_config_source": {"path": str(endpoints)}, "resource_api_version": "V3"}
    for cluster in config["static_resources"]["clusters"]:
        if cluster["name"] == AUTHZ_CLUSTER:
            del cluster["load_assignment"]
            cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
    return config


def main() -> None:
    """Run until stdin ends, or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.swarm.stack", description=__doc__)
    parser.add_argument("--policy-file", type=Path, help="a policy in place of the demo's")
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=_DRAIN_SECONDS,
        help="how long a replica that goes waits for sidecars to move away (%(default)s)",
    )
    parser.add_argument("--reuse", action="store_true", help="sidecars give answers again")
    given = parser.parse_args()
    policy = None if given.policy_file is None else given.policy_file.read_text()
    try:
        asyncio.run(_run(policy, given.drain_seconds, kept=given.reuse))
    except AuthzError as error:
        sys.exit(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass


if __name__ == "__main__":
    main()
