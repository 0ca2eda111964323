"""A client of a connection that is open."""

import pytest

from tests.http2.wire import Client


@pytest.fixture
def client() -> Client:
    return Client()
