"""Calls: every way from a caller to a pod, which questions are asked on it, and who gets in.

Asked are, by the order of a request's way: the caller's sidecar, the gateway's two kinds of
listener, the activator's sidecar (about what comes and what goes), the pod's sidecar. The names of
the filters are those of their `stat_prefix`; `transit` on the gateway is called `local` there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args
from urllib.parse import urlsplit

from authz.lab.box.istio.client import NoAnswer
from authz.lab.box.istio.mesh import GATEWAY, Mesh
from authz.lab.world import cluster
from authz.testing import LEAKED, Outcome
from authz.wire import TOKEN_HEADER

Relation: TypeAlias = Literal["own", "sibling", "granted", "foreign", "outside"]
Fate: TypeAlias = str
"""`in`, or what kept it out: `transit not-allowed` for a question and its word, else words."""

RELATIONS: Final[tuple[Relation, ...]] = get_args(Relation)
ACTIVATOR: Final = "knative-serving/activator"
IN: Final = "in"
NO_ROUTE: Final = "no route"
NO_IDENTITY: Final = "no mTLS"

SOURCES: Final[Mapping[Relation, str]] = {
    "own": "acme-db",
    "sibling": "acme-web",
    "granted": "initech",
    "foreign": "globex",
    "outside": "outside",
}

SIGN: Final = "sign by the caller's sidecar"
PUBLIC: Final = "public"
LOCAL: Final = "transit at the gateway"
TRANSIT: Final = "transit"
PASS: Final = "sign by the activator's sidecar"  # noqa: S105 - what it does to a token
VERIFY: Final = "verify"
TCP: Final = "tcp"


@dataclass(frozen=True)
class Call:
    """A call: which pod makes it, and what is given to `Mesh.call`."""

    pod: str
    url: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Path:
    """A way, and what comes of it."""

    name: str
    way: str
    """In words."""
    to: str
    """The pod that is called."""
    call: Callable[[Mesh, Relation], Call]
    asked: tuple[str, ...]
    outcomes: Mapping[Relation, Fate]

    def expected(self, relation: Relation) -> str:
        """What must be seen: what came of it, and the questions up to the one that said no."""
        outcome = self.outcomes[relation]
        if outcome == NO_ROUTE:
            return "404"
        if outcome == NO_IDENTITY:
            return "503; sign"
        if outcome == IN:
            return f"200 {self.to}; {', '.join(map(_short, self.asked))}"
        by, word = outcome.rsplit(" ", 1)
        until = self.asked[: self.asked.index(by) + 1]
        status = "closed" if by == TCP else f"403 {word}"
        return f"{status}; {', '.join(map(_short, until))}"


def _short(question: str) -> str:
    return question.partition(" ")[0]


def _everybody(outcome: Fate) -> dict[Relation, Fate]:
    return dict.fromkeys(("own", "sibling", "granted", "foreign"), outcome)


def _unless_foreign(by: str, word: str = "not-allowed") -> dict[Relation, Fate]:
    return _everybody(IN) | {"foreign": f"{by} {word}"}


def by_name(
    host: str, *, scheme: str = "http", http2: bool = False
) -> Callable[[Mesh, Relation], Call]:
    """An app calls a name, through its sidecar."""

    def call(_mesh: Mesh, relation: Relation) -> Call:
        pod = "plain" if relation == "own" else "hello"
        return Call(f"{SOURCES[relation]}/{pod}", f"{scheme}://{host}/", {"http2": http2})

    return call


def hidden(host: str) -> Callable[[Mesh, Relation], Call]:
    """An app that a `Sidecar` hides the VirtualServices from calls a name."""
    return lambda _mesh, relation: Call(f"{SOURCES[relation]}/idle", f"http://{host}/")


def by_address(of: str, port: int) -> Callable[[Mesh, Relation], Call]:
    """An app calls an address; `of` is a pod or a Service's name."""

    def call(mesh: Mesh, relation: Relation) -> Call:
        return by_name(f"{mesh.address(of)}:{port}")(mesh, relation)

    return call


def with_own_certificate(of: str, port: int, host: str) -> Callable[[Mesh, Relation], Call]:
    """A workload without a sidecar speaks mutual TLS itself, and has no token."""

    def call(mesh: Mesh, relation: Relation) -> Call:
        pod = f"{SOURCES[relation]}/plain"
        tls = mesh.tls(pod, alpn=["istio-http/1.1", "istio", "http/1.1"])
        options = {"via": f"{mesh.address(of)}:{port}", "tls": tls, "through_sidecar": False}
        return Call(pod, f"http://{host}/", options)

    return call


