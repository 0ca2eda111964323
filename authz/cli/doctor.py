"""`authz doctor`: is what keeps tenants apart in force in each proxy?"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from authz.cli.output import AsJson, print_json, progress, show, write
from authz.cli.policy_files import now
from authz.cli.settings import namespaces
from authz.doctor import (
    Accepted,
    CannotRead,
    Expected,
    Finding,
    Report,
    Rule,
    from_places,
    overview,
    read_documents,
    read_pods,
    uncovered,
)
from authz.domain.reason import Reason
from authz.envoyfilters import shipped
from authz.errors import BadSettings, NoEvidence, to_install
from authz.report.scrape import scrape
from authz.yamlfile import read_input

_REUSE: Final = "reuse"
_KEEPS: Final = "tenant-authz.reuse"
app = typer.Typer(add_completion=False)
_LONGEST: Final = 512 << 20  # bytes of a list of pods


@app.command(
    epilog="Examples: authz doctor --cluster --html mesh.html; authz doctor dumps/ --pods pods.json"
)
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
        bool, typer.Option("--cluster", help="Examine every proxy of KUBECONFIG's cluster, too.")
    ] = False,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", callback=namespaces, help="With --cluster: these namespaces only."
        ),
    ] = None,
    pods: Annotated[
        Path | None,
        typer.Option("--pods", help="`kubectl get pods -A -o json`: to find pods without a proxy."),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", help="The URL of a server's /metrics; give every server's."),
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
        typer.Option(
            "--plaintext", callback=namespaces, help="Namespaces that take plaintext on purpose."
        ),
    ] = None,
    root_namespace: Annotated[
        str,
        typer.Option("--root-namespace", callback=namespaces, help="Istio's root namespace."),
    ] = "istio-system",
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept", help="RULE or RULE:NAMESPACE/POD, with *: leave these findings out."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page there, too: the mesh at a glance.")
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
    known = [_accepted(it) for it in accept or ()]
    expected = Expected(
        read_documents(filters) if filters else shipped(overlay),
        plaintext=["knative-serving"] if plaintext is None else plaintext,
        root_namespace=root_namespace,
    )
    report = Report()
    for source in from_places(dumps or (), sys.stdin):
        report.look(source, expected)
    if cluster:
        _of_cluster(report, expected, namespace or ())
    report.findings += _from_pods(pods) if pods else ()
    report.findings += _counted(metrics or [], report.unreadable)
    report.without(known)
    if overlay != _REUSE and any(_KEEPS in finding.what for finding in report.findings):
        report.notes.append("the filters of components/reuse are there: give --overlay reuse")
    if html is not None:
        write(html, overview(report, now()), "--html")
    if as_json:
        print_json(report.row())
    else:
        _show(report)
    for text in report.unreadable:
        typer.secho(text, fg=typer.colors.RED, err=True)
    if report.findings or report.unreadable:
        raise typer.Exit(1 if report.findings else 3)
    if (dumps or cluster) and not report.proxies:
        problem = (
            "no proxy was examined: nothing is known of the mesh. Look at --namespace, and whether "
            "its pods have sidecars"
        )
        raise NoEvidence([problem])


def _of_cluster(report: Report, expected: Expected, namespaces: Sequence[str]) -> None:
    try:
        from authz.doctor import survey  # noqa: PLC0415 - an extra
    except ImportError as error:
        problem = (
            f"--cluster: it needs more packages, {error.name} is missing: "
            f"{to_install('kubernetes')}"
        )
        raise BadSettings([problem]) from None
    with progress("proxies examined") as tell:
        survey.look(report, expected, namespaces, tell)


def _from_pods(file: Path) -> Iterator[Finding]:
    try:
        text = read_input(file, _LONGEST).decode("utf-8", "replace")
    except OSError as error:
        raise CannotRead(f"--pods: {file}: {error.strerror}") from None
    source = f"--pods: {file}"
    found = read_pods(text, source)
    if not found:
        raise NoEvidence([f"{source}: no pod in it runs: give the pods of a cluster in use"])
    return uncovered(found)


def _counted(urls: list[str], unreadable: list[str]) -> Iterator[Finding]:
    """What servers tell together: with one on each node, none of them sees all of a namespace."""
    counted = scrape(urls)
    if counted.undecided:
        names = ", ".join(sorted(counted.undecided))
        unreadable.append(
            f"--metrics: cannot tell whether {names} verify: one server saw them sign, and another "
            "does not list who verified (authz_namespace_verified). Upgrade the servers"
        )
    for namespace in sorted(counted.unprotected):
        what = f"it signs and never verifies, by what {len(urls)} server(s) saw"
        yield Finding(namespace, "namespace", what, Rule.NEVER_VERIFIES)
    for (question, _, reason), count in sorted(counted.checks.items()):
        if reason == Reason.UPSTREAM_UNREADABLE.slug:
            what = f"{count} upstreams were no cluster names of istiod's"
            yield Finding("any", f"question {question}", what, Rule.UPSTREAM_UNREADABLE)


def _accepted(text: str) -> Accepted:
    word, _, workload = text.partition(":")
    for rule in Rule:
        if rule.value == word:
            return Accepted(rule, workload or "*")
    raise BadSettings([f"--accept: unknown rule {word!r}: use the name of a rule from the report"])


def _show(report: Report) -> None:
    holes: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for it in report.findings:
        holes[it.rule.value, it.where, it.what].append(it.workload)
    if holes:
        rows = [
            {"rule": rule, "workloads": _several(names), "where": where, "what": what}
            for (rule, where, what), names in holes.items()
        ]
        show(rows, title="Holes", as_json=False)
        rules = sorted({finding.rule for finding in report.findings}, key=lambda rule: rule.value)
        advice = [{"rule": it.value, "why": it.why, "mend": it.mend} for it in rules]
        show(advice, title="Why it matters, and how to mend it", as_json=False)
    for name, why in sorted(report.skipped.items()):
        typer.echo(f"not examined: {name}: {why}")
    for text in report.notes:
        typer.echo(f"note: {text}")
    for what, counts in (("Istio", report.versions), ("revision", report.revisions)):
        for name, count in counts.items():
            typer.echo(f"{what} {name}: {count} proxies")
    typer.echo(f"{len(report.proxies)} proxies examined, {len(report.findings)} findings")


def _several(names: list[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
