"""A drain under load, on the wire: what the server is responsible for, and what it never saw."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from grpc import StatusCode, aio

from tests.support.clients import Client
from tests.support.waiting import eventually, soon
from tests.transport.support import INSECURE, SHOP, Running, listening
from tests.transport.tap import Tap

CHANNELS, AT_ONCE = 8, 4
WAITING = '{"methodConfig": [{"name": [{}], "waitForReady": true}]}'


@asynccontextmanager
async def tapped() -> AsyncIterator[tuple[Running, Tap, int]]:
    async with listening() as server:
        tap = Tap(server.port)
        port = await tap.start()
        try:
            yield server, tap, port
        finally:
            tap.stop()


async def has_answered(server: Running, count: int) -> bool:
    return len(server.asked.requests) >= count


@pytest.mark.parametrize("attempt", range(3))
async def test_a_drain_answers_all_that_it_says_it_does(attempt: int) -> None:
    """RFC 9113 section 6.8: up to the last stream all is answered, what is above never was asked.

    The client is grpcio without any retries. A call that its connection has accepted and not sent
    when GOAWAY comes fails there, with "Stream removed (GOAWAY received)": no server can know of
    it. That is what grpc's transparent retry is for, which is on where nobody turns it off.
    """
    failed: set[bytes] = set()
    answered: set[bytes] = set()
    done = asyncio.Event()
    options = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.service_config", WAITING),
    ]

    async def ask(client: Client, name: str) -> None:
        number = 0
        while not done.is_set():
            call = f"{attempt}/{name}/{(number := number + 1)}".encode()
            try:
                await client.ask(call, {INSECURE: str(SHOP)})
                answered.add(call)
            except aio.AioRpcError as error:
                assert error.code() is StatusCode.UNAVAILABLE  # noqa: PT017
                failed.add(call)

    async def load(target: str, name: int) -> None:
        async with aio.insecure_channel(target, options) as channel:
            client = Client(channel)
            await asyncio.gather(*(ask(client, f"{name}/{each}") for each in range(AT_ONCE)))

    async with tapped() as (old, tap, port), tapped() as (new, following, next_port):
        target = f"ipv4:127.0.0.1:{port},127.0.0.1:{next_port}"
        loading = [asyncio.create_task(load(target, name)) for name in range(CHANNELS)]
        await eventually(lambda: has_answered(old, 1000), "all are under way")
        tap.stop()
        await soon(old.listener.stop(15))
        moved = len(new.asked.requests)
        await eventually(lambda: has_answered(new, moved + 500), "they go on elsewhere")
        done.set()
        await soon(asyncio.gather(*loading))

    assert len(tap.wires) == CHANNELS
    for seen in tap.wires:
        assert seen.last is not None
        served = {stream_id for stream_id in seen.sent if stream_id <= seen.last}
        assert served - seen.taken_back <= seen.answered
        assert not served & seen.refused
        assert not seen.answered & seen.sent.keys() - served
    sent = {
        message[5:]: (seen, stream_id)  # after the prefix of gRPC
        for seen in (*tap.wires, *following.wires)
        for stream_id, message in seen.sent.items()
    }
    assert answered <= sent.keys()
    for call in failed & sent.keys():
        seen, stream_id = sent[call]
        assert seen.last is not None
        assert stream_id > seen.last
        assert call not in old.asked.requests