def from_outside(url: str) -> Callable[[Mesh, Relation], Call]:
    """Somebody who is not in the cluster calls; or somebody who is, by the same address."""

    def call(_mesh: Mesh, relation: Relation) -> Call:
        pod = "server" if relation == "outside" else "hello"
        return Call(f"{SOURCES[relation]}/{pod}", url)

    return call


_PRIVATE: Final = "hello-00001-private.acme-db"
_PUBLIC_DOMAIN: Final = cluster.PUBLIC_DOMAIN

PATHS: Final = (
    Path(
        "pod",
        "sidecar → pod",
        "acme-db/hello",
        by_name("hello.acme-db"),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "activator",
        "sidecar → activator → pod",
        "acme-db/idle",
        by_name("idle.acme-db.svc.cluster.local"),
        (SIGN, TRANSIT, PASS, VERIFY),
        _unless_foreign(TRANSIT),
    ),
    Path(
        "gateway",
        "sidecar → local gateway → pod",
        "acme-db/hello",
        hidden("hello.acme-db"),
        (SIGN, LOCAL, VERIFY),
        _unless_foreign(LOCAL),
    ),
    Path(
        "gateway-activator",
        "sidecar → local gateway → activator → pod",
        "acme-db/idle",
        hidden("idle.acme-db.svc"),
        (SIGN, LOCAL, TRANSIT, PASS, VERIFY),
        _unless_foreign(LOCAL),
    ),
    Path(
        "tag",
        "a tag's name → pod",
        "acme-db/hello",
        by_name(f"{cluster.TAG}-hello.acme-db"),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "revision",
        "a revision's Service → pod",
        "acme-db/hello",
        by_name("hello-00001.acme-db"),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "revision-activator",
        "a revision's Service → activator → pod",
        "acme-db/idle",
        by_name("idle-00001.acme-db.svc.cluster.local"),
        (SIGN, TRANSIT, PASS, VERIFY),
        _unless_foreign(TRANSIT),
    ),
    Path(
        "private",
        "its `-private` Service → pod",
        "acme-db/hello",
        by_name(_PRIVATE),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "private-8012",
        "the same, port 8012",
        "acme-db/hello",
        by_name(f"{_PRIVATE}:8012"),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "h2c",
        "the same, HTTP/2, port 8013",
        "acme-db/hello",
        by_name(f"{_PRIVATE}:8013", http2=True),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "service",
        "a Service that is not Knative's",
        "acme-db/plain",
        by_name("plain.acme-db"),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "cluster-ip",
        "a Service's cluster IP",
        "acme-db/plain",
        by_address("plain.acme-db", 80),
        (SIGN, VERIFY),
        _unless_foreign(VERIFY),
    ),
    Path(
        "pod-ip",
        "a pod's IP: sidecars send it in plaintext",
        "acme-db/hello",
        by_address("acme-db/hello", 8012),
        (SIGN,),
        _everybody(NO_IDENTITY),
    ),
    Path(
        "own-certificate",
        "no sidecar, own certificate → pod",
        "acme-db/hello",
        with_own_certificate("acme-db/hello", 8012, "hello.acme-db"),
        (VERIFY,),
        _unless_foreign(VERIFY, "token-missing"),
    ),
    Path(
        "own-certificate-activator",
        "no sidecar, own certificate → activator",
        "acme-db/idle",
        with_own_certificate(ACTIVATOR, 8012, "idle-00001.acme-db.svc.cluster.local"),
        (TRANSIT,),
        _everybody(f"{TRANSIT} token-missing"),
    ),
    Path(
        "public",
        "public gateway → pod",
        "acme-web/hello",
        from_outside(f"http://hello.acme-web.{_PUBLIC_DOMAIN}/"),
        (PUBLIC, VERIFY),
        {"outside": IN},
    ),
    Path(
        "public-tls",
        "the same, port 8443",
        "acme-web/hello",
        from_outside(f"https://hello.acme-web.{_PUBLIC_DOMAIN}/"),
        (PUBLIC, VERIFY),
        {"outside": IN},
    ),
    Path(
        "public-activator",
        "public gateway → activator → pod",
        "acme-web/idle",
        from_outside(f"http://idle.acme-web.{_PUBLIC_DOMAIN}/"),
        (PUBLIC, TRANSIT, PASS, VERIFY),
        {"outside": IN},
    ),
    Path(
        "public-from-inside",
        "sidecar → public gateway → pod",
        "acme-web/hello",
        from_outside(f"http://hello.acme-web.{_PUBLIC_DOMAIN}/"),
        (SIGN, PUBLIC, VERIFY),
        _everybody(IN),
    ),
    Path(
        "mapping",
        "DomainMapping: public gateway → local gateway → pod",
        "acme-web/hello",
        from_outside(f"http://acme-web-mapped.{_PUBLIC_DOMAIN}/"),
        (PUBLIC, LOCAL, VERIFY),
        {"outside": IN},
    ),
    Path(
        "mapping-not-public",
        "the same, where the policy says `public: false`",
        "acme-db/hello",
        from_outside(f"http://acme-db-mapped.{_PUBLIC_DOMAIN}/"),
        (PUBLIC, LOCAL, VERIFY),
        {"outside": f"{LOCAL} not-allowed"},
    ),
    Path(
        "private-from-outside",
        "public gateway, a private Knative Service",
        "acme-db/hello",
        from_outside(f"http://hello.acme-db.{_PUBLIC_DOMAIN}/"),
        (),
        {"outside": NO_ROUTE},
    ),
    Path(
        "tcp",
        "raw TCP: sidecar → pod",
        "acme-db/plain",
        by_name("plain-tcp.acme-db:7000", scheme="tcp"),
        (TCP,),
        _unless_foreign(TCP, "closed"),
    ),
    Path(
        "shadow",
        "a namespace in shadow mode, by the activator",
        "umbrella/idle",
        by_name("idle.umbrella"),
        (SIGN, TRANSIT, PASS, VERIFY),
        {"foreign": IN},
    ),
)
"""Every way, by knative/serving and net-istio."""


