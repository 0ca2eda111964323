"""`authz demo`: tenants kept apart, to look at."""

from typing import Annotated

import typer

from authz.errors import AuthzError, to_install

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: authz demo --once --json")
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Play the matrix once; exit 1 on any difference.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    knative: Annotated[
        bool,
        typer.Option("--knative", help="In a mesh in a box, with Knative, every path; needs root."),
    ] = False,
    istiod: Annotated[
        bool,
        typer.Option("--istiod", help="With --knative: a real istiod feeds the Envoys; needs Go."),
    ] = False,
    reuse: Annotated[
        bool, typer.Option("--reuse", help="With --knative: sidecars give answers again.")
    ] = False,
) -> None:
    """See tenants kept apart by real Envoys on this machine, without a cluster, Docker or root."""
    try:
        from authz.lab import demo as playing  # noqa: PLC0415 - the image does not hold it
    except ModuleNotFoundError:
        raise AuthzError(
            "authz demo: the service's image does not hold the demo: install it in a virtual "
            f"environment, {to_install('demo')}"
        ) from None
    raise typer.Exit(
        playing.run(once=once, json=as_json, knative=knative, istiod=istiod, reuse=reuse)
    )
