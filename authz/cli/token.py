"""`authz token`: make and examine tokens by hand, to find out why a request was denied."""

import asyncio
import sys
import time
from typing import Annotated

import typer

from authz.cli.output import AsJson, moment, print_json, show
from authz.cli.settings import takes
from authz.config import KeySettings
from authz.domain import tokens
from authz.domain.identity import is_service_account
from authz.domain.keys import Keyring
from authz.domain.names import PUBLIC, parse_namespace
from authz.domain.reason import InvalidToken, Reason
from authz.errors import BadSettings
from authz.keystore import configured_store

app = typer.Typer(
    help="Make and examine tokens by hand. Tokens are read from standard input: what is in a "
    "command line is in everybody's process list.",
    no_args_is_help=True,
    add_completion=False,
)
_now = time.time  # noqa: TID251 - the command line is where time enters


@app.command(epilog="Example: authz token mint shop payments | authz token inspect")
@takes(KeySettings)
def mint(
    source: Annotated[str, typer.Argument(help="Source namespace, or @public.")],
    destination: Annotated[str, typer.Argument(help="Destination namespace.")],
    *,
    service_account: Annotated[
        str, typer.Option(help="The source's service account; @public has none.")
    ] = "default",
    settings: KeySettings,
) -> None:
    """Print a token from SOURCE to DESTINATION. Somebody who can do this can act as any tenant."""
    public = source == PUBLIC
    if not is_service_account(service_account):
        raise BadSettings([f"--service-account: {service_account!r} is not a service account"])
    token = tokens.mint(
        source=PUBLIC if public else parse_namespace(source),
        service_account="" if public else service_account,
        destination=parse_namespace(destination),
        keyring=_keyring(settings),
        now=_now(),
        life=settings.token_life,
    )
    typer.echo(token)


@app.command(epilog="Example: authz token verify --destination payments < token.txt")
@takes(KeySettings)
def verify(
    *,
    destination: Annotated[
        str | None, typer.Option(help="Also check that it is for this namespace.")
    ] = None,
    as_json: AsJson = False,
    settings: KeySettings,
) -> None:
    """Check a token from standard input against the keyring. Exit code 1: it does not count."""
    keyring = _keyring(settings)
    try:
        received = _received()
        tokens.verify(received, keyring=keyring, now=_now(), life=settings.token_life)
    except InvalidToken as error:
        raise _not_valid(error.reason, as_json) from None
    if destination is not None and destination != received.claims.destination:
        raise _not_valid(Reason.MEANT_FOR_ANOTHER_NAMESPACE, as_json)
    if as_json:
        print_json({"valid": True, "expires_at": moment(received.claims.expires_at)})
    else:
        typer.echo(f"valid until {moment(received.claims.expires_at)}")


@app.command(epilog="Example: authz token inspect < token.txt")
def inspect(*, as_json: AsJson = False) -> None:
    """Show what a token from standard input says. Nothing is checked, no key is needed."""
    try:
        received = _received()
    except InvalidToken as error:
        raise _not_valid(error.reason, as_json) from None
    claims = received.claims
    row = {
        "source": claims.source,
        "service_account": claims.service_account,
        "destination": claims.destination,
        "issued_at": moment(claims.issued_at),
        "expires_at": moment(claims.expires_at),
        "key_id": str(received.key),
        "verified": False,
    }
    if as_json:
        print_json(row)
    else:
        rows = [{"claim": name.replace("_", " "), "value": value} for name, value in row.items()]
        show(rows, title="What it says, unverified", as_json=False)


def _keyring(settings: KeySettings) -> Keyring:
    async def load() -> Keyring:
        store = configured_store(settings)
        try:
            return (await store.load()).keyring
        finally:
            await store.close()

    return asyncio.run(load())


def _received() -> tokens.ReceivedToken:
    if sys.stdin is None:
        raise BadSettings(["standard input is closed: give the token there, as in the example"])
    return tokens.parse(sys.stdin.readline(tokens.MAX_LENGTH + 2).strip())


def _not_valid(reason: Reason, as_json: bool) -> typer.Exit:
    if as_json:
        print_json({"valid": False, "because": reason.sentence})
    else:
        typer.echo(f"not valid: {reason.sentence}")
    return typer.Exit(1)
