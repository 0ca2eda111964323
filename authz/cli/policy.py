"""`authz policy`: check a policy file, and ask it questions, without a server."""

from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from authz.cli import policy_cases, policy_prove, policy_reach, policy_schema
from authz.cli.output import AsJson, print_json, show
from authz.cli.policy_files import Cluster, PolicyFile, load, now
from authz.domain.decision import markdown
from authz.domain.identity import SpiffeId, is_service_account
from authz.domain.names import PUBLIC, Namespace, parse_namespace
from authz.domain.policy import Policy, Role
from authz.domain.verdict import Deny, Verdict
from authz.errors import BadPolicy, BadSettings
from authz.policysource.file import read_policy
from authz.reach.ways import Oracle, Way
from authz.reach.words import listed

app = typer.Typer(
    help="Check a policy, ask it questions, compare and prove.",
    no_args_is_help=True,
    add_completion=False,
)
_TRANSIT: Final = "through a transit hop"
_OUTSIDE: Final = "through a gateway"
_ROUTE: Final = "by that route at a gateway"
_EVENT: Final = "by a broker or sink"

_File = Annotated[Path, typer.Argument(help="The policy file.")]


@app.command(epilog="Example: authz policy check policy.yaml")
def check(file: _File, *, as_json: AsJson = False) -> None:
    """Say whether a policy file can be used, or every problem with its line (exit code 1).

    What can be used and is hardly meant is a warning.
    """
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
    warnings = _hardly_meant(policy)
    if as_json:
        print_json({"ok": True, **counts, "warnings": warnings})
    else:
        show([counts], title=f"{file} is good", as_json=False)
        for warning in warnings:
            typer.echo(f"warning: {warning}")


def _hardly_meant(policy: Policy) -> list[str]:
    """Grants with a tenant's name where a namespace stands, and no namespace is listed by it."""
    members: dict[str, list[str]] = {}
    for namespace, known in policy.namespaces.items():
        members.setdefault(known.tenant or "", []).append(namespace)
    return [
        f"grant {grant}: {end} is a tenant, and a grant names namespaces: write "
        f"{listed(sorted(members[end]), 6)}"
        for grant in policy.grants
        for end in (grant.destination, grant.source)
        if end in members and end not in policy.namespaces
    ]


@app.command(epilog="Example: authz policy explain policy.yaml shop/checkout payments --port 8080")
def explain(
    file: PolicyFile,
    source: Annotated[
        str, typer.Argument(help="NAMESPACE or NAMESPACE/SERVICE-ACCOUNT, or @public.")
    ],
    destination: Annotated[str, typer.Argument(help="Destination namespace.")],
    *,
    port: Annotated[
        int,
        typer.Option(
            min=1, max=65535, help="The pod's own port: Knative's queue-proxy has 8012 and 8013."
        ),
    ] = 8012,
    route: Annotated[
        str,
        typer.Option(help="@public: the owner of the gateway's route, else DESTINATION."),
    ] = "",
    service: Annotated[str, typer.Option(help="@public: the Service that is called.")] = "any",
    host: Annotated[str, typer.Option(help="@public: the Host that is called.")] = "",
    cluster: Cluster = False,
    as_json: AsJson = False,
) -> None:
    """Say whether SOURCE may call into DESTINATION, on each way there, and why.

    It asks the same function that the server asks, and names the row of the decision tables that
    answers, see `authz policy tables`. Exit code 1: some way is closed.
    """
    to = parse_namespace(destination)
    oracle = Oracle(load(file, cluster=cluster), now())
    if source == PUBLIC:
        by = parse_namespace(route) if route else to
        ways = _from_outside(oracle, to, port, _Route(service, by, host))
    else:
        ways = _within(oracle, _caller(oracle, source), to, port, service)
    rows = [{"way": way, **_verdict_row(verdict)} for way, verdict in ways.items()]
    show(rows, title=f"{source} to {destination}:{port}", as_json=as_json)
    if not all(row["allowed"] for row in rows):
        raise typer.Exit(1)


