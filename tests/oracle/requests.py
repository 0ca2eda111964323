"""Random questions to a world, such that each row of each table answers often."""

from __future__ import annotations

from random import Random
from typing import Any, Final, NamedTuple

from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from tests.oracle.policy_file import World
from tests.oracle.token_format import Token, write
from tests.oracle.worlds import (
    ACTIVATOR,
    AGENTS,
    AUTOSCALER,
    BROKER,
    DISPATCHER,
    FILTER,
    GATEWAY,
    HOLDERS,
    NAMESPACES,
    PORTS,
    PROBES,
    PROMETHEUS,
    RELAYS,
    TENANTS,
    workload,
)

ROUTES: Final = "/apis/networking.istio.io/v1alpha3/namespaces"
NO_NAMES: Final = ("", ".", "*", "@public", "Acme-web", "acme-web,acme-db", "10.1.2.3", "a_b", "-a")
USUAL_HOPS: Final = {
    ACTIVATOR: Hop.ACTIVATOR,
    GATEWAY: Hop.GATEWAY,
    BROKER: Hop.BROKER,
    FILTER: Hop.TRIGGER,
    DISPATCHER: Hop.CHANNEL,
}


class Request(NamedTuple):
    """One question."""

    question: Question
    facts: Facts


def request(random: Random, world: World) -> Request:
    """A question that the rows of this world answer differently."""
    question = random.choices(list(Question), [3, 7, 7, 2, 2])[0]
    opened = [grant["to"] for grant in world.policy.get("grants", [])]
    to = random.choice([*TENANTS, *TENANTS, *NAMESPACES, *opened, *opened])
    caller = _caller(random, world, question, to)
    hop = None
    if question is Question.TRANSIT:
        hop = USUAL_HOPS.get(caller) if random.random() < 0.75 else random.choice([*Hop, None])
    by_path = hop not in {None, Hop.GATEWAY, Hop.ACTIVATOR}
    near = _near(random, world, to)
    source = "@public" if random.random() < 0.2 else near
    meant = SpiffeId.parse(caller).namespace if by_path and random.random() < 0.8 else to
    facts: dict[str, Any] = {
        "caller": SpiffeId.parse(caller),
        "hop": hop,
        "port": random.choice(PORTS),
        "principal": _peer(random, near, hop),
        "tokens": tokens(random, world, source, meant),
        "path": _path(random, hop, to, usual=by_path),
        "host": _host(random, to),
        "upstream": _upstream(random, to),
        "virtual_service": _virtual_service(random, random.choice([to, to, near])),
        "forwarded": random.random() < 0.02,
        "queue_proxy": random.random() < 0.5,
        **_probe(random),
    }
    if hop is Hop.ACTIVATOR:
        names = [(to,), (), ("",), (to, to), (random.choice(NO_NAMES),)]
        facts["serving_namespace"] = random.choices(names, [9, 3, 1, 1, 1])[0]
        revisions = [("hello-00001",), (), ("",), ("a", "b"), ("a,b",)]
        facts["serving_revision"] = random.choices(revisions, [9, 3, 1, 1, 1])[0]
    if question is Question.SIGN and random.random() < 0.5:
        named = [(near,), (near,), (near, near), (random.choice(NO_NAMES),)]
        facts["kn_namespace"] = random.choice(named)
    if random.random() < 0.8:
        facts |= _as_exempt(random, facts["principal"])
    return Request(question, Facts(**facts))


def _caller(random: Random, world: World, question: Question, to: str) -> str:
    match question:
        case Question.VERIFY | Question.TCP:
            return workload(random, namespace=to)
        case Question.SIGN:
            return random.choice([workload(random), random.choice(HOLDERS)])
        case Question.PUBLIC:
            others = [ACTIVATOR, workload(random), workload(random, domain="elsewhere.example")]
            return random.choice([*[GATEWAY] * 8, *others])
        case Question.TRANSIT:
            allowed: list[str] = world.policy["roles"].get("transit", [])
            return random.choice([*allowed, *allowed, random.choice(HOLDERS), workload(random)])


def _near(random: Random, world: World, to: str) -> str:
    """Who may well be let in: of the tenant, or granted; or anybody."""
    granted = [grant["from"] for grant in world.policy.get("grants", []) if grant["to"] == to]
    groups = [tenant["namespaces"] for tenant in world.policy.get("tenants", {}).values()]
    kin = [name for group in groups if to in group for name in group]
    found = random.choice([to, random.choice(NAMESPACES), *granted, *granted, *granted, *kin])
    return str(random.choice(NAMESPACES) if found == "*" else found)