async def asked_of(
    mesh: Mesh, pods: Sequence[str], *, kept: bool = True
) -> dict[tuple[str, str], int]:
    """How often each of the pods' filters has asked, or with `kept` gave an answer again."""
    counts: dict[tuple[str, str], int] = {}
    for pod in dict.fromkeys(pods):
        if pod in mesh.proxies:
            for (question, _), number in (await mesh.checks(pod, kept=kept)).items():
                counts[pod, question] = counts.get((pod, question), 0) + number
    return counts


async def played(mesh: Mesh, path: Path, relation: Relation) -> Outcome:
    """Make the call."""
    return await watched(mesh, path.call(mesh, relation), path.to)


async def watched(mesh: Mesh, call: Call, to: str) -> Outcome:
    """Make a call to a pod, and look which questions are asked on its way."""
    pods = (call.pod, GATEWAY, ACTIVATOR, to)
    await mesh.forget(to)
    before = await asked_of(mesh, pods)
    make = _echoed if call.url.startswith("tcp:") else called
    came = await make(mesh, call.pod, call.url, **call.options)
    after = await asked_of(mesh, pods)
    asked = {key: number - before.get(key, 0) for key, number in after.items()}
    way = [
        *(["sign"] * asked.get((call.pod, "sign"), 0)),
        *(["public"] * asked.get((GATEWAY, "public"), 0)),
        *(["transit"] * asked.get((GATEWAY, "local"), 0)),
        *(["transit"] * asked.get((ACTIVATOR, "transit"), 0)),
        *(["sign"] * asked.get((ACTIVATOR, "sign"), 0)),
        *(["verify"] * asked.get((to, "verify"), 0)),
        *(["tcp"] * asked.get((to, "tcp"), 0)),
    ]
    seen = await mesh.seen(to)
    more = ["BUT THE APP SAW IT"] if seen and came.status != 200 else []
    more += [LEAKED] if any(it.header(TOKEN_HEADER) for it in seen) else []
    return came.also(*more, asked=way)


async def called(mesh: Mesh, pod: str, url: str, **options: Any) -> Outcome:
    """Make a call."""
    try:
        answer = await mesh.call(pod, url, **options)
    except NoAnswer:
        return Outcome.of(0)
    return Outcome.of(answer.status, answer.app or answer.reason)


async def _echoed(mesh: Mesh, pod: str, address: str, **_: Any) -> Outcome:
    url = urlsplit(address)
    said = b"anybody there?\r\n"
    async with mesh.connected(pod, url.netloc) as connection:
        await connection.send(said)
        heard = b""
        try:
            while said not in heard:
                part = await connection.receive()
                if not part:
                    return Outcome("closed")
                heard += part
        except NoAnswer:
            return Outcome("closed")
    service, namespace = str(url.hostname).split(".")
    [to] = mesh.world.service(service, namespace).endpoints
    return Outcome.of(200, to)
