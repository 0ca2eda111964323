"""`authz policy test`: a policy against the cases beside it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from authz.cli.output import AsJson, print_json, show
from authz.cli.policy_files import Cluster, Enforced, PolicyFile, load, now
from authz.reach.cases import read_cases
from authz.reach.played import Answer, Played, play


def run_cases(
    file: PolicyFile,
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="The file of cases, YAML.")],
    *,
    cluster: Cluster = False,
    enforced: Enforced = False,
    as_json: AsJson = False,
) -> None:
    """Try a policy on cases: who calls whom, and whether that must get in.

    A case holds if every request that fits it is decided as it expects. What a case leaves out can
    be anything: without `port` it is about every port, without `way` about every way that `matrix`
    names.

    Exit code 1: a case does not hold. Exit code 2: the file of cases is bad.
    """
    expected = read_cases(cases)
    policy = load(file, cluster=cluster, enforced=enforced)
    played = list(play(policy, expected, now()))
    failed = [it for it in played if it.wrong()]
    if as_json:
        print_json({"ok": not failed, "cases": [_as_json(it) for it in played]})
    else:
        title = f"{len(played) - len(failed)} of {len(played)} cases hold"
        show([_row(it) for it in played], title=title, as_json=False)
    if failed:
        raise typer.Exit(1)


def _row(played: Played) -> dict[str, object]:
    wrong = played.wrong()
    shown = wrong[0] if wrong else played.answers[0]
    return {
        "line": played.line,
        "case": played.name,
        "": "FAILS" if wrong else "ok",
        "expected": _expected(played),
        "decided": "allow" if shown.allowed else "deny",
        "on": _request(shown),
        "row": shown.row,
        "because": shown.sentence,
    }


def _expected(played: Played) -> str:
    case = played.case
    return ", ".join(filter(None, (case.expect, case.row, case.reason)))


def _request(answer: Answer) -> str:
    request = answer.request
    parts = {
        "": request.way.value,
        "account ": request.account,
        "port ": request.port,
        "service ": request.service,
    }
    return ", ".join(f"{name}{value}" for name, value in parts.items() if value is not None)


def _as_json(played: Played) -> dict[str, Any]:
    wrong = played.wrong()
    return {
        "name": played.name,
        "line": played.line,
        "expected": played.case.model_dump(mode="json", by_alias=True, exclude_none=True),
        "ok": not wrong,
        "requests": [_asked(answer, ok=answer not in wrong) for answer in played.answers],
    }


def _asked(answer: Answer, *, ok: bool) -> dict[str, Any]:
    request = answer.request
    return {
        "way": request.way.value,
        "service_account": request.account,
        "port": request.port,
        "service": request.service,
        "allowed": answer.allowed,
        "row": answer.row,
        "reason": answer.reason,
        "because": answer.sentence,
        "ok": ok,
    }
