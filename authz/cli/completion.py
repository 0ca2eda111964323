"""`authz completion`: what a shell needs to complete commands and flags."""

from enum import StrEnum
from typing import Annotated, Final

import typer
from typer.completion import get_completion_script  # type: ignore[attr-defined]

app = typer.Typer(add_completion=False)
_VARIABLE: Final = "_AUTHZ_COMPLETE"


class Shell(StrEnum):
    """Shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@app.command(
    epilog="Examples: source <(authz completion bash); authz completion zsh > "
    '"${fpath[1]}/_authz"; authz completion fish > ~/.config/fish/completions/authz.fish'
)
def completion(shell: Annotated[Shell, typer.Argument(help="Your shell.")]) -> None:
    """Print a script that completes commands and flags in a shell."""
    script = get_completion_script(prog_name="authz", complete_var=_VARIABLE, shell=shell.value)
    typer.echo(script)
