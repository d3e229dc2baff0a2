"""`mooring demo`: the server, simulated devices beside it, and a little history to look at.

The devices are a process of their own, over real sockets. On the first run one update is carried through and a
second one is left under way; later runs find the same fleet again in the data directory.
"""

import asyncio
import os
import random
import secrets
import socket
import sys
from pathlib import Path

from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from mooring.cli.client import Api, connect
from mooring.server import Server
from mooring.settings import AdminSettings, Settings
from mooring.signals import stop_on_signals

USERNAME = "demo"
FIRST_VERSION, SECOND_VERSION = "1.1.0", "1.2.0"
#: How fast a simulated device works and downloads: slow enough to watch.
PACE = 0.5
DOWNLOAD_BYTES_PER_S = 64 * 1024


async def demo(settings: Settings, devices: int, *, stop: asyncio.Event) -> None:
    """Run until stopped. Listeners whose port is busy take a free one and say so."""
    console = Console()
    settings = _with_free_ports(settings, console)
    # Made at the first start, with a password that nobody learns: the demo is entered by its one-time links.
    administrator = AdminSettings(username=USERNAME, password=SecretStr(secrets.token_urlsafe(24)))
    settings = settings.model_copy(update={"admin": administrator})
    server = Server(settings)
    await server.start()
    swarm: asyncio.subprocess.Process | None = None
    try:
        with stop_on_signals(stop):
            people = server.fleet.people
            token = (await people.exchange(await people.login_code(USERNAME))).access_token
            link = f"{server.web_url}/login?code={await people.login_code(USERNAME)}"
            console.print("[bold]Mooring is running.[/bold] Ctrl+C stops everything; `make demo` starts it again.\n")
            # On lines of their own and never wrapped: a link cut in two cannot be clicked or copied.
            console.print(f"  Console  {server.web_url}", soft_wrap=True, highlight=False)
            console.print(f"  Log in   {link}", soft_wrap=True, highlight=False)
            console.print("           (works once, for ten minutes)\n", highlight=False)
            swarm = await _start_swarm(server, settings, devices, token)
            async with connect(server.web_url, token) as api:
                await _until_stopped(_story(api, devices, settings.data_dir, console), stop)
    finally:
        if swarm is not None:
            await _end(swarm)
        await server.stop()


async def _story(api: Api, devices: int, data_dir: Path, console: Console) -> None:
    """Wait for the fleet, then, where there is none yet, carry one update through and begin another."""
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task("devices online", total=devices)
        while True:
            online = (await api.get("overview"))["devices"].get("online", 0)
            progress.update(bar, completed=min(online, devices))
            if online >= devices:
                break
            await asyncio.sleep(0.5)
    if (await api.get("campaigns", limit=1))["items"]:
        console.print("The fleet and its updates are those of the last run.")
        return
    names = [device["id"] async for device in api.all("devices", q="sim-", limit=200)]
    early, later = names[: max(1, devices // 5)], names[max(1, devices // 5) :] or names[:1]
    first = await _release(api, data_dir, FIRST_VERSION, 128 * 1024, "Steadier sensor readings")
    campaign = await _update(api, "Pilot group to 1.1.0", first, early)
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as progress:
        bar = progress.add_task(f"first update ({FIRST_VERSION})", total=len(early))
        while True:
            state = await api.get(f"campaigns/{campaign}")
            progress.update(bar, completed=state["counts"].get("succeeded", 0))
            if state["status"] == "finished":
                break
            await asyncio.sleep(0.5)
    second = await _release(api, data_dir, SECOND_VERSION, 4 * 1024 * 1024, "Lower power draw at night")
    await _update(api, "Whole site to 1.2.0", second, later)
    console.print(f"A second update ({SECOND_VERSION}) is under way: see Updates in the console.")


async def _release(api: Api, data_dir: Path, version: str, size: int, description: str) -> str:
    """Upload made-up firmware, the same bytes for the same version."""
    file = data_dir / f"demo-firmware-{version}.bin"
    content = random.Random(version).randbytes(size)  # noqa: S311
    await asyncio.to_thread(file.write_bytes, content)
    fields = {"version": version, "name": "Demo firmware", "description": description}
    try:
        artifact = await api.upload("artifacts", file, fields, lambda _: None)
    finally:
        file.unlink()
    return str(artifact["id"])


async def _update(api: Api, name: str, artifact: str, devices: list[str]) -> str:
    body = {"name": name, "artifact": artifact, "devices": devices, "start": True}
    return str((await api.post("campaigns", body))["id"])


async def _start_swarm(server: Server, settings: Settings, devices: int, token: str) -> asyncio.subprocess.Process:
    # fmt: off
    arguments = [
        "sim", "--devices", str(devices), "--transport", "mixed", "--interval", "2",
        "--pace", str(PACE), "--download-rate", str(DOWNLOAD_BYTES_PER_S),
        "--url", server.web_url, "--mqtt-url", server.mqtt_url, "--device-http-url", server.device_http_url,
        "--credentials-file", str(settings.data_dir / "sim.json"), "--quiet",
    ]
    # fmt: on
    log = (settings.data_dir / "sim.log").open("ab")
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mooring", *arguments,
            env={**os.environ, "MOORING_TOKEN": token},
            stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,  # Ctrl+C is ours to pass on
        )  # fmt: skip
    finally:
        log.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until_stopped(work: object, stop: asyncio.Event) -> None:
    """Let the story play, then wait for the end; an end in the middle of it cancels it."""
    story = asyncio.ensure_future(work)  # type: ignore[call-overload]
    stopped = asyncio.create_task(stop.wait(), name="demo stop")
    await asyncio.wait({story, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not stopped.done():
        story.result()
        await stopped
    story.cancel()
    await asyncio.gather(story, return_exceptions=True)


def _with_free_ports(settings: Settings, console: Console) -> Settings:
    changes: dict[str, dict[str, int]] = {}
    for name in ("broker.port", "broker.ws_port", "device_http.port", "web.port"):
        section, key = name.split(".")
        part = getattr(settings, section)
        port = getattr(part, key)
        if port and not _is_free(part.host, port):
            console.print(f"port {port} is busy: {name} takes a free one")
            changes.setdefault(section, {})[key] = 0
    updated = {section: getattr(settings, section).model_copy(update=update) for section, update in changes.items()}
    return settings.model_copy(update=updated)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
