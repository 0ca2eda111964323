"""What attackers and ordinary tenants do in the box, and how they came by the tokens they show."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from authz import envoyfilters
from authz._proto.ext_authz_pb2 import CheckResponse
from authz.domain import tokens
from authz.domain.identity import SpiffeId
from authz.domain.keys import RootKey, TokenLife
from authz.lab.box.istio.client import NoAnswer, Tls
from authz.lab.box.istio.mesh import AUTHZ
from authz.lab.box.istio.programs import GREETING
from authz.lab.world.model import DOMAIN
from authz.lab.world.variants import component
from authz.testing import NO_ANSWER, Outcome
from tests.attacks.stage import (
    CHECK,
    TOKEN,
    Headers,
    Loot,
    Move,
    Stage,
    check_message,
    claims_of,
    grpc_call,
)
from tests.support.waiting import eventually, soon

ATTACKER: Final = "mallory/bare"
"""From where an attacker speaks TLS itself: there is no sidecar in the way."""

HTTP: Final = ("istio-http/1.1", "istio", "http/1.1")
"""The protocols that a sidecar offers for HTTP; the first tells a pod's sidecar what it is."""

SILENT_PORT: Final = 7777
"""An unlisted port of acme-db/plain whose server speaks first."""

EVENT: Final = [
    ("ce-specversion", "1.0"),
    ("ce-id", "1"),
    ("ce-type", "order"),
    ("ce-source", "shop"),
    ("content-type", "text/plain"),
]
TTL: Final = ("ce-knativebrokerttl", "255")


def upstream(service: str, port: int = 80) -> str:
    """What istiod calls the cluster of `name.namespace`."""
    return f"outbound|{port}||{service}.svc.{DOMAIN}"


def steered(namespace: str, revision: str = "idle-00001") -> list[tuple[str, str]]:
    """The headers by which the activator is told where to send a request."""
    return [("Knative-Serving-Namespace", namespace), ("Knative-Serving-Revision", revision)]


# -- tokens ------------------------------------------------------------------------------------


def signed(who: str, service: str) -> Loot:
    """The token that a pod, or a SPIFFE ID, gets for a request to a service; perhaps it leaked."""

    async def get(stage: Stage) -> str:
        return await stage.signed(_certificate(stage, who), upstream(service))

    return get


def public(service: str) -> Loot:
    """The token that the public gateway gets; perhaps it leaked."""

    async def get(stage: Stage) -> str:
        owner = service.partition(".")[2]
        return await stage.signed("istio-system/gateway", upstream(service), "public", owner)

    return get


def minted(source: str, destination: str, *, age: int = 0, guessed: bool = False) -> Loot:
    """A token made by hand, `age` seconds ago; with the real keys, or with a guessed secret."""

    async def get(stage: Stage) -> str:
        keyring = await stage.mesh.authz.keys.keyring()
        if guessed:
            (root,) = keyring.roots
            guess = RootKey(root.id, secret=b"guess".ljust(32), sign_from=0)
            keyring = replace(keyring, roots=(guess,))
        space, _, account = source.partition("/")
        who = SpiffeId.parse(f"spiffe://{DOMAIN}/ns/{space}/sa/{account}")
        return tokens.mint(
            source=who.namespace,
            service_account=account,
            destination=SpiffeId.parse(f"spiffe://{DOMAIN}/ns/{destination}/sa/x").namespace,
            keyring=keyring,
            now=time.time() - age,  # noqa: TID251 - the server in the box goes by this clock
            life=TokenLife(),
        )

    return get


def revoked(who: str, service: str) -> Loot:
    """A token that was good until its namespace was revoked."""

    async def get(stage: Stage) -> str:
        token = await signed(who, service)(stage)
        revocations = len(stage.mesh.log(AUTHZ).split("keyring loaded"))
        await stage.mesh.keys("revoke", who.partition("/")[0])

        async def counts() -> bool:
            return len(stage.mesh.log(AUTHZ).split("keyring loaded")) > revocations

        await eventually(counts, "the revocation counts")
        return token

    return get


# -- requests ----------------------------------------------------------------------------------


def call(pod: str, url: str, **how: Any) -> Move:
    """A request from a pod."""

    async def move(stage: Stage) -> str:
        return await stage.call(pod, url, **how)

    return move


