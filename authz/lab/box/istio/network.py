"""Network namespaces: a node, and a pod for each address, joined as a CNI plug-in joins them.

A namespace is a file descriptor of this process and has no name, so that nothing is left when the
process ends, however it ends, and several boxes at once do not see each other. Sockets of ours
can be made inside: a socket belongs for ever to the namespace in which it was made, and Linux lets
a thread change over for the moment of making it.

The pods are joined by routes through the node's namespace, where kube-proxy's rules are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from authz.lab.harness.processes import CouldNotStart

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_HERE: Final = "/proc/thread-self/ns/net"
_ROUTER: Final = "169.254.1.1"
_TOOLS: Final = ("ip", "iptables-restore", "nsenter", "setpriv")
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def missing() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    return f"network namespaces need {', '.join(lacking)}" if lacking else ""


class NetworkNamespace:
    """One network namespace, as long as it is not closed."""

    def __init__(self) -> None:
        with _returning():
            _check(_LIBC.unshare(_NEW_NETWORK))
            self._descriptor = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        self.run(["ip", "link", "set", "lo", "up"])

    @property
    def path(self) -> str:
        """A path that stands for it, also in children's arguments."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """Let go; the kernel removes it with the last process and socket inside."""
        os.close(self._descriptor)

    @contextmanager
    def entered(self, uid: int = 0) -> Iterator[None]:
        """Be inside, as the user `uid`, until the block ends; the block must not await."""
        with _returning():
            _check(_LIBC.setns(self._descriptor, _NEW_NETWORK))
            before = _LIBC.setfsuid(uid)
            try:
                yield
            finally:
                _LIBC.setfsuid(before)

    def socket(self, uid: int = 0) -> socket.socket:
        """A TCP socket inside, which belongs to `uid` as far as iptables can tell."""
        with self.entered(uid):
            made = socket.socket()
        made.setblocking(False)
        return made

    def run(self, argv: Sequence[str], text: str = "") -> None:
        """Run a command inside, with `text` as its input.

        Raises:
            CouldNotStart: it failed.
        """
        with self.entered():
            done = subprocess.run(  # noqa: S603 - a command of ours
                argv, input=text, text=True, capture_output=True, check=False
            )
        if done.returncode != 0:
            raise CouldNotStart(f"{' '.join(argv)}: {done.stderr.strip()}\n{text}")

    def argv(self, uid: int) -> list[str]:
        """What to put before a command: it runs inside, as `uid`, and ends when we do."""
        # What it runs and reads may lie in a folder that only root can enter.
        reads = "+dac_override,+dac_read_search"
        user = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
        user += ["--inh-caps", reads, "--ambient-caps", reads]
        enter = ["nsenter", f"--net={self.path}", "--"]
        return [*enter, "setpriv", *user, "--pdeathsig", "KILL", "--"]


class Network:
    """The node and its pods."""

    def __init__(self, pods: Mapping[str, str], node_rules: str) -> None:
        """Join `pods`, each a name and an address, by a node with `node_rules` for iptables."""
        self._node = NetworkNamespace()
        self._pods: dict[str, NetworkNamespace] = {}
        try:
            self._node.run(["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
            for number, (name, address) in enumerate(pods.items()):
                self._pods[name] = NetworkNamespace()
                self._join(self._pods[name], f"pod{number}", address)
            self._node.run(["iptables-restore"], node_rules)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, pod: str) -> NetworkNamespace:
        return self._pods[pod]

    def close(self) -> None:
        """Let go of all namespaces."""
        for namespace in (*self._pods.values(), self._node):
            namespace.close()
        self._pods.clear()

    def _join(self, pod: NetworkNamespace, device: str, address: str) -> None:
        # As Calico does: the pod's whole world is behind one router, the same for every pod.
        self._node.run(
            ["ip", "-batch", "-"],
            f"link add {device} type veth peer name eth0 netns {pod.path}\n"
            f"addr add {_ROUTER}/32 dev {device}\n"
            f"link set {device} up\n"
            f"route add {address}/32 dev {device}\n",
        )
        pod.run(
            ["ip", "-batch", "-"],
            f"addr add {address}/32 dev eth0\n"
            f"link set eth0 up\n"
            f"route add {_ROUTER} dev eth0 scope link\n"
            f"route add default via {_ROUTER}\n",
        )


@contextmanager
def _returning() -> Iterator[None]:
    """Come back to the namespace in which the thread is now."""
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield
    finally:
        try:
            _check(_LIBC.setns(home, _NEW_NETWORK))
        finally:
            with contextlib.suppress(OSError):
                os.close(home)


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise CouldNotStart(f"network namespace: {os.strerror(error)}")
