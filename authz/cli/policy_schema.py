"""`authz policy schema`: what an editor needs to know of the files that people write."""

from typing import Annotated

import typer

from authz.cli.output import print_json
from authz.reach import schemas
from authz.reach.schemas import Kind


def schema(
    of: Annotated[
        Kind, typer.Argument(metavar="[OF]", help="policy, cases, settings or tenants.")
    ] = Kind.POLICY,
) -> None:
    """Print the JSON Schema of a kind of file, for editors and other tools.

    An editor with YAML's language server checks a file and completes its fields as you write, if
    the first line is a comment `yaml-language-server: $schema=PATH`. The schema knows each field
    alone; the commands that read the file check fields together.
    """
    print_json(schemas.schema(of))