def past(
    who: str,
    to: str,
    *,
    path: str = "/",
    host: str = "x",
    alpn: Sequence[str] = HTTP,
    **how: Any,
) -> Move:
    """A request over TLS of the caller's own, with the certificate of a pod or SPIFFE ID.

    `to` is `namespace/pod:port`.
    """

    async def move(stage: Stage) -> str:
        pod, _, port = to.rpartition(":")
        via = f"{stage.mesh.address(pod)}:{port}"
        tls = Tls(_certificate(stage, who), "", tuple(alpn))
        return await stage.call(ATTACKER, f"http://{host}{path}", via=via, tls=tls, **how)

    return move


def raw_http(pod: str, to: str, head: str, *, body: bytes = b"") -> Move:
    """A head that no HTTP client would write, through the pod's own sidecar; what came back."""

    async def move(stage: Stage) -> str:
        sent = head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body
        received = await stage.raw(pod, to, sent, first=3, seconds=0.1)
        lines = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        words = [line.split(b" ")[1].decode() for line in lines]
        if b'"app": "' in received:
            words.append(received.split(b'"app": "')[1].split(b'"')[0].decode())
        return " ".join(words) or NO_ANSWER

    return move


def talks(who: str, to: str, sent: bytes, *, alpn: Sequence[str] = ("istio",)) -> Move:
    """Raw bytes over TLS of the caller's own: what of it came back."""

    async def move(stage: Stage) -> str:
        pod, _, port = to.rpartition(":")
        tls = Tls(_certificate(stage, who), "", tuple(alpn))
        where = f"{stage.mesh.address(pod)}:{port}"
        received = await stage.raw(ATTACKER, where, sent, tls=tls, first=0.5, seconds=0.1)
        words = []
        if GREETING in received:
            words.append("greeted")
        if sent and sent in received.replace(GREETING, b""):
            words.append("echoed")
        if received.startswith(b"HTTP/1.1 "):
            words.append(received.split(b" ")[1].decode())
        return ", ".join(words) or "nothing"

    return move


def greeter(move: Move) -> Move:
    """A move against a server that speaks first, on a port that no Service names."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        try:
            await reader.read()  # until the client goes
        finally:
            writer.close()

    async def moved(stage: Stage) -> str:
        listening = stage.mesh.network["acme-db/plain"].socket(1000)
        listening.bind(("0.0.0.0", SILENT_PORT))  # noqa: S104 - within the pod's own namespace
        async with await asyncio.start_server(greet, sock=listening):
            return await move(stage)

    return moved


def leaks(move: Move, to: str = ATTACKER) -> Move:
    """A move, and then which tokens the app of a pod saw."""

    async def moved(stage: Stage) -> str:
        await stage.mesh.forget(to)
        outcome = await move(stage)
        return f"{outcome}, {await stage.taken(to)}"

    return moved


def shown(move: Move, pod: str) -> Move:
    """A move, and whether the app of a pod saw anything of it."""

    async def moved(stage: Stage) -> str:
        await stage.mesh.forget(pod)
        outcome = await move(stage)
        return f"{outcome}, {'seen' if await stage.mesh.seen(pod) else 'not seen'}"

    return moved


def reaches(move: Move, pod: str) -> Move:
    """A move of which a copy goes to a pod: was it asked about, and did the app see it?"""

    async def moved(stage: Stage) -> str:
        async def asked() -> int:
            return sum(number for (what, _), number in (await checks()).items() if what == "verify")

        async def checks() -> Counter[tuple[str, str]]:
            return await stage.mesh.checks(pod)

        await stage.mesh.forget(pod)
        before = await asked()
        outcome = await move(stage)

        async def arrived() -> bool:  # nobody waits for a copy
            return await asked() > before

        await eventually(arrived, "the copy arrives")
        return f"{outcome}, {'seen' if await stage.mesh.seen(pod) else 'not seen'}"

    return moved


def replayed(move: Move, show: Callable[[str], Move]) -> Move:
    """A move that brings a token to the attacker's pod, and what showing it elsewhere does."""

    async def moved(stage: Stage) -> str:
        await stage.mesh.forget(ATTACKER)
        await move(stage)

        async def arrived() -> list[str]:  # a mirrored request is waited for by nobody
            return [token for it in await stage.mesh.seen(ATTACKER) for token in it.header(TOKEN)]

        token = (await eventually(arrived, "a token arrives"))[0]
        return f"{claims_of(token)}, {await show(token)(stage)}"

    return moved


def often(move: Move, times: int = 24) -> Move:
    """A move many times over, for what is decided by chance: each outcome once."""

    async def moved(stage: Stage) -> str:
        return " | ".join(sorted({await move(stage) for _ in range(times)}))

    return moved


