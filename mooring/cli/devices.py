"""`mooring device` and `mooring token`: the fleet's members and their credentials."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mooring.cli.client import DEFAULT_URL, Api, TokenOption, UrlOption, call
from mooring.cli.output import Format, OutputOption, show, show_one

app = typer.Typer(help="Devices: list, add, show, delete, latest readings.", no_args_is_help=True)
tokens = typer.Typer(help="A device's tokens: list, add, revoke.", no_args_is_help=True)
COLUMNS = ("id", "status", "name", "profile", "firmware", "last_seen", "tags")


@app.command("list")
def list_devices(
    query: Annotated[str, typer.Option("-q", "--query", help="Part of an id or name")] = "",
    tag: Annotated[str, typer.Option(help="Only devices with this tag")] = "",
    status: Annotated[str, typer.Option(help="online, offline, stale, never_seen or disabled")] = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List devices."""

    async def work(api: Api) -> list[dict[str, Any]]:
        filters = {"q": query or None, "tag": tag or None, "status": status or None}
        return [device async for device in api.all("devices", limit=200, **filters)]

    show(call(url, token, work), COLUMNS, output, empty="No devices match. Add one with `mooring device add ID`.")


@app.command()
def add(
    device_id: str,
    name: Annotated[str | None, typer.Option(help="A name for people")] = None,
    profile: Annotated[str | None, typer.Option(help="Kind of device")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Add a device and print its token, which is shown this once."""
    body = {"id": device_id, "name": name, "profile": profile, "tags": tag or []}
    device = call(url, token, lambda api: api.post("devices", {k: v for k, v in body.items() if v is not None}))
    print(device["credentials"]["token"])  # noqa: T201


@app.command("show")
def show_device(
    device_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE
) -> None:
    """Show one device."""
    show_one(call(url, token, lambda api: api.get(f"devices/{device_id}")), output)


@app.command()
def latest(
    device_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE
) -> None:
    """Show the newest reading of each metric."""
    values = call(url, token, lambda api: api.get(f"devices/{device_id}/latest"))
    rows = [{"metric": metric, **reading} for metric, reading in values.items()]
    show(rows, ("metric", "value", "ts"), output, empty=f"{device_id} has not sent anything yet.")


@app.command()
def delete(
    device_id: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Delete a device with its readings, credentials and history."""
    if not yes:
        typer.confirm(f"Delete {device_id} and everything it ever sent?", abort=True)
    call(url, token, lambda api: api.delete(f"devices/{device_id}"))
    typer.echo(f"deleted {device_id}", err=True)


@tokens.command("list")
def list_tokens(
    device_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE
) -> None:
    """List a device's credentials (never their secrets)."""
    found = call(url, token, lambda api: api.get(f"devices/{device_id}/credentials"))
    show(
        found["items"], ("id", "type", "name", "hint", "created_at", "expires_at", "last_used_at", "revoked_at"), output
    )


@tokens.command("add")
def add_token(
    device_id: str,
    name: Annotated[str, typer.Option(help="What people call it")] = "",
    expires: Annotated[str, typer.Option(help="When it ends: 2027-01-31T12:00:00Z")] = "",
    public_key: Annotated[
        Path | None, typer.Option(help="A PEM or JWK file: the key that its JWTs are signed with")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="A PEM file: the device's own client certificate")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Give a device another credential: a token, printed this once, the public key of its JWTs, or a certificate."""
    wanted: dict[str, str] = {"name": name}
    if expires:
        wanted["expires_at"] = expires
    if public_key is not None and certificate is not None:
        raise typer.BadParameter("--public-key and --certificate are credentials of two types: add one at a time")
    if public_key is not None:
        wanted |= {"type": "jwt", "public_key": _text_of(public_key)}
    if certificate is not None:
        wanted |= {"type": "x509", "certificate": _text_of(certificate)}
    made = call(url, token, lambda api: api.post(f"devices/{device_id}/credentials", wanted))
    print(made["token"] or made["id"])  # noqa: T201


@tokens.command()
def revoke(device_id: str, credential_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "") -> None:
    """Revoke a token; a live connection made with it drops at once."""
    call(url, token, lambda api: api.delete(f"devices/{device_id}/credentials/{credential_id}"))
    typer.echo(f"revoked {credential_id}", err=True)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error
