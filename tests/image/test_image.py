"""The image, built and run by a real engine: what is in it, how it serves, how it ends."""

import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

import docker
import pytest
from docker.utils import exclude_paths

from authz import __version__
from authz.testing import check_request
from tests.image.conftest import Run
from tests.image.engine import ROOT, let_through
from tests.support.clients import connected, http_get, token_in
from tests.support.processes import Folder
from tests.support.waiting import at_last

pytestmark = [
    pytest.mark.timeout(600),  # the first run makes a base image
]

MOST = 75_000_000
"""Bytes that we may add to the base."""

COMPILERS = {"as", "c++", "c99", "cc", "clang", "cpp", "g++", "gcc", "go", "ld", "make", "rustc"}
TO_SHOP = "outbound|80||cart.shop.svc.cluster.local"
INSTALLERS = {"pip", "pip3", "uv", "ensurepip", "easy_install"}


# -- what goes in ------------------------------------------------------------------------------


def test_the_build_is_given_what_it_reads_and_nothing_else() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {str(PurePosixPath(path)) for path in exclude_paths(str(ROOT), rules)}
    allowed = [*let_through(), "Dockerfile", ".dockerignore"]
    assert not [it for it in sent if not any(f"{it}/".startswith(f"{top}/") for top in allowed)]
    assert "authz/config.py" in sent
    assert not [path for path in sent if path.startswith("authz/lab")]
    assert not [path for path in sent if path.endswith((".pyc", ".key", ".db"))]


# -- what comes out ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def content(client: docker.DockerClient, image: Any) -> Iterator[dict[str, tarfile.TarInfo]]:
    """Every file in the image, by its path."""
    container = client.containers.create(image.id)
    try:
        with tempfile.TemporaryFile() as whole:
            pieces: Any = container.export()  # bytes, whatever its types say
            whole.writelines(pieces)
            whole.seek(0)
            with tarfile.open(fileobj=whole) as files:
                yield {member.name: member for member in files}
    finally:
        container.remove()


def test_it_says_what_it_is_and_runs_as_nobody(image: Any) -> None:
    config = image.attrs["Config"]
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["authz"], ["serve"])
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"9000/tcp", "9001/tcp"}
    labels = config["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.base.name"].startswith("tenant-authz-test-base")
    assert all(labels.values())
    assert config["Healthcheck"]["Test"][0] == "CMD"


def test_no_setting_in_it_wins_over_a_settings_file(image: Any) -> None:
    names = {line.partition("=")[0] for line in image.attrs["Config"]["Env"]}
    assert not [name for name in names if name.startswith("AUTHZ_")]


def test_it_holds_no_compiler_and_no_installer(content: dict[str, tarfile.TarInfo]) -> None:
    programs = {path for path in content if PurePosixPath(path).parent.name in {"bin", "sbin"}}
    names = {PurePosixPath(path).name for path in programs}
    assert "authz" in names
    assert not names & (COMPILERS | INSTALLERS)
    assert not [path for path in content if "/site-packages/pip/" in path]


def test_it_holds_nothing_that_was_only_needed_to_build_it(
    content: dict[str, tarfile.TarInfo],
) -> None:
    def is_left_over(path: PurePosixPath) -> bool:
        return (
            path.suffix == ".whl"
            or path.parts[0] in {"build", "wheelhouse"}
            or path.parts[:2] == ("root", ".cache")
            or path.name in {".bash_history", ".python_history", ".ash_history", ".git"}
            or path.match("site-packages/tests")
            or path.match("var/cache/apt/*.bin")
        )

    assert not [path for path in content if is_left_over(PurePosixPath(path))]


def test_nobody_can_change_it_or_become_root_by_it(content: dict[str, tarfile.TarInfo]) -> None:
    ours = [it for path, it in content.items() if path.startswith("opt/tenant-authz/")]
    assert len(ours) > 1000
    assert not [it.name for it in ours if it.uid or (not it.issym() and it.mode & 0o022)]
    raised = stat.S_ISUID | stat.S_ISGID
    assert not [it.name for it in content.values() if it.isfile() and it.mode & raised]


def test_the_lab_and_its_demo_are_not_in_it(content: dict[str, tarfile.TarInfo], run: Run) -> None:
    assert [path for path in content if path.endswith("site-packages/authz/server/run.py")]
    assert not [path for path in content if "/authz/lab" in path]
    demo = run("demo", "--once")
    assert demo.ended() == 3
    assert "pip install '.[demo]' in a clone" in demo.output


def test_it_need_not_compile_python_at_each_start(content: dict[str, tarfile.TarInfo]) -> None:
    assert [path for path in content if path.endswith("authz/__pycache__/config.cpython-311.pyc")]


def test_it_adds_little_to_its_base(
    image: Any, base: Any, record_property: Callable[[str, object], None]
) -> None:
    added = image.attrs["Size"] - base.attrs["Size"]
    record_property("bytes added to the base", added)
    assert 0 < added < MOST


# -- how it runs -------------------------------------------------------------------------------


async def test_it_serves_unknown_users_without_privileges_and_drains_on_sigterm(
    run: Run, folder: Folder, user: int
) -> None:
    made = run("keys", "init")
    assert made.ended() == 0, made.output
    server = run(drain_seconds="600")
    at_last(lambda: server.health == "healthy", "the container is healthy")
    assert server.user_of_processes() == {str(user)}
    async with connected(server.port, folder.workload("shop")) as client:
        answer = await client.check("sign", check_request(), upstream=TO_SHOP)
        assert token_in(answer).startswith("v1.")

        server.terminate()
        server.line("draining")
        assert http_get(f"http://{server.http}/readyz")[0] == 503
        assert await client.health() == "NOT_SERVING"
        answer = await client.check("sign", check_request(), upstream=TO_SHOP)
        assert token_in(answer).startswith("v1.")
    at_last(lambda: server.health == "unhealthy", "the container is unhealthy")

    server.terminate()  # a second time: hurry
    assert server.ended() == 0
    server.line("stopped")


async def test_it_serves_with_several_workers(run: Run, folder: Folder) -> None:
    assert run("keys", "init").ended() == 0
    server = run(workers="2", drain_seconds="0")
    at_last(lambda: server.health == "healthy", "the container is healthy")
    async with connected(server.port, folder.workload("shop")) as client:
        assert await client.health() == "SERVING"
    server.terminate()
    assert server.ended() == 0


async def test_without_keys_it_says_so_and_is_not_healthy(run: Run) -> None:
    server = run()
    server.line("key store not usable")
    at_last(lambda: server.health == "unhealthy", "the container is unhealthy")


def test_help_and_tables_need_nothing_that_is_left_out(run: Run) -> None:
    for command in (["--help"], ["keys", "--help"], ["policy", "tables"], ["keys", "nonsense"]):
        ran = run(*command)
        assert ran.ended() == (2 if "nonsense" in command else 0), ran.output
        assert "Traceback" not in ran.output


def test_the_reference_transport_is_not_in_it_and_that_is_said(
    content: dict[str, tarfile.TarInfo], run: Run
) -> None:
    assert not [path for path in content if "site-packages/grpc" in path]
    assert [path for path in content if path.endswith("pygments/lexers/__init__.py")]
    assert not [path for path in content if path.endswith("pygments/lexers/python.py")]
    server = run(transport="grpcio")
    assert server.ended() == 2
    assert "transport: grpcio is not installed, nor is it in the image" in server.output


def test_what_is_wrong_with_the_settings_is_told(run: Run) -> None:
    server = run(tls_ca_file=None)
    assert server.ended() == 2
    assert "tls_ca_file" in server.output
