"""`authz report`: may this namespace be enforced, and what would it take?"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from authz.cli.output import AsJson, print_json, show
from authz.errors import BadSettings, NoEvidence
from authz.policysource.file import read_policy
from authz.report.scrape import Counted, scrape
from authz.report.shadow import Log, Readiness, as_policy
from authz.yamlfile import chunks_of

_LONGEST_LINE: Final = 1 << 20  # bytes

app = typer.Typer(add_completion=False)


@app.command(
    epilog="Example: kubectl -n authz-system logs -c authz --tail=-1 --prefix "
    "-l app.kubernetes.io/name=tenant-authz,app.kubernetes.io/component=server "
    "| authz report - --policy policy.yaml"
)
def report(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="LOG...", help="Decision logs, JSON lines; - is standard input."),
    ] = None,
    *,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", help="The URL of a server's /metrics; once for each server."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="The servers' policy: its roles, and who is in shadow mode."),
    ] = None,
    grants: Annotated[
        Path | None, typer.Option("--grants", help="Write the proposed grants there, YAML.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say of each destination namespace whether it can be enforced, and who would be denied.

    From the decision log come the callers, and the grants that would let them in, as YAML to
    review. An invalid token never leads to a grant: it is an attack or a fault. From /metrics come
    the totals, and the namespaces that never verify, where enforcing protects nothing. A log has
    only those who called: let it cover the rarest caller, such as a month's end.

    Lines may stand in the envelope of a container runtime or log store.

    Exit code 1: something is left to do before all of them can be enforced. Exit code 3: there is
    no evidence, since no line is a server's, too many cannot be read, or nothing was counted.
    """
    if not files and not metrics:
        raise BadSettings(["LOG: give a decision log (- for standard input), or --metrics URL"])
    log = Log(read_policy(policy) if policy else None)
    for file in files or []:
        _read(log, file)
    counted = scrape(metrics or [])
    proposed = as_policy(log)
    if grants is not None:
        try:
            grants.write_text(proposed, "utf-8")
        except OSError as error:
            raise BadSettings([f"--grants: {grants}: {error.strerror}"]) from None
    found = _found(log, counted)
    if as_json:
        print_json(found | {"policy": proposed})
    else:
        _show(found)
        if log.grants() and grants is None:
            typer.echo(proposed, nl=False)
    missing = _missing(log, counted, of_log=bool(files))
    if missing:
        raise NoEvidence(missing)
    if any(
        row["verdict"] not in {Readiness.SAFE, Readiness.ENFORCED} for row in found["namespaces"]
    ):
        raise typer.Exit(1)


def _missing(log: Log, counted: Counted, *, of_log: bool) -> list[str]:
    """Why what was read says nothing, if so."""
    if of_log and not log.is_evidence:
        problem = (
            f"LOG: {log.ours} of {log.lines} lines are a server's: no conclusion is drawn from "
            "that. A server's lines are JSON with `event` and `timestamp`; select its container "
            "(-c authz), and see that the log is not empty"
        )
        return [problem]
    if not of_log and not counted.checks:
        return ["--metrics: the servers have answered no Check yet: ask them later, or give a log"]
    return []


def _read(log: Log, file: Path) -> None:
    if str(file) == "-":
        log.read(sys.stdin)
        return
    try:
        log.read(_lines(file))
    except OSError as error:
        raise BadSettings([f"LOG: {file}: {error.strerror}"]) from None


def _lines(file: Path) -> Iterator[str]:
    """Those of a log of any length. What is longer than a line may be comes in pieces."""
    held = b""
    for part in chunks_of(file):
        *whole, held = (held + part).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace")
        if len(held) > _LONGEST_LINE:
            yield held.decode("utf-8", "replace")
            held = b""
    yield held.decode("utf-8", "replace")


def _found(log: Log, counted: Counted) -> dict[str, Any]:
    names = sorted({*log.namespaces(), *counted.unprotected, *counted.undecided})
    return {
        "log": {
            "lines": log.lines,
            "unreadable": log.unreadable,
            "left_out": sum(log.left_out.values()),
            "first": log.first or None,
            "last": log.last or None,
        },
        "namespaces": [_namespace(log, name, counted) for name in names],
        "callers": [
            {
                "to": caller.to,
                "from": caller.source,
                "service_account": caller.service_account,
                "reason": caller.reason.slug,
                "would_deny": seen.times_shadowed,
                "denied": seen.times_denied,
                "first": seen.first or None,
                "last": seen.last or None,
                "grant": log.grant(caller),
                "what_to_do": log.advice(caller),
            }
            for name in log.namespaces()
            for caller, seen in log.of(name)
        ],
        "checks": [
            {"question": question, "outcome": outcome, "reason": reason, "count": count}
            for (question, outcome, reason), count in sorted(counted.checks.items())
            if outcome != "allow"
        ],
    }


def _namespace(log: Log, name: Any, counted: Counted) -> dict[str, Any]:
    seen = [one for _, one in log.of(name)]
    return {
        "namespace": name,
        "verdict": log.readiness(name, counted.unprotected, counted.undecided).value,
        "would_deny": sum(one.times_shadowed for one in seen),
        "denied": sum(one.times_denied for one in seen),
        "at_least": log.incomplete(name),
    }


def _show(found: dict[str, Any]) -> None:
    read = found["log"]
    if read["lines"]:
        typer.echo(
            f"{read['lines']} lines, {read['first'] or '?'} to {read['last'] or '?'}; "
            f"{read['unreadable']} unreadable, {read['left_out']} left out by the log's limit"
        )
    show(found["namespaces"], title="Can it be enforced?", as_json=False)
    if found["callers"]:
        rows = [
            {name: value for name, value in row.items() if name != "grant"}
            for row in found["callers"]
        ]
        show(rows, title="Who was, or would be, denied", as_json=False)
    if found["checks"]:
        show(found["checks"], title="Counted by the servers", as_json=False)