def _peer(random: Random, near: str, hop: Hop | None) -> str:
    """The source's own, the platform, a thief, nobody, or no identity at all."""
    own = workload(random, namespace=near)
    peers = {
        own: 8,
        GATEWAY: 4,
        ACTIVATOR: 4,
        random.choice(HOLDERS): 3,
        workload(random): 3,
        "": 2,
        AUTOSCALER: 8 if hop is Hop.ACTIVATOR else 1,
        PROMETHEUS: 1,
        random.choice(["spiffe://x", near, f"{own}/x", own.upper(), f"{own},{own}", f" {own}"]): 1,
    }
    return random.choices(list(peers), list(peers.values()))[0]


def _probe(random: Random) -> dict[str, Any]:
    if random.random() < 0.8:
        return {}
    agent = random.choice(AGENTS) + random.choice(["", "/1"])
    return {
        "port": random.choice(PORTS[:2]),
        "user_agent": random.choice(["", agent, agent, f"x{agent}"]),
        "network_probe": random.choice(["", *PROBES]),
        "method": random.choice(["GET", "GET", ""]),
    }


def _as_exempt(random: Random, principal: str) -> dict[str, Any]:
    """What the platform's exempt peers really send."""
    sent = {
        AUTOSCALER: ("Knative-Autoscaling-Probe/0.1", "activator"),
        ACTIVATOR: ("Knative-Activator-Probe", "queue"),
        GATEWAY: ("Knative-Ingress-Probe", "probe"),
    }
    if principal == PROMETHEUS:
        return {"port": 9091, "path": random.choice(["/metrics", "/metrics?x"])}
    if principal not in sent or (principal != AUTOSCALER and random.random() < 0.7):
        return {}
    agent, probe = sent[principal]
    return {
        "port": random.choices(PORTS, [4, 4, 1, 1])[0],
        "path": random.choices(["/healthz", "/healthz?x=/", "/", "/healthz/"], [6, 3, 1, 1])[0],
        "user_agent": random.choices([agent, random.choice(AGENTS)], [9, 1])[0],
        "network_probe": random.choices([probe, random.choice(PROBES)], [9, 1])[0],
        "method": random.choices(["GET", "POST", "HEAD", ""], [8, 1, 1, 1])[0],
    }


def _path(random: Random, hop: Hop | None, to: str, *, usual: bool) -> str:
    start = "/triggers/" if hop is Hop.TRIGGER else "/"
    more = random.choice(
        ["", "/", "/name", "/name", "/name/", "/name/uid", "//", "?x=/", "/name?x"]
    )
    if usual and random.random() < 0.6:
        return f"{start}{to}{more}"
    status = f"/namespaces/{to}/name/sink/sources/a/ids/b"
    odd = [
        "",
        "/",
        "/",
        "/?x",
        "//",
        "*",
        f"/{to}",
        f"{to}/name",
        status,
        f"{status}/",
        f"{status}/c",
    ]
    odd += ["/healthz", f"{start}{random.choice(NO_NAMES)}{more}", f"/x{status}", f"//{to}/name"]
    return random.choice(odd)


def _host(random: Random, to: str) -> str:
    full = f"hello.{to}.svc.cluster.local"
    forms = [full, f"{full}:80", f"{full}.", f"{full}.:80", f"{full}:80:80", f"{full},{full}"]
    forms += [f"hello.{to}.svc", f"hello.{to}", "hello", f"hello.{to}.svc.k8s.corp", f"x.{full}"]
    forms += [
        f"{to}.svc.cluster.local",
        f"{to}.svc",
        f"x.hello.{to}",
        f"a_b.{to}.svc",
        f"user@{full}",
    ]
    names = [f"hello.{to}.example.com", f"{to}.hello.apps.example", f"hello.{to}.EXAMPLE.com:443"]
    names += [f"x.hello.{to}.example.com", f"hello.{random.choice(TENANTS)}.example.com"]
    forms += [*names, *names, "hello.claimed.example"]
    forms += ["", "*", "10.1.2.3", "0x7f", "[::1]", f"10-1-2-3.{to}.pod.cluster.local", "svc"]
    forms += [
        "api.internal",
        "shop.example:443",
        f"{full}..",
        f".{full}",
        full.upper(),
        f"\u212a.{full}",
    ]
    return random.choice([full, random.choice(forms)])