def wakes(move: Move, revision: str = "acme-db/idle") -> Move:
    """A move against a revision that is scaled to zero: did it call for a pod?"""

    async def moved(stage: Stage) -> str:
        mesh = stage.mesh
        await mesh.scale(revision, up=False)

        async def state() -> dict[str, int]:
            found: dict[str, int] = (await mesh.revisions())[f"{revision}-00001"]
            return found

        before = (await state())["wakeups"]
        trying = asyncio.ensure_future(move(stage))

        async def told() -> bool:
            return trying.done() or (await state())["waiting"] > 0

        try:
            await eventually(told, "it is denied or waits")
            woken = (await state())["wakeups"] > before
        finally:
            await mesh.scale(revision, up=True)
            await mesh.settled()
        return f"{await soon(trying)}, {'woken' if woken else 'asleep'}"

    return moved


def while_down(move: Move) -> Move:
    """A move while the service is down."""

    async def moved(stage: Stage) -> str:
        await stage.mesh.kill(AUTHZ)
        try:
            return await move(stage)
        finally:
            await stage.mesh.start_authz()

    return moved


def scoped(pod: str, move: Move) -> Move:
    """A move by a pod whose sidecar sees its own namespace and the platform's alone."""

    async def moved(stage: Stage) -> str:
        await stage.patch([*envoyfilters.shipped(), *component("sidecar-scope")], [pod])
        try:
            return await move(stage)
        finally:
            await stage.patch(envoyfilters.shipped(), [pod])

    return moved


# -- our own port ------------------------------------------------------------------------------


def asks(
    who: str,
    *metadata: tuple[str, str],
    token: Loot | None = None,
    headers: Headers = (),
    principal: str = "",
    route_of: str = "",
) -> Move:
    """A question to the service itself, with the certificate of a pod or SPIFFE ID."""

    async def move(stage: Stage) -> str:
        carried = [(TOKEN, await token(stage))] if token else []
        response = await stage.check(
            _certificate(stage, who),
            *metadata,
            headers=[*headers, *carried],
            principal=principal,
            route_of=route_of,
        )
        return NO_ANSWER if response is None else Outcome.of_check(response)

    return move


def asks_through(pod: str, url: str, *metadata: tuple[str, str], **how: Any) -> Move:
    """A question to the service by way of somebody's proxy, which puts it with its certificate."""

    async def move(stage: Stage) -> str:
        sent = grpc_call(check_message(route_of="acme-db"), metadata)
        try:
            answer = await stage.mesh.call(pod, f"{url}{CHECK}", **sent, **how)
        except NoAnswer:
            return NO_ANSWER
        if not answer.body:  # Envoy has made a gRPC status of its HTTP status
            refused = {"7": 403, "14": 503}.get(answer.headers.get("grpc-status"), answer.status)
            return Outcome.of(refused, answer.reason)
        return f"answered: {Outcome.of_check(CheckResponse.FromString(answer.body[5:]))}"

    return move


def denied_for(reason: str, move: Move) -> Move:
    """A move, and whether the service denied something for this reason meanwhile."""

    async def moved(stage: Stage) -> str:
        before = await _counted(stage, f'reason="{reason}"')
        outcome = await move(stage)
        denied = await _counted(stage, f'reason="{reason}"') > before
        return f"{outcome}, {reason if denied else 'none denied'}"

    return moved


def asked_twice(question: str, move: Move) -> Move:
    """A move that a gateway asks about once, and by which the service is asked once more."""

    async def moved(stage: Stage) -> str:
        before = await _counted(stage, f'question="{question}"')
        outcome = await move(stage)

        async def twice() -> bool:  # nobody waits for a copy
            return await _counted(stage, f'question="{question}"') == before + 2

        await eventually(twice, "the copy arrives")
        return f"{outcome}, asked twice"

    return moved


async def _counted(stage: Stage, label: str) -> float:
    """How many Checks the service has answered so."""
    lines = (await stage.mesh.metrics()).splitlines()
    return sum(float(it.split()[-1]) for it in lines if label in it)


def under(text: str, move: Move) -> Move:
    """A move under another policy."""

    async def moved(stage: Stage) -> str:
        before = stage.mesh.authz.policy_file.read_text()
        await stage.mesh.set_policy(text)
        try:
            return await move(stage)
        finally:
            await stage.mesh.set_policy(before)

    return moved


# -- eventing ----------------------------------------------------------------------------------