app.command(
    epilog="Example: authz policy matrix policy.yaml --html reach.html; "
    "authz policy matrix configmap:authz-system/tenant-authz-policy/policy.yaml --cluster"
)(policy_reach.matrix)
app.command(
    epilog="Example: authz policy diff old.yaml new.yaml --fail-on opens; "
    "authz policy diff configmap:authz-system/tenant-authz-policy/policy.yaml policy.yaml --cluster"
)(policy_reach.diff)
app.command(
    epilog="Example: authz policy prove policy.yaml --no-path globex tenant:acme; "
    "authz policy prove policy.yaml --no-path '*' acme-db --through --ignore-exemptions"
)(policy_prove.prove)
app.command("test", epilog="Example: authz policy test policy.yaml policy-cases.yaml --enforced")(
    policy_cases.run_cases
)


app.command(
    epilog="Example: authz policy schema > policy.json; "
    "authz policy schema settings > settings.json"
)(policy_schema.schema)


@app.command(epilog="Example: authz policy tables > tables.md")
def tables() -> None:
    """Print the decision tables of this version in Markdown: the first row that fits answers."""
    typer.echo(markdown(), nl=False)


def _caller(oracle: Oracle, source: str) -> SpiffeId:
    namespace, slash, account = source.partition("/")
    if slash and not is_service_account(account):
        raise BadSettings([f"SOURCE: {account!r} is not the name of a service account"])
    domain = min(oracle.policy.trust_domains)
    return SpiffeId.parse(
        f"spiffe://{domain}/ns/{parse_namespace(namespace)}/sa/{account or 'default'}"
    )


def _within(
    oracle: Oracle, caller: SpiffeId, to: Namespace, port: int, service: str
) -> dict[str, Verdict | None]:
    ways: dict[str, Verdict | None] = {"straight": oracle.straight(caller, to, port)}
    if oracle.has(Way.TOKEN):
        ways[_TRANSIT] = oracle.by_token(caller, to, port, service)
        ways[_EVENT] = oracle.by_event(caller, to)
    return ways


class _Route(NamedTuple):
    """How a request comes in from outside."""

    service: str
    owner: Namespace
    host: str


def _from_outside(
    oracle: Oracle, to: Namespace, port: int, route: _Route
) -> dict[str, Verdict | None]:
    ways: dict[str, Verdict | None] = {}
    if oracle.has(Way.OUTSIDE):
        service, owner, host = route
        ways[_ROUTE] = oracle.at_gateway(to, service, route_of=owner, host=host)
    if oracle.has(Way.TOKEN):
        ways[_TRANSIT] = oracle.at_pod(to, port, Role.TRANSIT)
    if oracle.has(Way.OUTSIDE):
        ways[_OUTSIDE] = oracle.at_pod(to, port, Role.GATEWAY)
    return ways or {_OUTSIDE: None}


def _verdict_row(verdict: Verdict | None) -> dict[str, object]:
    """What is decided, by which row of the decision table, and by which grant if by one.

    `kept` is whether a proxy may give the answer again by itself, where settings let it.
    """
    if verdict is None:
        because = "no account holds the role gateway, so nothing comes in from outside"
        return {"allowed": False, "because": because, "row": None, "grant": None, "kept": False}
    if isinstance(verdict, Deny):
        because, grant, kept = verdict.reason.sentence, None, False
    else:
        because, grant, kept = verdict.ground.value, verdict.grant, verdict.reuse > 0
        if verdict.would_deny is not None:
            because += f"; enforced, it would be denied: {verdict.would_deny.sentence}"
    return {
        "allowed": not isinstance(verdict, Deny),
        "because": because,
        "row": verdict.row,
        "grant": None if grant is None else str(grant),
        "kept": kept,
    }
