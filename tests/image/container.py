"""A container that runs the service: what it says, whether it is healthy, how it ends."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import docker

from tests.envoy.bench import free_port
from tests.support.waiting import at_last

SECOND = 1_000_000_000  # Docker counts nanoseconds


class Container:
    """Started at once: no capabilities, no privileges, a read-only root, a user of your choice."""

    def __init__(
        self,
        client: docker.DockerClient,
        image: str,
        command: Sequence[str],
        *,
        user: int,
        settings: Mapping[str, str],
        mounts: Mapping[str, Path],
    ) -> None:
        self.http = free_port()
        settings = {**settings, "http_listen": str(self.http)}
        self._container: Any = client.containers.run(
            image,
            list(command) or None,
            detach=True,
            environment={f"AUTHZ_{name.upper()}": value for name, value in settings.items()},
            user=f"{user}:{user}",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="host",
            volumes=[f"{outside}:{inside}" for inside, outside in mounts.items()],
            healthcheck={"interval": SECOND // 2, "start_period": SECOND // 1000},
        )

    @property
    def output(self) -> str:
        text: bytes = self._container.logs()
        return text.decode()

    def line(self, event: str) -> dict[str, Any]:
        """Wait for a log line."""

        def said() -> dict[str, Any] | None:
            lines = self.output.rpartition("\n")[0].splitlines()
            # What is no JSON is for people: the reason why it does not start.
            found = [json.loads(line) for line in lines if line.startswith("{")]
            assert any(line["event"] == event for line in found) or self.runs, self.output
            return next((line for line in found if line["event"] == event), None)

        return at_last(said, f"{event!r} is logged")

    @property
    def port(self) -> int:
        return int(self.line("listening")["port"])

    @property
    def runs(self) -> bool:
        self._container.reload()
        return bool(self._container.attrs["State"]["Running"])

    @property
    def health(self) -> str:
        self._container.reload()
        return str(self._container.attrs["State"]["Health"]["Status"])

    def user_of_processes(self) -> set[str]:
        """The numbers of the users that its processes run as."""
        found = self._container.top(ps_args="-eo pid,uid,args")
        return {row[found["Titles"].index("UID")] for row in found["Processes"]}

    def terminate(self) -> None:
        """What the kubelet does first."""
        self._container.kill("SIGTERM")

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        return int(self._container.wait(timeout=60)["StatusCode"])

    def remove(self) -> None:
        self._container.remove(force=True)
