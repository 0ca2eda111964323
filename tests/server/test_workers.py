"""Several processes on one port: they share, they are replaced, they end in order, they add up."""

import asyncio
import json
import os
import select
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio
from prometheus_client.parser import text_string_to_metric_families

from authz.backoff import LEAST, MOST, WELL, Backoff
from authz.cli.settings import load_settings
from authz.config import Settings
from authz.domain import rotation
from authz.domain.facts import Question
from authz.domain.keys import TokenLife
from authz.domain.names import Namespace
from authz.domain.verdict import Allow, Ground, HeaderAction, Parties, SetToken
from authz.observe import DecisionEvent, Metrics
from authz.server.workers import worker as worker_module
from authz.server.workers.protocol import Greeting
from authz.server.workers.worker import Worker
from authz.testing import ManualClock, workload
from tests.server.support import (
    GRANT,
    ROLES,
    now,
    revoke_shop,
    sign,
    verify,
)
from tests.support.certificates import SERVER_NAME, replace_file
from tests.support.clients import Client, connected, http_get
from tests.support.processes import Folder, Process, serving
from tests.support.waiting import PATIENCE, at_last, eventually, soon

SHOP = Namespace("shop")
LIFE = TokenLife(720, 30)
MANY = 16
"""Connections, of which each worker gets some, but for once in 32,000 times."""


@contextmanager
def two_workers(folder: Folder, **changed: str | None) -> Iterator[Process]:
    with serving(folder.path, folder.flags(**{"workers": "2", **changed})) as process:
        yield process


@asynccontextmanager
async def clients(process: Process, folder: Folder, namespace: str) -> AsyncIterator[list[Client]]:
    """Clients on connections of their own, all connected."""
    certificate = folder.workload(namespace)
    async with AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(connected(process.port, certificate))
            for _ in range(MANY)
        ]
        await asyncio.gather(*(client.channel.channel_ready() for client in made))
        await asyncio.gather(*(client.health() for client in made))
        yield made


def pid(process: Process, worker: int, number: int = 1) -> int:
    """That of the so-manieth process in a worker's place."""

    def started() -> list[int]:
        lines = [line for line in process.lines("worker started") if line["worker"] == worker]
        return [line["pid"] for line in lines[number - 1 : number]]

    (found,) = at_last(started, f"worker {worker} has started {number} times")
    return found


