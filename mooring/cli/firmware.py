"""`mooring firmware`: upload, list, delete artifacts."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from mooring.cli.client import DEFAULT_URL, Api, TokenOption, UrlOption, call
from mooring.cli.output import Format, OutputOption, show

app = typer.Typer(help="Firmware: upload, list, delete.", no_args_is_help=True)
COLUMNS = ("id", "name", "version", "size", "sha256", "created_at")


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    version: Annotated[str, typer.Option(help="The version devices report once they run it")],
    name: Annotated[str, typer.Option(help="What it is; default: the file's name")] = "",
    description: Annotated[str, typer.Option(help="What changed")] = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Upload a firmware file; its SHA-256 is computed here and checked by the server."""
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    fields = {"version": version, "name": name or file.name, "description": description, "sha256": digest}
    columns = (TextColumn(file.name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("upload", total=file.stat().st_size)

        async def work(api: Api) -> Any:
            return await api.upload("artifacts", file, fields, lambda sent: progress.update(bar, completed=sent))

        artifact = call(url, token, work)
    print(artifact["id"])  # noqa: T201


@app.command("list")
def list_artifacts(url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE) -> None:
    """List firmware, newest first."""

    async def work(api: Api) -> list[dict[str, Any]]:
        return [artifact async for artifact in api.all("artifacts")]

    show(call(url, token, work), COLUMNS, output, empty="No firmware yet: `mooring firmware upload FILE --version V`.")


@app.command()
def delete(artifact_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "") -> None:
    """Delete firmware that no unfinished update uses."""
    call(url, token, lambda api: api.delete(f"artifacts/{artifact_id}"))
    typer.echo(f"deleted {artifact_id}", err=True)
