"""`mooring store`: readings out, in and over to another store, and what the embedded store holds.

They work on the data directory while no server runs on it, since the embedded store belongs to one process at a time;
some of them go through a running server with --url.
"""

import asyncio
import sys
import time
import zlib
from collections.abc import Awaitable, Callable
from contextlib import closing, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from gateway.importing import Imported
from gateway.journal_file import JournalError, JournalFile
from gateway.store import Store, StoreError
from gateway.stores import EmbeddedStore
from gateway.stores.influxdb import InfluxOptions, InfluxStore
from gateway.stores.transfer import BadRecord, Window
from gateway.stores.transfer_copy import DAY_MS, CheckpointError, Move
from gateway.stores.transfer_csv import columns_of, encode_long, encode_wide, header_of, rfc3339
from gateway.stores.transfer_lines import Mapping, Precision
from gateway.stores.transfer_scan import scan
from gateway.stores.victoriametrics import VictoriaOptions, VictoriaStore
from mooring.cli.client import Api, ApiError, TokenOption, call
from mooring.cli.config import ConfigOption
from mooring.cli.output import Format, OutputOption, show, show_one
from mooring.cli.progress import progress_of
from mooring.cli.serving import DataDirOption
from mooring.errors import MooringError
from mooring.export_online import export_online
from mooring.import_online import import_online
from mooring.import_readings import import_file as import_offline
from mooring.import_readings import opened
from mooring.offline_store import offline_store
from mooring.output_file import output_file
from mooring.parquet_file import ParquetFile
from mooring.settings import Settings, load

T = TypeVar("T")
MAX_WIDE_COLUMNS = 1_000
_POLL_S = 0.2
_ONLINE = "Stop the server first, or go through it with --url."