def eventing(move: Move, reached: str = "acme-db/hello") -> Move:
    """A move in a cluster with brokers, channels and triggers; which app saw an event of it.

    acme-web has a broker whose trigger sends to acme-db; mallory's trigger does, too.
    """

    async def moved(stage: Stage) -> str:
        mesh = stage.mesh
        victim = f"http://hello.acme-db.svc.{DOMAIN}/event"
        for space in ("acme-web", "mallory"):
            channel = f"http://events-kn-channel.{space}.svc.{DOMAIN}/"
            broker = {"channel": channel}
            await mesh.control(
                "knative-eventing/broker-ingress", "PUT", f"/brokers/{space}/default", broker
            )
            await subscribed(stage, space, trigger_of(space))
            trigger = {"uid": "u1", "subscriber": victim, "filter": {}}
            await mesh.control(
                "knative-eventing/broker-filter", "PUT", f"/triggers/{space}/t", trigger
            )
        await mesh.forget(reached)
        outcome = await move(stage)
        return f"{outcome}, {len(await mesh.seen(reached))} events"

    return moved


def sinks(move: Move) -> Move:
    """A move in a cluster in which acme-web has a JobSink; how many Jobs were started of it."""

    async def moved(stage: Stage) -> str:
        await stage.mesh.control("knative-eventing/job-sink", "PUT", "/sinks/acme-web/jobs", {})
        broker = {"broker": f"http://broker-ingress.knative-eventing.svc.{DOMAIN}/acme-web/default"}
        to = "/replies/acme-web/asked"
        await stage.mesh.control("knative-eventing/request-reply", "PUT", to, broker)
        return await move(stage)

    return moved


def trigger_of(namespace: str) -> str:
    """Where the trigger of a namespace takes events."""
    return f"http://broker-filter.knative-eventing.svc.{DOMAIN}/triggers/{namespace}/t/u1"


async def subscribed(stage: Stage, namespace: str, subscriber: str) -> None:
    """Let the namespace's channel send what it takes to `subscriber`."""
    path = f"/channels/{namespace}/events-kn-channel"
    content = {"subscribers": [subscriber]}
    await stage.mesh.control("knative-eventing/imc-dispatcher", "PUT", path, content)


def post(pod: str, url: str, *headers: tuple[str, str], token: Loot | str = "") -> Move:
    """An event."""

    async def move(stage: Stage) -> str:
        sent = [*EVENT, *headers]
        return await stage.call(pod, url, method="POST", body=b"x", headers=sent, token=token)

    return move


def broker_at(channel: str, then: Move) -> Move:
    """mallory's broker has somebody else's channel in its status, which mallory may write."""

    async def move(stage: Stage) -> str:
        await stage.mesh.control(
            "knative-eventing/broker-ingress",
            "PUT",
            "/brokers/mallory/default",
            {"channel": channel},
        )
        return await then(stage)

    return move


def smuggling(pod: str, url: str, token: Loot) -> Move:
    """An event with a token under the name by which it travels through the broker's ingress."""

    async def move(stage: Stage) -> str:
        sent = [*EVENT, ("knative-tenant-token", await token(stage))]
        return await stage.call(pod, url, method="POST", body=b"x", headers=sent)

    return move


def subscription(subscriber: str, then: Move) -> Move:
    """mallory's Subscription names any address, and mallory sends an event into its channel."""

    async def move(stage: Stage) -> str:
        await subscribed(stage, "mallory", subscriber)
        return await then(stage)

    return move


def triggers(subscriber: str, then: Move) -> Move:
    """mallory's Trigger names any address."""

    async def move(stage: Stage) -> str:
        trigger = {"uid": "u1", "subscriber": subscriber, "filter": {}}
        await stage.mesh.control(
            "knative-eventing/broker-filter", "PUT", "/triggers/mallory/t", trigger
        )
        return await then(stage)

    return move


def ping(namespace: str, sink: str) -> Move:
    """A namespace's PingSource fires at any address."""

    async def move(stage: Stage) -> str:
        content = {"sink": sink}
        answer = await stage.mesh.control(
            "knative-eventing/pingsource", "POST", f"/ping/{namespace}", content
        )
        return str(answer["status"])

    return move


def _certificate(stage: Stage, who: str) -> Any:
    if who.startswith("spiffe://"):
        return stage.identity(who)
    return stage.mesh.certificate(who)


def outage_header() -> Move:
    """A call out of the mesh while the service is down: does the world learn of it?"""

    async def move(stage: Stage) -> str:
        await stage.mesh.forget("outside/server")
        outcome = await while_down(call("acme-web/plain", "http://outside.test/"))(stage)
        (seen,) = await stage.mesh.seen("outside/server")
        told = seen.header("x-envoy-auth-failure-mode-allowed")
        return f"{outcome}, {'the header' if told else 'no such header'}"

    return move
