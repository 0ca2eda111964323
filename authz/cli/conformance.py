"""`authz conformance`: are tenants kept apart on this cluster?"""

import asyncio
from importlib.metadata import version
from typing import Annotated

import typer

from authz import __version__
from authz.cli.output import AsJson, print_json, show
from authz.conformance import MATRIX, MUST, Driver, play
from authz.errors import BadSettings, to_install

app = typer.Typer(add_completion=False)
_IMAGE = f"registry.example/tenant-authz:{__version__}"


@app.command(epilog=f"Example: authz conformance --image {_IMAGE}")
def conformance(
    *,
    box: Annotated[
        bool, typer.Option("--box", help="On the mesh in a box on this machine; needs root.")
    ] = False,
    istiod: Annotated[
        bool,
        typer.Option("--istiod", help="With --box: a real istiod feeds its Envoys; needs Go."),
    ] = False,
    image: Annotated[
        str | None,
        typer.Option("--image", help="The tenants' image; it must have python3."),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="NAME=VALUE, for both namespaces, so that pods get sidecars."),
    ] = None,
    prepared: Annotated[
        bool,
        typer.Option("--prepared", help="The two namespaces are there, and stay."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make two throwaway tenants, play paths and attacks between them, and clean up.

    On the cluster that KUBECONFIG or our pod's service account names. It must have Istio and
    Knative, and the two namespaces must be enforced: by `default_mode`, by the policy, or by their
    label where the policy takes labels. They are tenant-authz-conformance-a and -b.

    Exit code 1: a call came out differently from what it must.
    """
    if (box or istiod) and (image or label or prepared):
        raise BadSettings(["--image, --label, --prepared: --box makes no pods: leave them out"])
    driver = (
        _box(istiod=istiod) if box or istiod else _kubernetes(image, label or [], prepared=prepared)
    )
    results = asyncio.run(play(driver, MATRIX))
    different = sum(not it.ok for it in results)
    rows = [
        {
            "": "ok" if result.ok else "DIFFERENT",
            "caller": result.case.call.caller,
            "call": result.case.name,
            "must_be": MUST[result.case.expected],
            "came": result.outcome,
        }
        for result in results
    ]
    if as_json:
        print_json({"calls": rows, "different": different})
    else:
        show(rows, title="Two tenants, and what came of each call", as_json=False)
        typer.echo(f"{len(rows)} calls, {different} different from what they must be")
    if different:
        raise typer.Exit(1)


def _kubernetes(image: str | None, labels: list[str], *, prepared: bool) -> Driver:
    try:
        from authz.conformance import kubernetes  # noqa: PLC0415 - needs its extra
    except ModuleNotFoundError as error:
        raise BadSettings(
            [f"there is no module {error.name}: {to_install('kubernetes')}"]
        ) from None
    pairs = [label.partition("=") for label in labels]
    if bad := [name for name, equals, _ in pairs if not (name and equals)]:
        raise BadSettings([f"--label: {bad[0]!r}: write NAME=VALUE"])
    chosen = {name: value for name, _, value in pairs} or {"istio-injection": "enabled"}
    site = kubernetes.Site(
        image or f"tenant-authz:{version('tenant-authz')}", chosen, prepared=prepared
    )
    return kubernetes.driver(site)


def _box(*, istiod: bool) -> Driver:
    try:
        from authz.lab.box import conformance as box  # noqa: PLC0415 - needs its extra
        from authz.lab.box.istio import network  # noqa: PLC0415

        if why := network.missing():
            raise BadSettings([f"--box: {why}"])
        if not istiod:
            return box.driver()
        from authz.lab.live import live  # noqa: PLC0415 - needs its extra
    except ModuleNotFoundError as error:
        raise BadSettings([f"there is no module {error.name}: {to_install('demo')}"]) from None
    return box.driver(source=live(tell=lambda line: typer.echo(line, err=True)))
