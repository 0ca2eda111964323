"""The command line and servers in processes of their own."""

import base64
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from authz.domain.identity import SpiffeId
from authz.lab.harness import service
from authz.lab.harness.certs import Certificate
from authz.lab.harness.keyfiles import KeyFiles
from authz.testing import workload
from tests.support.certificates import Issuer
from tests.support.clients import http_get
from tests.support.waiting import PATIENCE, at_last

KEK = base64.b64encode(b"the KEK of the edge's tests".ljust(32, b"!")).decode()


def environment(**extra: str) -> dict[str, str]:
    """An environment without settings of ours but these."""
    return {**service.environment(), "COLUMNS": "200", "NO_COLOR": "1", **extra}


def authz(
    *arguments: str, given: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, in a process of its own."""
    return subprocess.run(
        [*service.COMMAND, *arguments],
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        env=environment(**env),
        timeout=PATIENCE * 2,
        check=False,
    )


class Folder(KeyFiles):
    """A folder with all that a server needs: certificates, KEK, policy, store."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path = path
        self.issuer = Issuer(path / "ca")
        self.certificate = self.issuer.server()
        self.kek_file.write_text(KEK)
        self.kek_file.chmod(0o600)
        self.policy_file = path / "policy.yaml"
        self.policy_file.write_text("grants: []\n")

    def settings(self, **changed: str | None) -> dict[str, str]:
        """Settings for a server, without those that are changed to `None`."""
        values = {
            **self.key_settings,
            "listen": "127.0.0.1:0",
            "http_listen": "127.0.0.1:0",
            **self.certificate.settings,
            "policy_file": str(self.policy_file),
            "drain_seconds": "0",
            "grace_seconds": "1",
            **changed,
        }
        return {name: value for name, value in values.items() if value is not None}

    def flags(self, **changed: str | None) -> list[str]:
        """The same as flags for `authz serve`."""
        values = self.settings(**changed)
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]

    def keys(self, *arguments: str) -> Any:
        """Run `authz keys` on the store; its JSON."""
        done = authz(
            "keys", *arguments, "--store", self.store, "--kek-files", str(self.kek_file), "--json"
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def workload(self, namespace: str, service_account: str = "default") -> Certificate:
        """A certificate for a workload."""
        return self.issuer.issue(SpiffeId.parse(str(workload(namespace, service_account))))


class Process:
    """`authz serve` in a process of its own, with everything that it says."""

    def __init__(
        self,
        folder: Path,
        flags: Sequence[str],
        before: Callable[[], None] | None = None,
        /,
        **env: str,
    ) -> None:
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [*service.COMMAND, "serve", *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment(**env),
                preexec_fn=before,  # noqa: PLW1509 - sets limits of the process, nothing else
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Log lines of one kind."""
        whole = self.stdout.rpartition("\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    def line(self, event: str, number: int = 1) -> dict[str, Any]:
        """Wait for a log line, or for the so-manieth of its kind."""

        def said() -> dict[str, Any] | None:
            lines = self.lines(event)
            assert len(lines) >= number or self.popen.poll() is None, self.stderr
            return lines[number - 1] if len(lines) >= number else None

        return at_last(said, f"{event!r} is logged")

    @property
    def port(self) -> int:
        return int(self.line("listening")["port"])

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.line('listening')['http_port']}"

    def ready(self) -> Self:
        """Wait until it is."""
        at_last(lambda: http_get(f"{self.http}/readyz")[0] == 200, "the server is ready")
        return self

    def ended(self) -> int:
        """Wait until it has ended; its exit code."""
        return self.popen.wait(PATIENCE)


@contextmanager
def serving(
    folder: Path, flags: Sequence[str], before: Callable[[], None] | None = None, /, **env: str
) -> Iterator[Process]:
    """Run a server until the end of the block. `before` is called in its process."""
    process = Process(folder, flags, before, **env)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.wait(PATIENCE)
