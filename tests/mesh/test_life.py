"""What can be done to a box, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from authz.lab.box.istio import box, network
from authz.lab.box.istio.client import NoAnswer
from authz.lab.box.istio.directory import own_directory
from authz.lab.box.istio.programs import GREETING
from authz.lab.world.standard_policy import standard_policy
from tests.mesh.conftest import needs_network
from tests.support.waiting import at_last, eventually

pytestmark = [
    needs_network,
    pytest.mark.envoy,
    pytest.mark.timeout(240),
]

SMALL = ("acme-db", "globex")
CRASHES = """
import asyncio
from authz.lab.box.istio import box
async def main():
    async with box.running(tenants=["globex"]) as mesh:
        print(mesh.directory, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def _processes(directory: str) -> list[str]:
    """Living processes whose command line names a directory."""
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = status.read_bytes()
        except OSError:
            continue  # it has just ended
        if directory.encode() in command:
            found.append(command.decode())
    return found


async def test_a_box_can_be_changed_and_leaves_nothing_behind() -> None:
    before = len([*Path("/proc/self/fd").iterdir()])
    without_tcp = box.without("tenant-authz-tcp")
    async with box.running(tenants=SMALL, patched=without_tcp) as mesh:
        await mesh.settled()
        directory = str(mesh.directory)
        assert _processes(directory)

        # The rule that was taken away is what kept raw TCP out.
        async with mesh.connected("globex/plain", "plain-tcp.acme-db:7000") as connection:
            assert await connection.receive() == GREETING
            await connection.send(b"mine\r\n")
            assert await connection.receive() == b"mine\r\n"

        denied = await mesh.call("globex/hello", "http://idle.acme-db/")
        assert (denied.status, denied.reason) == (403, "not-allowed")
        await mesh.set_policy(standard_policy(grants=[{"to": "acme-db", "from": "globex"}]))
        granted = await mesh.call("globex/hello", "http://idle.acme-db/")
        assert (granted.status, granted.app) == (200, "acme-db/idle")

        await mesh.scale("acme-db/idle", up=False)
        waiting = asyncio.create_task(mesh.call("globex/hello", "http://idle.acme-db/"))

        async def held() -> bool:
            return bool((await mesh.revisions())["acme-db/idle-00001"]["waiting"])

        await eventually(held, "the activator holds it")
        await mesh.scale("acme-db/idle", up=True)
        assert (await waiting).status == 200

        await mesh.keys("rotate", "acme-db")
        await mesh.kill("authz-system/authz")
        assert (await mesh.call("globex/hello", "http://idle.acme-db/")).status == 503
        await mesh.start_authz()
        await mesh.kill_proxy("acme-db/idle")
        to = f"{mesh.address('acme-db/idle')}:8012"
        with pytest.raises(NoAnswer, match="Refused"):
            async with mesh.connected("globex/plain", to, through_sidecar=False):
                pass
    assert not Path(directory).exists()
    assert _processes(directory) == []
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_crash_leaves_no_process_and_no_namespace() -> None:
    names = Path("/var/run/netns")
    before = sorted(names.iterdir()) if names.exists() else []
    argv = [sys.executable, "-c", CRASHES]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        directory = process.stdout.readline().strip()
        running = _processes(directory)
        process.kill()
    assert running
    at_last(lambda: not _processes(directory), "all processes end with the one that died")
    assert (sorted(names.iterdir()) if names.exists() else []) == before
    assert Path(directory).exists()
    with own_directory() as next_one:  # what the next box does first
        assert not Path(directory).exists()
        with own_directory():
            assert next_one.exists()
    assert not next_one.exists()


async def test_networks_do_not_see_each_other() -> None:
    first, second = (network.Network({"a": "10.244.0.2"}, "") for _ in range(2))
    try:
        with first["a"].socket() as listening, second["a"].socket() as calling:
            listening.bind(("10.244.0.2", 80))
            listening.listen()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.get_running_loop().sock_connect(calling, ("10.244.0.2", 80))
    finally:
        first.close()
        second.close()