app = typer.Typer(
    help="Readings: export, import, move to another store, and what the embedded store holds.",
    epilog="The embedded store belongs to one process at a time: stop the server first, or go through it with --url.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


class Target(StrEnum):
    INFLUXDB = "influxdb"
    VICTORIAMETRICS = "victoriametrics"


class FileFormat(StrEnum):
    CSV = "csv"
    LINES = "lines"


class ExportFormat(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"


OnlineOption = Annotated[
    str | None,
    typer.Option("--url", help="Through a running server, at its admin address, instead of on the data directory"),
]


@app.command()
def stats(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    url: OnlineOption = None,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
    days: Annotated[
        bool, typer.Option("--days", help="Of each day; on the data directory of a stopped server")
    ] = False,
) -> None:
    """What the embedded store holds: points, bytes, the oldest day."""
    if days and url is not None:
        raise typer.BadParameter("--days goes with the data directory of a stopped server, not with --url")
    if days:

        async def by_day(store: EmbeddedStore, settings: Settings) -> list[dict[str, object]]:
            return [asdict(each) for each in await store.stats_by_day()]

        columns = ("day", "loose_points", "sealed_points", "size_bytes")
        show(_offline(config, data_dir, by_day), columns, output, empty="It holds nothing yet.")
        return
    if url is not None:
        show_one(call(url, token, lambda api: api.get("store")), output)
        return

    async def work(store: EmbeddedStore, settings: Settings) -> dict[str, object]:
        found = asdict(await store.stats())
        return {**found, "devices": len(await store.devices()), "retention_days": settings.store.retention_days}

    show_one(_offline(config, data_dir, work), output)


@app.command()
def verify(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    url: OnlineOption = None,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Read every file of the embedded store and tell what is damaged; exit code 1 if anything is."""

    async def work(store: EmbeddedStore, settings: Settings) -> list[dict[str, object]]:
        with progress_of("verify") as progress:
            findings = await store.verify(progress)
        return [asdict(finding) for finding in findings]

    findings = _offline(config, data_dir, work) if url is None else _job(url, token, "verify")["findings"]
    show(findings, ("file", "series", "problem"), output, empty="All files are well.")
    if findings:
        raise typer.Exit(1)


@app.command()
def compact(
    config: ConfigOption = None, data_dir: DataDirOption = None, url: OnlineOption = None, token: TokenOption = ""
) -> None:
    """Compress everything at once. The store does it by itself too, bit by bit, and a day once it is over."""
    if url is not None:
        _job(url, token, "compact")
        typer.echo("compacted", err=True)
        return

    async def work(store: EmbeddedStore, settings: Settings) -> tuple[int | None, int | None]:
        before = (await store.stats()).size_bytes
        with progress_of("compact") as progress:
            await store.compact(progress)
        return before, (await store.stats()).size_bytes

    before, after = _offline(config, data_dir, work)
    typer.echo(f"{before} bytes before, {after} after", err=True)


@app.command()
def backup(
    directory: Annotated[Path | None, typer.Argument(help="New or empty; with --url the server names it")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    url: OnlineOption = None,
    token: TokenOption = "",
) -> None:
    """Copy the embedded store. To restore, stop the server and put the copy in the place of `{data_dir}/readings`."""
    if (url is None) == (directory is None):
        raise typer.BadParameter("give a directory, or --url: then the server puts it below its backups")
    if url is not None:
        typer.echo(f"backed up to {_job(url, token, 'backup')['directory']} on the server", err=True)
        return
    assert directory is not None  # noqa: S101 # told above
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise MooringError(f"{directory} is not an empty directory")

    async def work(store: EmbeddedStore, settings: Settings) -> None:
        with progress_of("backup") as progress:
            await store.backup(directory, progress)

    _offline(config, data_dir, work)
    typer.echo(f"backed up to {directory}", err=True)


@app.command(epilog="Example: `mooring store export --device pump-7 --start 2026-11-01 --wide pump-7.csv`.")
def export(
    file: Annotated[Path, typer.Argument(help="Written beside and renamed at the end; - is standard output")],
    device: Annotated[list[str] | None, typer.Option(help="Only these; may be given several times")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="Only these; may be given several times")] = None,
    start: Annotated[str, typer.Option(help="RFC 3339, a date, or ms; default: the oldest")] = "",
    end: Annotated[str, typer.Option(help="The same, exclusive; default: the newest")] = "",
    wide: Annotated[bool, typer.Option("--wide", help="One row a time, one column a metric")] = False,
    form: Annotated[ExportFormat, typer.Option("--format", help="parquet needs `pip install 'mooring[parquet]'`")] = (
        ExportFormat.CSV
    ),
    url: Annotated[str, typer.Option("--url", help="From this running server instead of the data directory")] = "",
    token: TokenOption = "",
    tag: Annotated[str, typer.Option(help="With --url: only devices with this tag")] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write readings as CSV: `device,metric,ts,time,type,value`, or one column a metric with --wide; or as Parquet."""
    if wide and form is ExportFormat.PARQUET:
        raise MooringError("--wide is for CSV")
    start_ms, end_ms = _time("--start", start), _time("--end", end)
    metrics = tuple(metric or ())
    if url:
        if form is ExportFormat.PARQUET or (wide and len(device or ()) != 1):
            raise MooringError("with --url: CSV, and --wide for one --device at a time")
        asked = {"metrics": ",".join(metrics), "start": start_ms, "end": end_ms, "wide": "true" if wide else None}
        query = {name: str(value) for name, value in asked.items() if value not in (None, "")}

        async def fetch(api: Api) -> int:
            with output_file(file) as out, progress_of("export") as progress:
                return await export_online(api, out, devices=device or (), tag=tag, query=query, progress=progress)

        typer.echo(f"readings of {call(url, token, fetch)} devices", err=True)
        return
    if tag:
        raise MooringError("--tag needs --url: tags are the server's")

    async def work(store: EmbeddedStore, settings: Settings) -> int:
        oldest_ms = (await store.stats()).oldest_ms or 0
        begin = oldest_ms if start_ms is None else max(start_ms, oldest_ms)
        stop = _now_ms() + 2 * DAY_MS if end_ms is None else end_ms
        devices = device or await store.devices()
        columns = None
        if wide:
            columns = columns_of([await store.latest(one) for one in devices])
            columns = [column for column in columns if not metrics or column[0] in metrics]
            if len(columns) > MAX_WIDE_COLUMNS:
                raise MooringError(f"{len(columns)} columns: choose some with --metric, or leave --wide out")
        points = 0
        with output_file(file) as out, progress_of("export") as progress:
            parquet = ParquetFile(out) if form is ExportFormat.PARQUET else None
            if parquet is None:
                out.write(header_of(columns))
            for place, one in enumerate(devices):
                progress(place, len(devices))
                async for readings in scan(store, one, begin, stop, metrics):
                    points += len(readings)
                    if parquet is not None:
                        parquet.write(readings)
                        continue
                    try:
                        rows = encode_long(readings) if columns is None else encode_wide(readings, columns)
                    except KeyError as error:
                        raise ApiError(f"{one} has changed the kind of {error.args[0][0]}: leave --wide out") from error
                    out.write(rows)
            if parquet is not None:
                parquet.close()
        return points

    typer.echo(f"{_offline(config, data_dir, work)} readings", err=True)


@app.command(
    "import",
    epilog="Example: `mooring store import old.lp.gz --format lines --precision s --device-tag host --dry-run`.",
)
def import_file(
    file: Annotated[Path, typer.Argument(help="CSV or line protocol, gzip or not; - is standard input")],
    form: Annotated[FileFormat, typer.Option("--format", help="What the file is")] = FileFormat.CSV,
    precision: Annotated[Precision, typer.Option(help="Line protocol: the unit of its times")] = Precision.NS,
    device_tag: Annotated[str, typer.Option(help="Line protocol: the tag that names the device")] = "device",
    metric_tag: Annotated[list[str] | None, typer.Option(help="Line protocol: a tag to put before the metric")] = None,
    measurement_prefix: Annotated[
        bool, typer.Option("--measurement-prefix", help="Line protocol: put the measurement before the metric")
    ] = False,
    any_device: Annotated[
        bool, typer.Option("--any-device", help="Take readings of devices that the store has none of yet")
    ] = False,
    create_devices: Annotated[
        bool, typer.Option("--create-devices", help="With --url: create devices that are not in the fleet")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; tell what is wrong")] = False,
    url: OnlineOption = None,
    token: TokenOption = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Take in readings of the past. Bad records are left out and listed by line; exit code 1 if there are any.

    Broken off, it goes on where it was (FILE.import.json keeps the place); the same readings again change nothing.
    """
    mapping = Mapping(
        device_tag=device_tag,
        measurement_prefix=measurement_prefix,
        metric_tags=tuple(metric_tag or ()),
        precision=precision,
    )
    piped = str(file) == "-"
    if not piped and not file.is_file():
        raise MooringError(f"there is no file {file}")
    if url is not None:
        if any_device:
            raise MooringError("--any-device is for a stopped server; with --url give --create-devices")
        query = {
            "create_devices": str(create_devices).lower(),
            "dry_run": str(dry_run).lower(),
            "precision": precision.value,
            "device_tag": device_tag,
            "metric_tags": ",".join(metric_tag or ()),
            "measurement_prefix": str(measurement_prefix).lower(),
        }
        media_type = "text/plain" if form is FileFormat.LINES else "text/csv"
        total = 0 if piped else file.stat().st_size

        async def send(api: Api) -> dict[str, Any]:
            with progress_of("import") as progress, sys.stdin.buffer if piped else file.open("rb") as source:
                return await import_online(
                    api,
                    source,
                    media_type=media_type,
                    query=query,
                    progress=lambda sent: progress(sent, max(total, sent)),
                )

        answer = call(url, token, send)
        if answer["reasons"]:
            show(answer["reasons"], ("first_line", "count", "reason"), output)
        if answer["broken_off"]:
            typer.echo(f"the import before this one broke off, {answer['broken_off']['stored']} stored", err=True)
        would = "would be " if dry_run else ""
        typer.echo(
            f"{answer['stored']} readings {would}stored, {answer['refused']} records left out, "
            f"{len(answer['devices_created'])} devices {would}created",
            err=True,
        )
        if answer["refused"]:
            raise typer.Exit(1)
        return
    if create_devices:
        raise MooringError("--create-devices needs --url; on a stopped server give --any-device")

    async def work(store: EmbeddedStore, settings: Settings) -> Imported:
        known = set(await store.devices())

        async def is_known(device_id: str) -> bool:
            return any_device or device_id in known

        size = 0 if piped else file.stat().st_size
        with (
            nullcontext() if dry_run else closing(JournalFile(settings.data_dir / "journal.db")) as journal,
            progress_of("import") as progress,
            sys.stdin.buffer if piped else opened(file) as source,
        ):
            return await import_offline(
                store,
                journal,
                Window.of(_now_ms(), settings.store.retention_days),
                source,
                is_known=is_known,
                lines=mapping if form is FileFormat.LINES else None,
                resumable=None if piped or dry_run else file,
                progress=lambda read: progress(read, max(size, read)),
            )

    result = _offline(config, data_dir, work)
    if result.bad_records:
        show([asdict(error) for error in result.errors], ("line", "reason"), output)
    would = "would be stored" if dry_run else "stored"
    typer.echo(f"{result.points} readings {would}, {result.bad_records} records left out", err=True)
    if result.bad_records:
        raise typer.Exit(1)


@app.command(
    epilog="Example: `mooring store copy --to influxdb --target-url http://127.0.0.1:8086 --bucket mooring "
    "--from-day 2026-11-01`; then set MOORING_STORE__KIND and start the server."
)
def copy(
    to: Annotated[Target, typer.Option(help="The kind of the store to move to")],
    target_url: Annotated[str, typer.Option("--target-url", "--url", help="Its address")],
    bucket: Annotated[str, typer.Option(help="InfluxDB: its bucket (1.x: database)")] = "mooring",
    org: Annotated[str, typer.Option(help="InfluxDB: its organisation")] = "mooring",
    api: Annotated[str, typer.Option(help="InfluxDB: v2, or v1 for 1.x")] = "v2",
    target_token: Annotated[
        str, typer.Option("--target-token", "--token", envvar="MOORING_TARGET_TOKEN", help="Its token")
    ] = "",
    from_day: Annotated[str, typer.Option(help="Move from this day on, YYYY-MM-DD; default: the oldest")] = "",
    again: Annotated[bool, typer.Option("--again", help="From the beginning, whatever was moved before")] = False,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Move the embedded store's readings to another store; killed at any moment, run it again.

    Readings still in the journal are not in the store yet: they go to the new one when the server starts with it.
    """
    if api not in ("v1", "v2"):
        raise MooringError("--api is v1 or v2")
    first = None if not from_day else _time("--from-day", from_day)

    def target() -> Store:
        if to is Target.INFLUXDB:
            return InfluxStore(
                InfluxOptions(url=target_url, token=target_token, org=org, bucket=bucket, api=api)  # type: ignore[arg-type]
            )
        return VictoriaStore(VictoriaOptions(url=target_url, token=target_token))

    async def work(store: EmbeddedStore, settings: Settings) -> tuple[int, int, bool, list[dict[str, object]]]:
        oldest_ms = (await store.stats()).oldest_ms
        if oldest_ms is None:
            return 0, 0, False, []
        there = target()
        await there.open()
        try:
            move = Move(
                store,
                there,
                target_name=f"{to} {target_url} {bucket if to is Target.INFLUXDB else ''}".strip(),
                checkpoint=settings.data_dir / "store-copy.json",
            )
            first_day = max(oldest_ms, first or 0) // DAY_MS
            with progress_of("copy") as progress:
                # Two days ahead: a device's clock may be fast by one.
                report = await move.run(first_day, _now_ms() // DAY_MS + 2, progress, again=again)
        finally:
            await there.close()
        wrong: list[dict[str, object]] = [
            {"device": d.device, "day": d.day, "problem": f"{d.source} readings here, {d.target} there"}
            for d in report.differences
        ]
        wrong += [
            {"device": reading.device_id, "day": rfc3339(reading.ts_ms), "problem": f"{reading.metric}: {reason}"}
            for reading, reason in report.rejected
        ]
        return report.points, report.rejected_points, report.resumed, wrong

    points, rejected, resumed, wrong = _offline(config, data_dir, work)
    if wrong:
        show(wrong, ("device", "day", "problem"), output)
    typer.echo(f"{points} readings written{' (gone on where it was)' if resumed else ''}, {rejected} refused", err=True)
    if wrong:
        raise typer.Exit(1)


def _job(url: str, token: str, kind: str) -> dict[str, Any]:
    """Have a running server do it, with its progress; what came of it."""

    async def work(api: Api) -> dict[str, Any]:
        job: dict[str, Any] = await api.post(f"store:{kind}")
        with progress_of(kind) as progress:
            while job["state"] == "running":
                await asyncio.sleep(_POLL_S)
                job = await api.get(f"store/jobs/{job['id']}")
                progress(job["done"], job["total"])
        if job["state"] == "failed":
            raise ApiError(f"{kind}: {job['detail']}")
        return job

    return call(url, token, work)


def _offline(config: Path | None, data_dir: Path | None, work: Callable[[EmbeddedStore, Settings], Awaitable[T]]) -> T:
    settings = load({"data_dir": data_dir}, file=config)

    async def run() -> T:
        async with offline_store(settings, online=_ONLINE) as store:
            return await work(store, settings)

    try:
        return asyncio.run(run())
    except (
        StoreError,
        JournalError,
        CheckpointError,
        BadRecord,
        OSError,
        EOFError,
        zlib.error,
    ) as error:  # the last two: of gzip
        raise ApiError(str(error)) from error


def _time(option: str, text: str) -> int | None:
    """Unix time in ms from the same, a date, or RFC 3339."""
    if not text:
        return None
    try:
        if text.isascii() and text.isdigit():
            return int(text)
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise MooringError(f"{option}: ms, a date, or RFC 3339") from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
