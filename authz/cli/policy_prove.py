"""`authz policy prove`: no path, or the path."""

from typing import Annotated, Any

import typer

from authz.cli.output import AsJson, print_json, show
from authz.cli.policy_files import Cluster, Enforced, PolicyFile, load, now
from authz.reach.proof import Paths, Step
from authz.reach.ways import Way
from authz.reach.words import as_columns, day, plain


def prove(
    file: PolicyFile,
    *,
    no_path: Annotated[
        tuple[str, str],
        typer.Option(
            "--no-path",
            metavar="FROM TO",
            help="Each: NAMESPACE, NAMESPACE/SERVICE-ACCOUNT, tenant:NAME, or '*' for all of "
            "other tenants. FROM may be @public, the outside world.",
        ),
    ],
    through: Annotated[
        bool, typer.Option("--through", help="Look for paths through other namespaces, too.")
    ] = False,
    ignore_exemptions: Annotated[
        bool, typer.Option("--ignore-exemptions", help="Do not count what exemptions open.")
    ] = False,
    cluster: Cluster = False,
    enforced: Enforced = False,
    as_json: AsJson = False,
) -> None:
    """Prove that no request from FROM gets into TO, or show one that does.

    A path is one request, by any way. With `--through` it is a chain of them, where a workload in
    between calls on for its caller: no policy can prevent that. A call to a public name comes from
    @public, whoever makes it.

    Exit code 1: there is a path. Exit code 2: FROM or TO is no end of a path.
    """
    policy = load(file, cluster=cluster, enforced=enforced)
    ways = set(Way) - ({Way.EXEMPTION} if ignore_exemptions else set())
    path = Paths(policy, now(), no_path, ways).shortest(through=through)
    start, goal = no_path
    if as_json:
        print_json({"proven": path is None, "path": [_step(it) for it in path or ()]})
    elif path is None:
        typer.echo(f"proven: no path from {start} to {goal}")
    else:
        steps = [{"from": it.source, "to": it.to, **as_columns(it.line), **_why(it)} for it in path]
        show(steps, title=f"A path from {start} to {goal}", as_json=False)
    if path is not None:
        raise typer.Exit(1)


def _why(step: Step) -> dict[str, Any]:
    return {"until": day(step.line.value.until), "because": step.line.value.because}


def _step(step: Step) -> dict[str, Any]:
    return {"from": step.source, "to": step.to, **plain(step.line), **_why(step)}
