"""`mooring command`: tell a device to do something, and see what became of it."""

import json
from typing import Annotated, Any

import typer

from mooring.cli.client import DEFAULT_URL, Api, ApiError, TokenOption, UrlOption, call
from mooring.cli.output import Format, OutputOption, show, show_one

app = typer.Typer(help="Commands: send one, list a device's, cancel.", no_args_is_help=True)
COLUMNS = ("id", "name", "status", "waiting_for", "progress", "created_at", "finished_at", "error")


@app.command()
def send(
    device_id: str,
    name: str,
    params: Annotated[str, typer.Option(help="Parameters as a JSON object")] = "{}",
    ttl: Annotated[
        int | None,
        typer.Option(help="Seconds until it expires unanswered; else as the device's profile says, or an hour"),
    ] = None,
    wait: Annotated[int, typer.Option(help="Seconds to wait for the result")] = 10,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Send a command and wait a little for its result; exit code 1 when it did not succeed."""
    try:
        parsed = json.loads(params)
    except ValueError as error:
        raise ApiError(f"--params is not JSON: {error}", exit_code=2) from error
    body = {"name": name, "params": parsed} | ({} if ttl is None else {"ttl": ttl})
    command = call(url, token, lambda api: api.post(f"devices/{device_id}/commands?wait={wait}", body))
    show_one(command, output)
    if command["status"] in ("failed", "rejected", "expired", "cancelled"):
        raise typer.Exit(1)


@app.command("list")
def list_commands(
    device_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE
) -> None:
    """List a device's commands, newest first."""

    async def work(api: Api) -> list[dict[str, Any]]:
        return [command async for command in api.all(f"devices/{device_id}/commands")]

    show(call(url, token, work), COLUMNS, output, empty=f"{device_id} was never sent a command.")


@app.command()
def cancel(command_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "") -> None:
    """Cancel a command that has not finished."""
    command = call(url, token, lambda api: api.post(f"commands/{command_id}/cancel"))
    typer.echo(f"{command_id} is {command['status']}", err=True)