def metrics(process: Process) -> dict[tuple[str, ...], float]:
    """Samples by name and values of labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(http_get(f"{process.http}/metrics")[1])
        for sample in family.samples
    }


def sockets(process: Process, pid: int) -> int:
    """How many a worker has open."""
    count = 0
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        ended = process.lines("worker ended, another takes its place")
        pytest.fail(f"worker {pid} has ended: {ended}")
    for link in links:
        with suppress(OSError):
            count += str(link.readlink()).startswith("socket:")
    return count


def wait_for_end(*handles: int) -> None:
    """Wait for processes to end that need not be our children."""
    for handle in handles:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), "a process goes on"
        os.close(handle)


# They share ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["http2", "grpcio"])
async def test_workers_share_the_port_and_what_they_count_adds_up(
    folder: Folder, transport: str
) -> None:
    with two_workers(folder, transport=transport) as process:
        process.ready()
        pids = [pid(process, 1), pid(process, 2)]
        before = [sockets(process, each) for each in pids]
        async with clients(process, folder, "shop") as shop:
            assert all(
                sockets(process, each) > count for each, count in zip(pids, before, strict=True)
            )
            for _ in range(25):
                await asyncio.gather(*(sign(client) for client in shop))
            counted = metrics(process)
            assert counted["authz_checks_total", "allow", "sign", "signed"] == 25 * MANY
            assert counted["authz_check_duration_seconds_count",] == 25 * MANY
            assert all(counted["process_open_fds", worker] > 0 for worker in "012")
            assert counted["authz_namespace_unverified", "shop"] == 1
            assert counted["authz_workers",] == 2
            assert counted["authz_worker_restarts_total",] == 0
            assert counted["authz_keyring_version",] == 1
            assert counted["authz_age_seconds", "keyring"] < 20
            if transport == "http2":
                assert counted["authz_connections",] == MANY
            assert await verify(shop[0]) == "token-missing"  # one worker has seen it: that counts
            counted = metrics(process)
            assert counted["authz_checks_total", "deny", "verify", "token-missing"] == 1
            assert counted["authz_unverified_namespaces",] == 0
        if transport == "http2":

            def closed() -> bool:
                counted = metrics(process)
                by_reason = [v for k, v in counted.items() if k[0].endswith("_closed_total")]
                return sum(by_reason) == MANY and counted["authz_connections",] == 0

            at_last(closed, "all connections are counted as closed")


def test_one_worker_is_one_process(folder: Folder) -> None:
    with serving(folder.path, folder.flags(workers="1")) as process:
        process.ready()
        children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
        assert children.read_text() == ""
        assert metrics(process)["authz_workers",] == 1
        assert not any("worker" in line for line in process.lines("listening"))


async def test_new_keys_and_policies_reach_all_workers_within_a_second(folder: Folder) -> None:
    with two_workers(folder) as process:
        process.ready()
        async with (
            clients(process, folder, "bank") as bank,
            connected(process.port, folder.workload("shop")) as shop,
        ):

            async def until_all_say(wanted: str, token: str) -> float:
                async def all_do() -> bool:
                    said = await asyncio.gather(*(verify(client, token) for client in bank))
                    return set(said) == {wanted}

                start = time.monotonic()
                await eventually(all_do, f"all workers say {wanted}")
                return time.monotonic() - start

            took: dict[str, list[float]] = {"revocation": [], "policy": []}
            for number in (1, 2):  # the machine may be busy once
                token = await sign(shop)
                await until_all_say("allowed", token)
                replace_file(folder.policy_file, ROLES.encode())
                took["policy"].append(await until_all_say("not-allowed", token))
                replace_file(folder.policy_file, (ROLES + GRANT).encode())
                await until_all_say("allowed", token)
                await folder.change_keys(
                    lambda old: rotation.rotate_namespace(old, SHOP, now(), delay=0, life=LIFE)
                )
                await asyncio.to_thread(process.line, "keyring loaded", 4 * number)
                fresh = await sign(shop)
                assert fresh.split(".")[1] != token.split(".")[1]
                await until_all_say("allowed", fresh)
                await until_all_say("allowed", token)  # a rotation denies nobody
                await folder.change_keys(revoke_shop)
                took["revocation"].append(await until_all_say("token-invalid", token))
            assert {what: min(times) < 1 for what, times in took.items()} == dict.fromkeys(
                took, True
            )


# Readiness -------------------------------------------------------------------------------------


def test_it_is_ready_only_when_all_workers_are(folder: Folder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with two_workers(folder, http_listen=address) as process:
        seen: Counter[int] = Counter()

        def ready() -> bool:
            with suppress(OSError):
                seen[http_get(f"http://{address}/readyz")[0]] += 1
            return seen[200] > 0

        at_last(ready, "it is ready")
        assert seen[503]
        assert {line["worker"] for line in process.lines("keyring loaded")} == {1, 2}


def test_without_keys_it_says_what_is_missing(keyless: Folder) -> None:
    with two_workers(keyless) as process:
        code, truths = http_get(f"{process.http}/readyz")
        assert code == 503
        assert '"workers": true, "keyring": false, "policy": true, "not stopping": true' in truths
        assert http_get(f"{process.http}/healthz")[0] == 200
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


# They are replaced -----------------------------------------------------------------------------


async def test_a_worker_that_is_killed_under_load_harms_only_its_own_connections(
    folder: Folder,
) -> None:
    with two_workers(folder) as process:
        process.ready()
        answered: Counter[int] = Counter()
        failed: Counter[int] = Counter()
        done = asyncio.Event()

        async def load(number: int, client: Client) -> None:
            while not done.is_set():
                try:
                    await sign(client)
                    answered[number] += 1
                except aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                    failed[number] += 1
                    await client.channel.channel_ready()

        async with clients(process, folder, "shop") as shop:
            loading = [asyncio.create_task(load(*each)) for each in enumerate(shop)]
            os.kill(pid(process, 2), signal.SIGKILL)
            await asyncio.to_thread(process.line, "worker ended, another takes its place")
            at_death = answered.copy()
            await asyncio.to_thread(pid, process, 2, 2)
            at_return = answered.copy()
            await asyncio.to_thread(process.ready)
            done.set()
            await soon(asyncio.gather(*loading))
            await asyncio.gather(*(sign(client) for client in shop))

        assert 0 < len(failed) < MANY
        assert sum(failed.values()) < 2 * MANY  # calls under way, and sometimes one more
        for number in set(range(MANY)) - set(failed):
            assert at_return[number] > at_death[number]
        line = process.line("worker ended, another takes its place")
        assert (line["worker"], line["code"]) == (2, -signal.SIGKILL)
        assert metrics(process)["authz_worker_restarts_total",] == 1
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0
        assert process.stderr == ""


async def test_a_worker_that_cannot_start_again_is_tried_ever_more_rarely(folder: Folder) -> None:
    """A running server keeps its last good policy. A new process has none."""
    with two_workers(folder) as process:
        process.ready()
        replace_file(folder.policy_file, b"x: 1\n")
        process.line("new version is bad, the last good one stays", 2)
        os.kill(pid(process, 2), signal.SIGKILL)
        async with connected(process.port, folder.workload("shop")) as shop:
            for number in range(1, 4):
                await asyncio.to_thread(
                    process.line, "worker ended, another takes its place", number
                )
                code, truths = http_get(f"{process.http}/readyz")
                assert (code, '"workers": false' in truths) == (503, True)
                assert await sign(shop)
        assert metrics(process)["authz_workers",] == 1
        lines = process.lines("worker ended, another takes its place")
        assert [line["code"] for line in lines[:3]] == [-signal.SIGKILL, 3, 3]
        for number, line in enumerate(lines[:3]):
            assert LEAST * 2**number / 2 <= line["seconds"] <= LEAST * 2**number
        replace_file(folder.policy_file, ROLES.encode())
        process.ready()
        assert process.popen.poll() is None


def test_a_worker_that_is_asked_to_end_drains_and_is_replaced(folder: Folder) -> None:
    with two_workers(folder) as process:
        process.ready()
        os.kill(pid(process, 1), signal.SIGTERM)
        assert process.line("draining")["worker"] == 1
        assert process.line("worker ended, another takes its place")["code"] == 0
        pid(process, 1, 2)
        process.ready()


async def test_a_worker_that_hangs_is_killed() -> None:
    worker = a_worker("import time; time.sleep(600)")
    running = asyncio.create_task(worker.run())

    async def runs() -> bool:
        return worker.pid is not None

    await eventually(runs, "the process runs")
    assert all(worker.nudge() for _ in range(worker_module._PATIENCE))
    assert not worker.answers
    assert not worker.nudge()
    assert await soon(running) == -signal.SIGKILL
    assert worker.ask().done()


async def test_a_process_that_hangs_up_and_does_not_end_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "_LINGER", 0.05)
    worker = a_worker("import os, time; os.close(0); time.sleep(600)")
    assert await soon(worker.run()) == -signal.SIGKILL


async def test_a_command_that_does_not_exist_is_an_error_that_is_told() -> None:
    worker = Worker(greeting(), ["/no/such/command"], lambda *_: None)
    with pytest.raises(OSError, match="No such file"):
        await worker.run()
    assert worker.pid is None


def greeting() -> Greeting:
    tls = {"tls_cert_file": "/c", "tls_key_file": "/k", "tls_ca_file": "/a"}
    return Greeting(1, load_settings(Settings, tls, None))


def a_worker(code: str) -> Worker:
    return Worker(greeting(), [sys.executable, "-c", code], lambda *_: None)


def test_waits_double_up_to_a_limit_and_begin_anew_after_a_good_life() -> None:
    shortest, longest = Backoff(lambda a, _: a), Backoff(lambda _, b: b)
    waits = [longest.after(0) for _ in range(10)]
    assert waits[:3] == [LEAST, LEAST * 2, LEAST * 4]
    assert waits[-1] == MOST
    assert [shortest.after(0) for _ in range(10)] == [wait / 2 for wait in waits]
    assert longest.after(WELL) == LEAST
    assert longest.after(WELL - 0.1) == LEAST * 2


# They end in order -----------------------------------------------------------------------------


async def test_a_drain_loses_no_check_of_a_client_that_moves_on(folder: Folder) -> None:
    (folder.path / "next").mkdir()
    with (
        two_workers(folder, drain_seconds="1", grace_seconds="10") as process,
        serving(folder.path / "next", folder.flags()) as following,
    ):
        process.ready()
        following.ready()
        answered = 0
        done = asyncio.Event()
        certificate = folder.workload("shop")
        credentials = grpc.ssl_channel_credentials(
            certificate.ca_file.read_bytes(),
            certificate.key_file.read_bytes(),
            certificate.cert_file.read_bytes(),
        )
        options = [
            ("grpc.ssl_target_name_override", SERVER_NAME),
            ("grpc.use_local_subchannel_pool", 1),
            # While it connects elsewhere a call waits. One that the connection has accepted and
            # not sent when GOAWAY comes is asked elsewhere: grpc's transparent retry, which stays
            # on here. That the server loses none is seen on the wire, in transport/test_drain.py.
            ("grpc.service_config", '{"methodConfig": [{"name": [{}], "waitForReady": true}]}'),
        ]
        target = f"ipv4:127.0.0.1:{process.port},127.0.0.1:{following.port}"

        async def load() -> None:
            nonlocal answered
            async with aio.secure_channel(target, credentials, options) as channel:
                client = Client(channel)
                while not done.is_set():
                    await sign(client)  # raises if it fails
                    answered += 1

        loading = [asyncio.create_task(load()) for _ in range(MANY)]

        async def connections(of: Process, least: int) -> bool:
            for task in loading:
                if task.done():
                    task.result()
            return (await asyncio.to_thread(metrics, of))["authz_connections",] >= least

        await eventually(lambda: connections(process, MANY), "all are connected")
        process.popen.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.line, "draining", 2)
        code, truths = await asyncio.to_thread(http_get, f"{process.http}/readyz")
        assert (code, '"not stopping": false' in truths) == (503, True)
        before = answered
        async with connected(process.port, certificate) as late:  # still answers, but says so
            assert await late.health() == "NOT_SERVING"
            assert await sign(late)
        assert await asyncio.to_thread(process.ended) == 0
        await eventually(lambda: connections(following, MANY), "all have moved on")
        done.set()
        await soon(asyncio.gather(*loading))
        assert answered > before
        events = [line["event"] for line in map(as_json, process.stdout.splitlines())]
        assert events.index("draining all workers") < events.index("draining")
        assert events[-1] == "all workers stopped"
        assert events.count("stopped") == 2
        assert process.lines("worker ended, another takes its place") == []
        assert process.stderr == ""


def as_json(line: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(line)
    return read


def test_a_second_signal_hurries_and_one_to_all_processes_is_one(folder: Folder) -> None:
    """systemd, for one, signals every process of a service; a terminal, those of its group."""
    with two_workers(folder, drain_seconds="600") as process:
        process.ready()
        for each in (process.popen.pid, pid(process, 1), pid(process, 2)):
            os.kill(each, signal.SIGINT)
        process.line("draining", 2)
        assert http_get(f"{process.http}/readyz")[0] == 503
        assert process.popen.poll() is None
        assert process.lines("stopped") == []
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0
        assert len(process.lines("stopped")) == 2


def test_a_signal_as_it_starts_ends_it(folder: Folder) -> None:
    with two_workers(folder) as process:
        process.line("worker started")  # the first; the other is on its way
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0
        assert process.stderr == ""


def test_workers_end_when_their_supervisor_is_gone(folder: Folder) -> None:
    with two_workers(folder) as process:
        process.ready()
        handles = [os.pidfd_open(pid(process, worker)) for worker in (1, 2)]
        process.popen.kill()
        wait_for_end(*handles)
        assert len(process.lines("stopped")) == 2  # in order
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", process.port))


# Metrics of several processes ------------------------------------------------------------------


def signed_by(namespace: str) -> DecisionEvent:
    verdict = Allow(Ground.SIGNED, SetToken("v1.t"), Parties())
    return DecisionEvent(Question.SIGN, verdict, workload(namespace), "")


def verified_by(namespace: str) -> DecisionEvent:
    verdict = Allow(Ground.GRANTED, HeaderAction.REMOVE, Parties())
    return DecisionEvent(Question.VERIFY, verdict, workload(namespace), "")


def exported(metrics: Metrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


def test_changes_are_given_out_once_and_add_up() -> None:
    whole, one, other = (Metrics(ManualClock()) for _ in range(3))
    for _ in range(3):
        one.decided(signed_by("shop"))
        other.decided(signed_by("bank"))
        other.decided(verified_by("shop"))
        other.closed("age")
        other.failed(ValueError())
        whole.add(1, one.changes())
        whole.add(2, other.changes())
    assert one.changes()["counts"] == []
    assert one.changes()["signed"] == []
    found = exported(whole)
    assert found["authz_checks_total", "allow", "sign", "signed"] == 6
    assert found["authz_checks_total", "allow", "verify", "granted"] == 3
    assert found["authz_connections_closed_total", "age"] == 3
    assert found["authz_unexpected_errors_total", "ValueError"] == 3
    assert found["authz_namespace_unverified", "bank"] == 1
    assert ("authz_namespace_unverified", "shop") not in found


def test_gauges_are_those_of_the_worst_worker_and_of_living_ones() -> None:
    clock = ManualClock()
    whole, one, other = (Metrics(clock) for _ in range(3))
    one.uses_keyring(7)
    one.fresh("keyring")
    one.connections = lambda: 3
    one.presents(clock.now + 60)
    other.presents(clock.now + 90)
    clock.now += 5
    other.uses_keyring(8)
    other.fresh("keyring")
    other.connections = lambda: 4
    other.decided(signed_by("shop"))
    whole.add(1, one.changes())
    whole.add(2, other.changes())
    found = exported(whole)
    assert found["authz_keyring_version",] == 7
    assert found["authz_age_seconds", "keyring"] == 5
    assert found["authz_age_seconds", "policy"] == float("inf")
    assert found["authz_certificate_expires_seconds",] == 55
    assert (found["authz_connections",], found["authz_workers",]) == (7, 2)
    whole.forget(2)
    found = exported(whole)
    assert (found["authz_connections",], found["authz_workers",]) == (3, 1)
    assert found["authz_checks_total", "allow", "sign", "signed"] == 1
