"""`authz doctor`: is what keeps tenants apart in force in each proxy?"""

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import typer

from authz.cli.output import AsJson, print_json, show
from authz.doctor import (
    CannotRead,
    Expected,
    Finding,
    Rule,
    examine,
    from_cluster,
    from_places,
    mesh_mode,
    read_documents,
    read_dump,
    read_pods,
    without_proxy,
)
from authz.doctor.collect import Source
from authz.domain.reason import Reason
from authz.envoyfilters import shipped
from authz.errors import BadSettings, NoEvidence
from authz.report.scrape import scrape

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: authz doctor dumps/ --pods pods.json")
def doctor(
    dumps: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DUMP...",
            help="Envoy's config_dump: files, folders, - for standard input, URLs of admin ports.",
        ),
    ] = None,
    *,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Ask every proxy that kubectl finds, too.")
    ] = False,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", help="With --cluster: only of these.")
    ] = None,
    pods: Annotated[
        Path | None,
        typer.Option("--pods", help="`kubectl get pods -A -o json`: to find pods without a proxy."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", help="A server's /metrics; once for each server, all of them."),
    ] = None,
    overlay: Annotated[
        str, typer.Option("--overlay", help="Which of the shipped overlays is installed.")
    ] = "enforce",
    filters: Annotated[
        Path | None,
        typer.Option("--filters", help="What `kubectl kustomize` printed, if you changed values."),
    ] = None,
    plaintext: Annotated[
        list[str] | None,
        typer.Option("--plaintext", help="Namespaces that take plaintext on purpose."),
    ] = None,
    root_namespace: Annotated[
        str, typer.Option("--root-namespace", help="Istio's root namespace.")
    ] = "istio-system",
    accept: Annotated[
        list[str] | None,
        typer.Option("--accept", help="RULE or RULE:NAMESPACE/POD, with *: known, not told."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for holes in what the proxies have in force, and say how to mend them.

    Each proxy's configuration is compared with what istiod would make of it with the filters that
    ship: whether they are there, in the right place and order on every listener and chain, with
    the right fields; whether the way to the service is mutual TLS with it and nobody else; which
    ports are not captured or take plaintext. Envoy blackens private keys in its dumps.

    A dump for each pod, without --cluster:
    kubectl -n NS exec POD -c istio-proxy -- pilot-agent request GET config_dump > NS.POD.json

    Exit code 1: there is a hole. 3: a dump cannot be read, and the others are sound; or
    there was none, and no pod.
    """
    if not (dumps or cluster or pods or metrics):
        raise BadSettings(["DUMP: give dumps, --cluster, --pods FILE or --metrics URL"])
    ignored = [_accepted(it) for it in accept or ()]
    expected = Expected(
        read_documents(filters) if filters else shipped(overlay),
        plaintext=["knative-serving"] if plaintext is None else plaintext,
        root_namespace=root_namespace,
        mesh_mode=mesh_mode() if cluster else "",
    )
    listed, proxies = from_cluster(namespace or ()) if cluster else ("", iter(()))
    examined: list[str] = []
    unreadable: list[str] = []
    found = [
        *_examined((*from_places(dumps or (), sys.stdin),), expected, examined, unreadable),
        *_examined(proxies, expected, examined, unreadable),
        *(without_proxy(listed, "kubectl") if cluster else ()),
        *(_from_pods(pods) if pods else ()),
        *_counted(metrics or [], unreadable),
    ]
    told = [it for it in found if not any(_fits(it, one) for one in ignored)]
    told.sort(key=lambda it: (it.workload, it.where, it.what))
    if as_json:
        rows = [it.row() for it in told]
        print_json({"examined": examined, "unreadable": unreadable, "findings": rows})
    else:
        _show(told, examined)
    for text in unreadable:
        typer.secho(text, fg=typer.colors.RED, err=True)
    if told or unreadable:
        raise typer.Exit(1 if told else 3)
    if (dumps or cluster) and not examined:
        problem = (
            "no proxy was examined: nothing is known of the mesh. Look at --namespace, and whether "
            "its pods have sidecars"
        )
        raise NoEvidence([problem])


def _examined(
    sources: Iterable[Source], expected: Expected, examined: list[str], unreadable: list[str]
) -> Iterator[Finding]:
    for source in sources:
        try:
            workload = read_dump(source.read(), source.name)
            yield from examine(workload, expected)
            examined.append(workload.name)
        except CannotRead as error:
            unreadable.append(str(error))


def _from_pods(file: Path) -> Iterator[Finding]:
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise CannotRead(f"--pods: {file}: {error.strerror}") from None
    source = f"--pods: {file}"
    if not read_pods(text, source):
        raise NoEvidence([f"{source}: no pod in it runs: give the pods of a cluster in use"])
    return without_proxy(text, source)


def _counted(urls: list[str], unreadable: list[str]) -> Iterator[Finding]:
    """What servers tell together: with one on each node, none of them sees all of a namespace."""
    counted = scrape(urls)
    if counted.undecided:
        names = ", ".join(sorted(counted.undecided))
        unreadable.append(
            f"--metrics: cannot tell whether {names} verifies: one server saw it sign, and another "
            "does not list whom it saw verify (authz_namespace_verified). Upgrade the servers"
        )
    for namespace in sorted(counted.unprotected):
        what = f"it signs and never verifies, by what {len(urls)} server(s) saw"
        yield Finding(namespace, "namespace", what, Rule.NEVER_VERIFIES)
    for (question, _, reason), count in sorted(counted.checks.items()):
        if reason == Reason.UPSTREAM_UNREADABLE.slug:
            what = f"{count} upstreams were no cluster names of istiod's"
            yield Finding("any", f"question {question}", what, Rule.UPSTREAM_UNREADABLE)


def _accepted(text: str) -> tuple[Rule, str]:
    word, _, workload = text.partition(":")
    for rule in Rule:
        if rule.value == word:
            return rule, workload or "*"
    raise BadSettings([f"--accept: unknown rule {word!r}: use the name of a rule from the report"])


def _fits(finding: Finding, ignored: tuple[Rule, str]) -> bool:
    return finding.rule is ignored[0] and fnmatchcase(finding.workload, ignored[1])


def _show(found: list[Finding], examined: list[str]) -> None:
    holes: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for it in found:
        holes[it.rule.value, it.where, it.what].append(it.workload)
    if holes:
        rows = [
            {"rule": rule, "workloads": _several(names), "where": where, "what": what}
            for (rule, where, what), names in holes.items()
        ]
        show(rows, title="Holes", as_json=False)
        rules = sorted({it.rule for it in found}, key=lambda rule: rule.value)
        advice = [{"rule": it.value, "why": it.why, "mend": it.mend} for it in rules]
        show(advice, title="Why it matters, and how to mend it", as_json=False)
    typer.echo(f"{len(examined)} proxies examined, {len(found)} findings")


def _several(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
