"""`authz manifests`: what ships, as `kubectl apply` takes it."""

from typing import Annotated

import typer

from authz import manifests as shipped
from authz.cli.output import AsJson, print_json, show

app = typer.Typer(add_completion=False)

_EXAMPLES = (
    "Example: authz manifests; "
    "authz manifests base --image registry.example/tenant-authz:1 | kubectl apply -f -"
)


@app.command(epilog=_EXAMPLES)
def manifests(
    name: Annotated[
        str | None, typer.Argument(help="Which manifests; without a name, list them.")
    ] = None,
    *,
    image: Annotated[
        str | None, typer.Option("--image", help="The service's image in your registry.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the objects that ship with this version.

    They are what `kubectl kustomize` makes of the folders of deploy/ and envoyfilters/, without a
    clone and without kustomize. To change more than the image, use the folders.
    """
    if name is None:
        rows = [{"name": it, "made_from": folder} for it, folder in shipped.names().items()]
        show(rows, title="Manifests", as_json=as_json)
    elif as_json:
        print_json(shipped.objects(name, image or ""))
    else:
        typer.echo(shipped.text(name, image or ""), nl=False)
