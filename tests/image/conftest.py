"""One engine and one image for all tests of the image; one container for those that only look."""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.image.container import Container
from tests.image.engine import build, engine, import_base, make_context
from tests.support.processes import Folder

Run = Callable[..., Container]


@pytest.fixture(scope="session")
def client() -> Iterator[docker.DockerClient]:
    with engine() as client:
        yield client


@pytest.fixture(scope="session")
def base(client: docker.DockerClient) -> Iterator[Any]:
    name = import_base(client)
    yield client.images.get(name)
    client.images.remove(name, force=True)


@pytest.fixture(scope="session")
def image(
    client: docker.DockerClient, base: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    context = tmp_path_factory.mktemp("context")
    make_context(context)
    image = build(client, context, base.tags[0], "tenant-authz-test")
    yield image
    client.images.remove(image.id, force=True)


@pytest.fixture
def user() -> int:
    """A user that no image knows, if we may choose."""
    return random.randrange(100_000, 2**31) if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def folder(tmp_path: Path, user: int) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def run(client: docker.DockerClient, image: Any, folder: Folder, user: int) -> Iterator[Run]:
    """Runs the image with a command, as Kubernetes' strictest rules have it."""
    with ExitStack() as stack:

        def start(*command: str, **changed: str | None) -> Container:
            _hand_over(folder.path, user)
            path = folder.path
            container = Container(
                client, image.id, command,
                user=user, settings=folder.settings(**changed), mounts={str(path): path},
            )  # fmt: skip
            stack.callback(container.remove)
            return container

        yield start


def _hand_over(path: Path, user: int) -> None:
    """Make a folder that user's, who can then reach it."""
    for each in (path, *path.rglob("*")):
        os.chown(each, user, user)
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001 and parent.owner() != "root":
            parent.chmod(mode | 0o011)
