"""`mooring dead-letters`: messages that were refused; look at them, try them again, forget them."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mooring.cli.client import DEFAULT_URL, Api, ApiError, TokenOption, UrlOption, call
from mooring.cli.output import Format, OutputOption, show, show_one

app = typer.Typer(help="Refused messages: list, show, replay, delete.", no_args_is_help=True)
COLUMNS = ("id", "received_at", "device", "channel", "reason", "detail", "size", "replays")
_POLL_S = 0.5

DeviceOption = Annotated[str, typer.Option("--device", help="Only of this device")]
ReasonOption = Annotated[str, typer.Option(help="Only with this reason, such as invalid_json")]
SinceOption = Annotated[str, typer.Option(help="Received at this time or later: 2026-11-20T12:00:00Z")]
UntilOption = Annotated[str, typer.Option(help="Received before this time")]
IdsArgument = Annotated[list[int] | None, typer.Argument(help="Ids, as `list` shows them")]
AllOption = Annotated[bool, typer.Option("--all", help="All that there are")]


@app.command("list")
def list_letters(
    device: DeviceOption = "",
    reason: ReasonOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List refused messages, newest first."""
    which = _filter(device, reason, since, until)

    async def work(api: Api) -> list[dict[str, Any]]:
        return [letter async for letter in api.all("dead-letters", limit=200, **which)]

    show(call(url, token, work), COLUMNS, output, empty="No message was refused.")


@app.command("show")
def show_letter(
    letter_id: int, url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE
) -> None:
    """Show one refused message, whole."""
    show_one(call(url, token, lambda api: api.get(f"dead-letters/{letter_id}")), output)


@app.command()
def replay(
    ids: IdsArgument = None,
    device: DeviceOption = "",
    reason: ReasonOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    everything: AllOption = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Try refused messages again and wait for the end; exit code 1 when not all were accepted."""
    which = _chosen(ids, _filter(device, reason, since, until), everything)

    async def work(api: Api) -> dict[str, Any]:
        job: dict[str, Any] = await api.post("dead-letters:replay", {"ids": ids} if ids else {"filter": which})
        while job["state"] == "running":
            await asyncio.sleep(_POLL_S)
            job = await api.get(f"dead-letters/replays/{job['id']}")
        return job

    job = call(url, token, work)
    show_one(job, output)
    if job["state"] != "done" or job["refused"] or job["skipped"]:
        raise typer.Exit(1)


@app.command()
def delete(
    ids: IdsArgument = None,
    device: DeviceOption = "",
    reason: ReasonOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    everything: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Delete refused messages."""
    which = _chosen(ids, _filter(device, reason, since, until), everything)
    if not yes:
        typer.confirm("Delete these messages? They were never stored.", abort=True)
    which = which or {"until": datetime.now(UTC).isoformat()}

    async def work(api: Api) -> int:
        for letter_id in ids or ():
            await api.delete(f"dead-letters/{letter_id}")
        return len(ids) if ids else int((await api.delete("dead-letters", **which))["deleted"])

    typer.echo(f"deleted {call(url, token, work)}", err=True)


def _filter(device: str, reason: str, since: str, until: str) -> dict[str, str]:
    given = {"device": device, "reason": reason, "since": since, "until": until}
    return {name: value for name, value in given.items() if value}


def _chosen(ids: list[int] | None, which: dict[str, str], everything: bool) -> dict[str, str]:
    """The filter, once it is sure that something was meant."""
    if [bool(ids), bool(which), everything].count(True) != 1:
        raise ApiError("give ids, or options that say which, or --all", exit_code=2)
    return which
