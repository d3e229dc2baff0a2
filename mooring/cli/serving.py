"""`mooring serve`, `demo`, `sim`, `migrate` and `doctor`: what runs, and what prepares or checks it."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from mooring import __version__
from mooring.cli.client import DEFAULT_URL
from mooring.cli.config import ConfigOption
from mooring.settings import Settings, load

DataDirOption = Annotated[Path | None, typer.Option("--data-dir", help="Where everything is kept")]


def add_to(root: typer.Typer) -> None:
    root.command()(serve)
    root.command()(demo)
    root.command()(sim)
    root.command()(migrate)
    root.command()(doctor)
    root.command()(version)


def serve(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    host: Annotated[str | None, typer.Option(help="Address of every listener; 0.0.0.0 to let devices in")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the console and the admin API")] = None,
    mqtt_port: Annotated[int | None, typer.Option(help="Port of the embedded broker")] = None,
    device_http_port: Annotated[int | None, typer.Option(help="Port of the device API")] = None,
) -> None:
    """Run the server: broker, device API, ingestion, fleet, console. Stops cleanly on Ctrl+C or SIGTERM."""
    from mooring.server import serve as run

    settings = load(_flags(data_dir, host, port, mqtt_port, device_http_port), file=config)
    _run(run(settings, stop=_stop_event()), settings)


def demo(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    devices: Annotated[int, typer.Option(min=1, max=1000, help="Simulated devices")] = 25,
    port: Annotated[int | None, typer.Option(help="Port of the console")] = None,
) -> None:
    """Run the server with simulated devices and updates under way, on free ports; prints a login link."""
    from mooring.demo import demo as run

    flags = _flags(data_dir or Path("data/demo"), None, port, None, None)
    settings = load({**flags, "log": {"level": "warning"}}, file=config)
    _run(run(settings, devices, stop=_stop_event()), settings)


def sim(
    devices: Annotated[int, typer.Option(min=1, max=20_000, help="How many")] = 10,
    url: Annotated[str, typer.Option(envvar="MOORING_URL", help="The server's admin address")] = DEFAULT_URL,
    token: Annotated[str, typer.Option(envvar="MOORING_TOKEN", help="Access token that may add devices")] = "",
    username: Annotated[str, typer.Option(help="... or log in with this name")] = "",
    password: Annotated[str, typer.Option(envvar="MOORING_PASSWORD", help="... and this password")] = "",
    mqtt_url: Annotated[str | None, typer.Option(help="Default: port 1883 of --url's host")] = None,
    device_http_url: Annotated[str | None, typer.Option(help="Default: port 8081 of --url's host")] = None,
    transport: Annotated[str, typer.Option(help="mqtt, http or mixed")] = "mqtt",
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between a device's messages")] = 2.0,
    prefix: Annotated[str, typer.Option(help="Devices are named PREFIX-0001 and so on")] = "sim",
    seed: Annotated[int, typer.Option(help="The same seed gives the same signals")] = 1,
    firmware: Annotated[str, typer.Option(help="Version the devices start with")] = "1.0.0",
    pace: Annotated[float, typer.Option(help="10: commands, installing and reboots take a tenth of the time")] = 1.0,
    download_rate: Annotated[int, typer.Option(min=0, help="Bytes/s of one device's download; 0: no limit")] = 1 << 20,
    fault_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of updates that meet a fault")] = 0.0,
    credentials_file: Annotated[Path, typer.Option(help="Where the devices' tokens are kept")] = Path("sim.json"),
    duration: Annotated[float | None, typer.Option(help="Stop after this many seconds")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No live view")] = False,
) -> None:
    """Run simulated devices against a server: they send readings, answer commands and install updates."""
    from mooring.simulate import simulate

    _run(
        simulate(
            devices=devices,
            url=url,
            token=token,
            username=username,
            password=password,
            mqtt_url=mqtt_url,
            device_http_url=device_http_url,
            transport=transport,
            interval_s=interval,
            prefix=prefix,
            seed=seed,
            firmware=firmware,
            pace=pace,
            download_bytes_per_s=download_rate,
            fault_rate=fault_rate,
            credentials_file=credentials_file,
            duration_s=duration,
            quiet=quiet,
            stop=_stop_event(),
        ),
        None,
    )


def migrate(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Bring the fleet's database to this version's schema, after a backup. `serve` does it too."""
    from mooring.server import migrate as run

    settings = load(_flags(data_dir, None, None, None, None), file=config)
    for line in asyncio.run(run(settings)):
        typer.echo(line)


def doctor(config: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Check what `serve` will need (directory, ports, store, console); exit code 1 if not all is well."""
    from mooring.doctor import examine

    settings = load(_flags(data_dir, None, None, None, None), file=config)
    findings = asyncio.run(examine(settings))
    for finding in findings:
        typer.echo(f"{'ok  ' if finding.well else 'BAD '} {finding.part}: {finding.detail}")
    if not all(finding.well for finding in findings):
        raise typer.Exit(1)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _flags(
    data_dir: Path | None, host: str | None, port: int | None, mqtt_port: int | None, device_http_port: int | None
) -> dict[str, Any]:
    return {
        "data_dir": data_dir,
        "broker": {"host": host, "port": mqtt_port},
        "device_http": {"host": host, "port": device_http_port},
        "web": {"host": host, "port": port},
    }


def _stop_event() -> asyncio.Event:
    return asyncio.Event()


def _run(work: Coroutine[Any, Any, Any], settings: Settings | None) -> None:
    """Run to the end, on uvloop where it is there."""
    from mooring.logging_setup import configure
    from mooring.settings import LogSettings

    os.umask(0o077)  # what a server or simulator keeps is nobody else's business, whatever the directory allows
    configure(settings.log if settings else LogSettings(level="warning"))
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work)
