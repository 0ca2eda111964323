"""`authz policy`: check a policy file, and ask it questions, without a server."""

import time
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from authz.cli.output import AsJson, print_json, show
from authz.domain import rotation, tokens
from authz.domain.decision import Rules, decide, markdown
from authz.domain.facts import Facts, Hop, Question
from authz.domain.identity import SpiffeId
from authz.domain.keys import TokenLife
from authz.domain.names import PUBLIC, Namespace, parse_namespace
from authz.domain.policy import Policy, Role
from authz.domain.verdict import Deny, Verdict
from authz.errors import BadPolicy
from authz.policysource.file import read_policy
from authz.wire import cluster_name, virtual_service_name

app = typer.Typer(
    help="Check a policy file and ask it questions.",
    no_args_is_help=True,
    add_completion=False,
)
_TRANSIT: Final = "through a transit hop"
_OUTSIDE: Final = "through a gateway"
_ROUTE: Final = "by that route at a gateway"
_EVENT: Final = "by a broker or sink"
_now = time.time  # noqa: TID251 - the command line is where time enters

_File = Annotated[Path, typer.Argument(help="The policy file.")]


@app.command(epilog="Example: authz policy check policy.yaml")
def check(file: _File, *, as_json: AsJson = False) -> None:
    """Say whether a policy file can be used, or every problem with its line (exit code 1)."""
    try:
        policy = read_policy(file)
    except BadPolicy as error:
        if as_json:
            print_json({"ok": False, "problems": error.problems})
        else:
            for problem in error.problems:
                typer.echo(f"{file}: {problem}")
        raise typer.Exit(1) from None
    counts = {
        "tenants": len({known.tenant for known in policy.namespaces.values()} - {None}),
        "namespaces": len(policy.namespaces),
        "grants": len(policy.grants),
        "role_holders": len(policy.roles),
        "exempt_peers": len(policy.exemptions),
        "default_mode": policy.default_mode.value,
        "default_public": policy.default_public,
    }
    if as_json:
        print_json({"ok": True, **counts})
    else:
        show([counts], title=f"{file} is good", as_json=False)


@app.command(epilog="Example: authz policy explain policy.yaml shop/checkout payments --port 8080")
def explain(
    file: _File,
    source: Annotated[
        str, typer.Argument(help="NAMESPACE or NAMESPACE/SERVICE-ACCOUNT, or @public.")
    ],
    destination: Annotated[str, typer.Argument(help="Destination namespace.")],
    *,
    port: Annotated[
        int, typer.Option(help="The pod's own port: Knative's queue-proxy has 8012 and 8013.")
    ] = 8012,
    route: Annotated[
        str, typer.Option(help="@public: whose the route at the gateway is; DESTINATION's own.")
    ] = "",
    service: Annotated[str, typer.Option(help="@public: the Service that is called.")] = "any",
    host: Annotated[str, typer.Option(help="@public: the Host that is called.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say whether SOURCE may call into DESTINATION, on each way there, and why.

    It asks the same function that the server asks, and names the row of the decision tables that
    answers, see `authz policy tables`. Exit code 1: some way is closed.
    """
    policy = read_policy(file)
    to = parse_namespace(destination)
    taken = _Route(
        cluster_name(f"{service}.{to}.svc.{policy.cluster_domains[0]}", 80),
        virtual_service_name(parse_namespace(route) if route else to, "any"),
        host,
    )
    rows = _ways(policy, source, to, port, taken)
    show(rows, title=f"{source} to {destination}:{port}", as_json=as_json)
    if not all(row["allowed"] for row in rows):
        raise typer.Exit(1)


class _Route(NamedTuple):
    """What a gateway would say of a route."""

    upstream: str
    virtual_service: str
    host: str


@app.command(epilog="Example: authz policy tables > tables.md")
def tables() -> None:
    """Print the decision tables of this version in Markdown: the first row that fits answers."""
    typer.echo(markdown(), nl=False)


def _ways(
    policy: Policy, source: str, destination: Namespace, port: int, route: _Route
) -> list[dict[str, object]]:
    namespace, _, account = source.partition("/")
    public = source == PUBLIC
    origin = PUBLIC if public else parse_namespace(namespace)
    account = account or "default"
    trust_domain = min(policy.trust_domains)
    straight = f"spiffe://{trust_domain}/ns/{namespace}/sa/{account}"
    ways = {} if public else {"straight": SpiffeId.parse(straight)}
    for role, way in ((Role.TRANSIT, _TRANSIT), (Role.GATEWAY, _OUTSIDE)):
        holder = min(
            (str(peer) for peer, roles in policy.roles.items() if role in roles), default=None
        )
        if holder is not None and (public or role is Role.TRANSIT):
            ways[way] = SpiffeId.parse(holder)
    if not ways:
        because = "nobody holds the role gateway, so nothing comes in from outside"
        closed = {"allowed": False, "because": because, "row": None, "grant": None}
        return [{"way": _OUTSIDE, **closed}]
    now = _now()
    rules = Rules(policy, rotation.create(now), TokenLife())

    def token_for(target: Namespace) -> str:
        return tokens.mint(
            source=origin,
            service_account="" if public else account,
            destination=target,
            keyring=rules.keyring,
            now=now,
            life=rules.life,
        )

    token = token_for(destination)
    rows: list[dict[str, object]] = []
    if public and (gateway := ways.get(_OUTSIDE)) is not None:
        opened = Facts(gateway, **route._asdict())
        rows.append({"way": _ROUTE, **_said(decide(Question.PUBLIC, opened, rules, now))})
    for way, presenter in ways.items():
        verdict: Verdict | None = None
        if not public and str(presenter) != straight:
            hop = Facts(
                presenter,
                Hop.ACTIVATOR,
                principal=straight,
                port=port,
                tokens=(token,),
                serving_namespace=(destination,),
                serving_revision=("any",),
            )
            verdict = decide(Question.TRANSIT, hop, rules, now)
        if not isinstance(verdict, Deny):
            pod = SpiffeId(trust_domain, destination, "default")
            facts = Facts(pod, principal=str(presenter), port=port, tokens=(token,))
            verdict = decide(Question.VERIFY, facts, rules, now)
        rows.append({"way": way, **_said(verdict)})
    if not public and (eventing := ways.get(_TRANSIT)) is not None:
        told, event = f"/{destination}/any", (token_for(eventing.namespace),)
        hop = Facts(eventing, Hop.BROKER, principal=straight, path=told, tokens=event)
        rows.append({"way": _EVENT, **_said(decide(Question.TRANSIT, hop, rules, now))})
    return rows


def _said(verdict: Verdict) -> dict[str, object]:
    """What is decided, by which row of the decision table, and by which grant if by one."""
    if isinstance(verdict, Deny):
        because, grant = verdict.reason.sentence, None
    else:
        because, grant = verdict.ground.value, verdict.grant
        if verdict.would_deny is not None:
            because += f"; enforced, it would be denied: {verdict.would_deny.sentence}"
    return {
        "allowed": not isinstance(verdict, Deny),
        "because": because,
        "row": verdict.row,
        "grant": None if grant is None else str(grant),
    }
