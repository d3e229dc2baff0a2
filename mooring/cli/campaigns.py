"""`mooring campaign`: update chosen devices and follow it."""

import asyncio
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mooring.cli.client import DEFAULT_URL, Api, TokenOption, UrlOption, call
from mooring.cli.output import Format, OutputOption, show, show_one

app = typer.Typer(help="Updates: create, watch, list, abort, retry.", no_args_is_help=True)
COLUMNS = ("id", "name", "status", "total", "counts", "created_at", "finished_at")
FINAL = ("succeeded", "failed", "timed_out", "rejected", "cancelled")


@app.command()
def create(
    name: str,
    artifact: Annotated[str, typer.Option(help="The firmware's id, from `mooring firmware list`")],
    device: Annotated[list[str], typer.Option(help="May be given several times")],
    start: Annotated[bool, typer.Option(help="Start at once, or leave it a draft")] = True,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Update chosen devices; prints the campaign's id."""
    body = {"name": name, "artifact": artifact, "devices": device, "start": start}
    print(call(url, token, lambda api: api.post("campaigns", body))["id"])  # noqa: T201


@app.command()
def watch(campaign_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "") -> None:
    """Follow a campaign until it ends; exit code 1 unless every device succeeded."""

    async def work(api: Api) -> dict[str, Any]:
        with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as progress:
            bar = progress.add_task("devices done")
            while True:
                campaign: dict[str, Any] = await api.get(f"campaigns/{campaign_id}")
                done = sum(campaign["counts"].get(state, 0) for state in FINAL)
                progress.update(bar, total=campaign["total"], completed=done, description=campaign["name"])
                if campaign["status"] in ("finished", "aborted"):
                    return campaign
                await asyncio.sleep(1)

    campaign = call(url, token, work)
    show_one(campaign["counts"], Format.TABLE)
    if campaign["counts"].get("succeeded", 0) < campaign["total"]:
        raise typer.Exit(1)


@app.command("list")
def list_campaigns(url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE) -> None:
    """List campaigns, newest first."""

    async def work(api: Api) -> list[dict[str, Any]]:
        return [campaign async for campaign in api.all("campaigns")]

    show(call(url, token, work), COLUMNS, output, empty="No updates yet: `mooring campaign create --help`.")


@app.command()
def abort(campaign_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "") -> None:
    """Stop a campaign; devices that have not begun are cancelled."""
    call(url, token, lambda api: api.post(f"campaigns/{campaign_id}/abort"))


@app.command()
def retry(campaign_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "") -> None:
    """Offer the update again to the devices that failed, timed out or rejected it."""
    call(url, token, lambda api: api.post(f"campaigns/{campaign_id}/retry"))
