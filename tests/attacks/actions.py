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
from tests.attacks.box import (
    CHECK,
    TOKEN,
    Action,
    Box,
    Headers,
    TokenSource,
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


def signed(who: str, service: str) -> TokenSource:
    """The token that a pod, or a SPIFFE ID, gets for a request to a service; perhaps it leaked."""

    async def get(box: Box) -> str:
        return await box.signed(_certificate(box, who), upstream(service))

    return get


def public(service: str) -> TokenSource:
    """The token that the public gateway gets; perhaps it leaked."""

    async def get(box: Box) -> str:
        owner = service.partition(".")[2]
        return await box.signed("istio-system/gateway", upstream(service), "public", owner)

    return get


def minted(source: str, destination: str, *, age: int = 0, guessed: bool = False) -> TokenSource:
    """A token made by hand, `age` seconds ago; with the real keys, or with a guessed secret."""

    async def get(box: Box) -> str:
        keyring = await box.mesh.authz.keys.keyring()
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


def revoked(who: str, service: str) -> TokenSource:
    """A token that was good until its namespace was revoked."""

    async def get(box: Box) -> str:
        token = await signed(who, service)(box)
        revocations = len(box.mesh.log(AUTHZ).split("keyring loaded"))
        await box.mesh.keys("revoke", who.partition("/")[0])

        async def counts() -> bool:
            return len(box.mesh.log(AUTHZ).split("keyring loaded")) > revocations

        await eventually(counts, "the revocation counts")
        return token

    return get


# -- requests ----------------------------------------------------------------------------------


def call(pod: str, url: str, **how: Any) -> Action:
    """A request from a pod."""

    async def action(box: Box) -> str:
        return await box.call(pod, url, **how)

    return action


def past(
    who: str,
    to: str,
    *,
    path: str = "/",
    host: str = "x",
    alpn: Sequence[str] = HTTP,
    **how: Any,
) -> Action:
    """A request over TLS of the caller's own, with the certificate of a pod or SPIFFE ID.

    `to` is `namespace/pod:port`.
    """

    async def action(box: Box) -> str:
        pod, _, port = to.rpartition(":")
        via = f"{box.mesh.address(pod)}:{port}"
        tls = Tls(_certificate(box, who), "", tuple(alpn))
        return await box.call(ATTACKER, f"http://{host}{path}", via=via, tls=tls, **how)

    return action


def raw_http(pod: str, to: str, head: str, *, body: bytes = b"") -> Action:
    """A head that no HTTP client would write, through the pod's own sidecar; what came back."""

    async def action(box: Box) -> str:
        sent = head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body
        received = await box.raw(pod, to, sent, first=3, seconds=0.1)
        lines = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        words = [line.split(b" ")[1].decode() for line in lines]
        if b'"app": "' in received:
            words.append(received.split(b'"app": "')[1].split(b'"')[0].decode())
        return " ".join(words) or NO_ANSWER

    return action


def talks(who: str, to: str, sent: bytes, *, alpn: Sequence[str] = ("istio",)) -> Action:
    """Raw bytes over TLS of the caller's own: what of it came back."""

    async def action(box: Box) -> str:
        pod, _, port = to.rpartition(":")
        tls = Tls(_certificate(box, who), "", tuple(alpn))
        where = f"{box.mesh.address(pod)}:{port}"
        received = await box.raw(ATTACKER, where, sent, tls=tls, first=0.5, seconds=0.1)
        words = []
        if GREETING in received:
            words.append("greeted")
        if sent and sent in received.replace(GREETING, b""):
            words.append("echoed")
        if received.startswith(b"HTTP/1.1 "):
            words.append(received.split(b" ")[1].decode())
        return ", ".join(words) or "nothing"

    return action


def greeter(action: Action) -> Action:
    """An action against a server that speaks first, on a port that no Service names."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GREETING)
        try:
            await reader.read()  # until the client goes
        finally:
            writer.close()

    async def done(box: Box) -> str:
        listening = box.mesh.network["acme-db/plain"].socket(1000)
        listening.bind(("0.0.0.0", SILENT_PORT))  # noqa: S104 - within the pod's own namespace
        async with await asyncio.start_server(greet, sock=listening):
            return await action(box)

    return done


def leaks(action: Action, to: str = ATTACKER) -> Action:
    """An action, and then which tokens the app of a pod saw."""

    async def done(box: Box) -> str:
        await box.mesh.forget(to)
        outcome = await action(box)
        return f"{outcome}, {await box.taken(to)}"

    return done


def shown(action: Action, pod: str) -> Action:
    """An action, and whether the app of a pod saw anything of it."""

    async def done(box: Box) -> str:
        await box.mesh.forget(pod)
        outcome = await action(box)
        return f"{outcome}, {'seen' if await box.mesh.seen(pod) else 'not seen'}"

    return done


def reaches(action: Action, pod: str) -> Action:
    """An action of which a copy goes to a pod: was it asked about, and did the app see it?"""

    async def done(box: Box) -> str:
        async def asked() -> int:
            return sum(number for (what, _), number in (await checks()).items() if what == "verify")

        async def checks() -> Counter[tuple[str, str]]:
            return await box.mesh.checks(pod)

        await box.mesh.forget(pod)
        before = await asked()
        outcome = await action(box)

        async def arrived() -> bool:  # nobody waits for a copy
            return await asked() > before

        await eventually(arrived, "the copy arrives")
        return f"{outcome}, {'seen' if await box.mesh.seen(pod) else 'not seen'}"

    return done


def replayed(action: Action, show: Callable[[str], Action]) -> Action:
    """An action that brings a token to the attacker's pod, and what showing it elsewhere does."""

    async def done(box: Box) -> str:
        await box.mesh.forget(ATTACKER)
        await action(box)

        async def arrived() -> list[str]:  # a mirrored request is waited for by nobody
            return [token for it in await box.mesh.seen(ATTACKER) for token in it.header(TOKEN)]

        token = (await eventually(arrived, "a token arrives"))[0]
        return f"{claims_of(token)}, {await show(token)(box)}"

    return done


def often(action: Action, times: int = 24) -> Action:
    """An action many times over, for what is decided by chance: each outcome once."""

    async def done(box: Box) -> str:
        return " | ".join(sorted({await action(box) for _ in range(times)}))

    return done


def wakes(action: Action, revision: str = "acme-db/idle") -> Action:
    """An action against a revision that is scaled to zero: did it call for a pod?"""

    async def done(box: Box) -> str:
        mesh = box.mesh
        await mesh.scale(revision, up=False)

        async def state() -> dict[str, int]:
            found: dict[str, int] = (await mesh.revisions())[f"{revision}-00001"]
            return found

        before = (await state())["wakeups"]
        trying = asyncio.ensure_future(action(box))

        async def told() -> bool:
            return trying.done() or (await state())["waiting"] > 0

        try:
            await eventually(told, "it is denied or waits")
            woken = (await state())["wakeups"] > before
        finally:
            await mesh.scale(revision, up=True)
            await mesh.settled()
        return f"{await soon(trying)}, {'woken' if woken else 'asleep'}"

    return done


def while_down(action: Action) -> Action:
    """An action while the service is down."""

    async def done(box: Box) -> str:
        await box.mesh.kill(AUTHZ)
        try:
            return await action(box)
        finally:
            await box.mesh.start_authz()

    return done


def scoped(pod: str, action: Action) -> Action:
    """An action by a pod whose sidecar sees its own namespace and the platform's alone."""

    async def done(box: Box) -> str:
        await box.patch([*envoyfilters.shipped(), *component("sidecar-scope")], [pod])
        try:
            return await action(box)
        finally:
            await box.patch(envoyfilters.shipped(), [pod])

    return done


# -- our own port ------------------------------------------------------------------------------


def asks(
    who: str,
    *metadata: tuple[str, str],
    token: TokenSource | None = None,
    headers: Headers = (),
    principal: str = "",
    route_of: str = "",
) -> Action:
    """A question to the service itself, with the certificate of a pod or SPIFFE ID."""

    async def action(box: Box) -> str:
        carried = [(TOKEN, await token(box))] if token else []
        response = await box.check(
            _certificate(box, who),
            *metadata,
            headers=[*headers, *carried],
            principal=principal,
            route_of=route_of,
        )
        return NO_ANSWER if response is None else Outcome.of_check(response)

    return action


def asks_through(pod: str, url: str, *metadata: tuple[str, str], **how: Any) -> Action:
    """A question to the service by way of somebody's proxy, which puts it with its certificate."""

    async def action(box: Box) -> str:
        sent = grpc_call(check_message(route_of="acme-db"), metadata)
        try:
            answer = await box.mesh.call(pod, f"{url}{CHECK}", **sent, **how)
        except NoAnswer:
            return NO_ANSWER
        if not answer.body:  # Envoy has made a gRPC status of its HTTP status
            refused = {"7": 403, "14": 503}.get(answer.headers.get("grpc-status"), answer.status)
            return Outcome.of(refused, answer.reason)
        return f"answered: {Outcome.of_check(CheckResponse.FromString(answer.body[5:]))}"

    return action


def denied_for(reason: str, action: Action) -> Action:
    """An action, and whether the service denied something for this reason meanwhile."""

    async def done(box: Box) -> str:
        before = await _counted(box, f'reason="{reason}"')
        outcome = await action(box)
        denied = await _counted(box, f'reason="{reason}"') > before
        return f"{outcome}, {reason if denied else 'none denied'}"

    return done


def asked_twice(question: str, action: Action) -> Action:
    """An action that a gateway asks about once, and by which the service is asked once more."""

    async def done(box: Box) -> str:
        before = await _counted(box, f'question="{question}"')
        outcome = await action(box)

        async def twice() -> bool:  # nobody waits for a copy
            return await _counted(box, f'question="{question}"') == before + 2

        await eventually(twice, "the copy arrives")
        return f"{outcome}, asked twice"

    return done


async def _counted(box: Box, label: str) -> float:
    """How many Checks the service has answered so."""
    lines = (await box.mesh.metrics()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if label in line)


def under(text: str, action: Action) -> Action:
    """An action under another policy."""

    async def done(box: Box) -> str:
        before = box.mesh.authz.policy_file.read_text()
        await box.mesh.set_policy(text)
        try:
            return await action(box)
        finally:
            await box.mesh.set_policy(before)

    return done


# -- eventing ----------------------------------------------------------------------------------


def eventing(action: Action, reached: str = "acme-db/hello") -> Action:
    """An action in a cluster with brokers, channels and triggers; which app saw an event of it.

    acme-web has a broker whose trigger sends to acme-db; mallory's trigger does, too.
    """

    async def done(box: Box) -> str:
        mesh = box.mesh
        victim = f"http://hello.acme-db.svc.{DOMAIN}/event"
        for space in ("acme-web", "mallory"):
            channel = f"http://events-kn-channel.{space}.svc.{DOMAIN}/"
            broker = {"channel": channel}
            await mesh.control(
                "knative-eventing/broker-ingress", "PUT", f"/brokers/{space}/default", broker
            )
            await subscribed(box, space, trigger_of(space))
            trigger = {"uid": "u1", "subscriber": victim, "filter": {}}
            await mesh.control(
                "knative-eventing/broker-filter", "PUT", f"/triggers/{space}/t", trigger
            )
        await mesh.forget(reached)
        outcome = await action(box)
        return f"{outcome}, {len(await mesh.seen(reached))} events"

    return done


def sinks(action: Action) -> Action:
    """An action in a cluster in which acme-web has a JobSink; how many Jobs were started of it."""

    async def done(box: Box) -> str:
        await box.mesh.control("knative-eventing/job-sink", "PUT", "/sinks/acme-web/jobs", {})
        broker = {"broker": f"http://broker-ingress.knative-eventing.svc.{DOMAIN}/acme-web/default"}
        to = "/replies/acme-web/asked"
        await box.mesh.control("knative-eventing/request-reply", "PUT", to, broker)
        return await action(box)

    return done


def trigger_of(namespace: str) -> str:
    """Where the trigger of a namespace takes events."""
    return f"http://broker-filter.knative-eventing.svc.{DOMAIN}/triggers/{namespace}/t/u1"


async def subscribed(box: Box, namespace: str, subscriber: str) -> None:
    """Let the namespace's channel send what it takes to `subscriber`."""
    path = f"/channels/{namespace}/events-kn-channel"
    content = {"subscribers": [subscriber]}
    await box.mesh.control("knative-eventing/imc-dispatcher", "PUT", path, content)


def post(pod: str, url: str, *headers: tuple[str, str], token: TokenSource | str = "") -> Action:
    """An event."""

    async def action(box: Box) -> str:
        sent = [*EVENT, *headers]
        return await box.call(pod, url, method="POST", body=b"x", headers=sent, token=token)

    return action


def broker_at(channel: str, then: Action) -> Action:
    """mallory's broker has somebody else's channel in its status, which mallory may write."""

    async def action(box: Box) -> str:
        await box.mesh.control(
            "knative-eventing/broker-ingress",
            "PUT",
            "/brokers/mallory/default",
            {"channel": channel},
        )
        return await then(box)

    return action


def smuggling(pod: str, url: str, token: TokenSource) -> Action:
    """An event with a token under the name by which it travels through the broker's ingress."""

    async def action(box: Box) -> str:
        sent = [*EVENT, ("knative-tenant-token", await token(box))]
        return await box.call(pod, url, method="POST", body=b"x", headers=sent)

    return action


def subscription(subscriber: str, then: Action) -> Action:
    """mallory's Subscription names any address, and mallory sends an event into its channel."""

    async def action(box: Box) -> str:
        await subscribed(box, "mallory", subscriber)
        return await then(box)

    return action


def triggers(subscriber: str, then: Action) -> Action:
    """mallory's Trigger names any address."""

    async def action(box: Box) -> str:
        trigger = {"uid": "u1", "subscriber": subscriber, "filter": {}}
        await box.mesh.control(
            "knative-eventing/broker-filter", "PUT", "/triggers/mallory/t", trigger
        )
        return await then(box)

    return action


def ping(namespace: str, sink: str) -> Action:
    """A namespace's PingSource fires at any address."""

    async def action(box: Box) -> str:
        content = {"sink": sink}
        answer = await box.mesh.control(
            "knative-eventing/pingsource", "POST", f"/ping/{namespace}", content
        )
        return str(answer["status"])

    return action


def _certificate(box: Box, who: str) -> Any:
    if who.startswith("spiffe://"):
        return box.identity(who)
    return box.mesh.certificate(who)


def outage_header() -> Action:
    """A call out of the mesh while the service is down: does the world learn of it?"""

    async def action(box: Box) -> str:
        await box.mesh.forget("outside/server")
        outcome = await while_down(call("acme-web/plain", "http://outside.test/"))(box)
        (seen,) = await box.mesh.seen("outside/server")
        told = seen.header("x-envoy-auth-failure-mode-allowed")
        return f"{outcome}, {'the header' if told else 'no such header'}"

    return action
