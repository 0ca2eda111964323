"""iptables rules, as istio-init and kube-proxy write them.

istio/istio 1.30 tools/istio-iptables/pkg/capture/run.go: REDIRECT mode, inbound ports `*`.
"""

from __future__ import annotations

from typing import Final

from authz.lab.world.model import World

PROXY_UID: Final = 1337
APP_UID: Final = 1000
NOT_CAPTURED: Final = (15008, 15090, 15021, 15020)
"""Inbound ports that istio-init leaves alone: the tunnel, metrics, health and the agent."""


def capture() -> str:
    """What istio-init does to a pod: all TCP goes through its sidecar, but the sidecar's own."""
    rules = [
        "-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001",
        "-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        *(f"-A ISTIO_INBOUND -p tcp --dport {port} -j RETURN" for port in NOT_CAPTURED),
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        "-A OUTPUT -p tcp -j ISTIO_OUTPUT",
        # From the sidecar to its own app: 127.0.0.6 is where istiod lets it bind.
        "-A ISTIO_OUTPUT -s 127.0.0.6/32 -o lo -j RETURN",
    ]
    not_tunnel, to_inbound = "-p tcp ! --dport 15008", "-j ISTIO_IN_REDIRECT"
    for owner in ("uid", "gid"):
        ours, others = f"--{owner}-owner {PROXY_UID}", f"! --{owner}-owner {PROXY_UID}"
        rules += [
            f"-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo {not_tunnel} -m owner {ours} {to_inbound}",
            f"-A ISTIO_OUTPUT -o lo -m owner {others} -j RETURN",
            f"-A ISTIO_OUTPUT -m owner {ours} -j RETURN",
        ]
    rules += [
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
    ]
    chains = ("ISTIO_INBOUND", "ISTIO_REDIRECT", "ISTIO_IN_REDIRECT", "ISTIO_OUTPUT")
    return _nat([*(f":{chain} - [0:0]" for chain in chains), *rules])


def cluster_ips(world: World) -> str:
    """What kube-proxy does on the node: cluster IPs lead to the first endpoint."""
    rules = []
    for service in world.services:
        for port in service.ports if service.endpoints else ():
            pod = world.pods[service.endpoints[0]]
            rules.append(
                f"-A PREROUTING -p tcp -d {service.address}/32 --dport {port.number} "
                f"-j DNAT --to-destination {pod.address}:{port.target}"
            )
    # A pod that reaches itself by a cluster IP must not see an answer from itself.
    rules += [
        f"-A POSTROUTING -s {pod.address}/32 -d {pod.address}/32 -j MASQUERADE"
        for pod in world.pods.values()
    ]
    return _nat(rules)


def _nat(lines: list[str]) -> str:
    return "\n".join(["*nat", *lines, "COMMIT", ""])
