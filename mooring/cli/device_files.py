"""`mooring device import` and `export`: many devices out of a file, all of them into one."""

import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Annotated, Any

import aiohttp
import typer

from mooring.cli.client import DEFAULT_URL, Api, ApiError, TokenOption, UrlOption, call
from mooring.cli.output import Format, OutputOption, show
from mooring.cli.progress import progress_of
from mooring.output_file import output_file

_POLL_S = 0.2
_CHUNK = 256 * 1024
_COLUMNS = ("line", "device", "outcome", "column", "reason")
_MEDIA = {".json": "application/json", ".jsonl": "application/jsonl", ".ndjson": "application/x-ndjson"}


class OnConflict(StrEnum):
    REFUSE = "refuse"
    UPDATE = "update"
    SKIP = "skip"


def import_devices(
    file: Annotated[Path, typer.Argument(help="CSV with a header, .json or .jsonl, gzip or not")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; tell what would become of it")] = False,
    on_conflict: Annotated[OnConflict, typer.Option(help="What to do with devices that are there")] = OnConflict.REFUSE,
    credentials_to: Annotated[
        Path | None, typer.Option(help="Write the new devices' tokens here as CSV, this once; - is standard output")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Import devices; those that are refused are listed by line. Exit code 1 if there are any.

    The server goes on by itself once it has the file. Without --credentials-to no tokens are made: `POST
    device-imports/ID/credentials` makes them later.
    """
    if not file.is_file():
        raise ApiError(f"there is no file {file}", exit_code=2)
    name = file.with_suffix("") if file.suffix == ".gz" else file
    media = _MEDIA.get(name.suffix.lower(), "text/csv")
    query = {"dry_run": str(dry_run).lower(), "on_conflict": on_conflict.value}

    async def work(api: Api) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        found = await api.send("devices:import", _chunks(file), media, query)
        with progress_of("import") as progress:
            while found["status"] == "running":
                progress(found["total"] - found["counts"]["pending"], found["total"])
                await asyncio.sleep(_POLL_S)
                found = await api.get(f"device-imports/{found['id']}")
        if credentials_to is not None and not dry_run:
            os.umask(0o077)  # tokens are nobody else's business, whatever the directory allows
            with output_file(credentials_to) as out:
                await _fetch(api, "POST", f"device-imports/{found['id']}/credentials", out)
        path = f"device-imports/{found['id']}/rows"
        return found, [row async for row in api.all(path, limit=500, outcome="refused")]

    found, refused = call(url, token, work)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in found["counts"].items() if count)
    tried = " (dry run)" if dry_run else ""
    typer.echo(f"import {found['id']} {found['status']}{tried}: {counts or 'no devices'}", err=True)
    if refused:
        show(refused, _COLUMNS, output)
        raise typer.Exit(1)


def export_devices(
    file: Annotated[Path, typer.Argument(help="Where to; - is standard output")] = Path("-"),
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Write all devices as CSV, as `import` reads it; a name ending in .gz packs it."""

    async def work(api: Api) -> None:
        with output_file(file) as out:
            if file.suffix != ".gz":
                await _fetch(api, "GET", "devices:export", out)
                return
            with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as packed:
                await _fetch(api, "GET", "devices:export", packed)

    call(url, token, work)


async def _fetch(api: Api, method: str, path: str, out: IO[bytes] | gzip.GzipFile) -> None:
    """An answer that is no JSON, as it comes. Raises ApiError, also for one that breaks off."""
    try:
        async with api.session.request(method, f"/api/v1/{path}") as answer:
            if not answer.ok:
                problem = await answer.json(content_type=None)
                raise ApiError(f"{problem.get('detail') or problem.get('title')} ({answer.status})")
            async for chunk in answer.content.iter_chunked(_CHUNK):
                out.write(chunk)
    except (aiohttp.ClientError, ValueError) as error:
        raise ApiError(f"{path} broke off: {error}") from error


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while chunk := await asyncio.to_thread(source.read, _CHUNK):
            yield chunk
