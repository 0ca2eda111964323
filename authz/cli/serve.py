"""`authz serve`: the service itself."""

import sys

import typer

from authz.cli.settings import takes
from authz.config import Settings
from authz.server import run
from authz.server.workers import supervise

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: authz serve --config /etc/tenant-authz/settings.yaml")
@takes(Settings)
def serve(settings: Settings) -> None:
    """Answer Envoys' questions until SIGTERM or Ctrl-C, then drain.

    Every setting has one name: NAME in the settings file, AUTHZ_NAME in the environment, --name
    here. The log goes to standard output as JSON lines.
    """
    if settings.workers == 1:
        run(settings)
    else:
        # In isolation from the current folder: the modules are where ours are.
        raise typer.Exit(supervise(settings, [sys.executable, "-P", "-m", "authz.cli.worker"]))
