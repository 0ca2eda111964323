"""The loop that the server runs on, authorities, and the two transports."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest
import uvloop

from authz.transport import Http2Listener, closing, listener
from authz.transport.reference import GrpcioListener
from tests.support.certificates import Issuer
from tests.transport.support import AnyListener, Listening, Plain, listener_of, plain_of


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The listener looks after its connections more often, and waits for clients less long.

    Not where the clients are real and loaded.
    """
    if request.node.get_closest_marker("envoy") is None:
        monkeypatch.setattr(listener, "_SWEEP", 0.05)
        monkeypatch.setattr(listener, "_SWEEP_WHILE_DRAINING", 0.05)
        monkeypatch.setattr(closing, "ROUND_TRIP", 0.3)
        monkeypatch.setattr(closing, "LINGER", 0.3)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path / "ca")


@pytest.fixture
def foreign(tmp_path: Path) -> Issuer:
    """An authority of the same name and another key."""
    return Issuer(tmp_path / "foreign")


@pytest.fixture(params=[Http2Listener, GrpcioListener], ids=["http2", "grpcio"])
def kind(request: pytest.FixtureRequest) -> AnyListener:
    """Each transport."""
    chosen: AnyListener = request.param
    return chosen


@pytest.fixture
def listening(kind: AnyListener) -> Listening:
    """Makes listeners of each transport."""
    return partial(listener_of, kind)


@pytest.fixture
def plain(kind: AnyListener) -> Plain:
    """Makes listeners of each transport, without TLS, and a client to each."""
    return partial(plain_of, kind)