def _upstream(random: Random, to: str) -> str | None:
    domain = random.choices(["cluster.local", "k8s.corp", "example.com"], [20, 2, 1])[0]
    names = ["hello", "hello", "hello-00001", "hello-00001-private", "kiali", "other"]
    full = f"{random.choice(names)}.{to}.svc.{domain}"
    relay = f"outbound|80||{random.choice(RELAYS)}.svc.cluster.local"
    out = ["PassthroughCluster", "BlackHoleCluster", "InboundPassthroughCluster", "-", ""]
    out += ["outbound|443||api.example", "inbound|8080||", f"outbound|80||hello.{to}"]
    out += ["outbound|443||*.api.example", f"outbound|80||x.{full}", f"outbound|80||{full.upper()}"]
    wrong = [
        f"outbound_.80_._.{full}",
        f"outbound|80||{full};",
        full,
        "mine",
        f"outbound|80|{full}",
    ]
    wrong += [
        f"outbound|0||{full}",
        f"outbound|80||{full}|",
        f" outbound|80||{full}",
        f"|80||{full}",
    ]
    wrong += [f"outbound|80||{full}\n", f"outbound|800000||{full}", f"outbound|80||{full} {full}"]
    straight = [f"outbound|80||{full}", f"outbound|8012|v1|{full}"]
    kinds = [random.choice(straight), relay, random.choice(out), random.choice(wrong), None]
    return random.choices(kinds, [9, 5, 2, 2, 3])[0]


def _virtual_service(random: Random, to: str) -> str:
    usual = f"{ROUTES}/{to}/virtual-service/hello-ingress"
    other = [f"{ROUTES}/{to}/destination-rule/hello", to, "", f"{usual}/x", f"{usual}\n"]
    other += [f"{ROUTES}/{random.choice(NO_NAMES)}/virtual-service/x", f"x{usual}"]
    other += [usual.replace("v1alpha3", "v1"), f"{ROUTES}/{to}/virtual-service/a-*.b~0"]
    return random.choice([usual, random.choice(other)])


# -- tokens ------------------------------------------------------------------------------------


def tokens(random: Random, world: World, source: str, to: str) -> tuple[str, ...]:
    """What a request carries: a good token, most often."""
    kinds = ["good", "none", "twice", "malformed", "forged", "time", "elsewhere", "key", "odd"]
    kind = random.choices(kinds, [60, 12, 4, 4, 3, 6, 4, 10, 3])[0]
    now, roots = int(world.now), [it for it in world.keyring.roots if not it.revoked]
    root = random.choice([it for it in roots if it.verify_until is None and it.sign_from <= now])
    keys = world.keyring.namespaces.get(source)
    accounts = ["default", "default", "reader", "read.er", ""]
    issued = now - random.choice([0, 0, 1, 60, 600, 719])
    token = Token(
        root.id,
        keys.generation if keys else 0,
        source,
        "" if source == "@public" else random.choice(accounts),
        to,
        issued,
        issued + 720,
    )
    secret = root.secret
    match kind:
        case "none":
            return ()
        case "twice":
            text = write(token, secret)
            return (text, random.choice([text, "x"]))
        case "malformed":
            return (random.choice(malformed(write(token, secret))),)
        case "forged":
            secret = b"\7" * 32
        case "time":
            issued = now - random.choice([720, 721, 5000, -29, -30, -31, -32, -900])
            token = token._replace(issued=issued, expires=issued + 720)
        case "elsewhere":
            token = token._replace(destination=random.choice(NAMESPACES))
        case "key":
            root = random.choice(roots)
            names = [root.id] * 3 + [it.id for it in world.keyring.roots] + ["000000aa", "000000ff"]
            secret = root.secret
            generation = max(0, token.generation - random.randint(-1, 3))
            token = token._replace(root=random.choice(names), generation=generation)
        case "odd":
            token = random.choice(odd(token))
    return (write(token, secret),)


def malformed(text: str) -> list[str]:
    """Texts that are almost that of a token."""
    return [
        *("", "x", text[:-1], f"{text} ", f"{text},{text}", text.upper(), f"v2{text[2:]}"),
        *(f"{text}=", f"{text}\n", f"{text}.x", text.replace(".", "..", 1), text.replace(".", "/")),
    ]


def odd(token: Token) -> list[Token]:
    """Rightly signed, with what no signer of ours says."""
    return [
        token._replace(source="Acme-web"),
        token._replace(source="*"),
        token._replace(source=""),
        token._replace(source="@public"),
        token._replace(destination="@public"),
        token._replace(account="a" * 64),
        token._replace(account="A"),
        token._replace(account="sha256:" + "0" * 32),
        token._replace(expires=token.issued + 90_000),
        token._replace(expires=token.issued),
        token._replace(expires=token.issued + 10**11),
        token._replace(issued=0),
        token._replace(generation=10**9),
    ]
