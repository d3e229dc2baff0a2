"""`mooring audit`: whether the audit is whole and unchanged, its newest entry, all of it as a file."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from fleet.audit import Audit
from fleet.audit_chain import START, Mark, Walk, parse_mark
from mooring.cli.client import TokenOption, call
from mooring.cli.config import ConfigOption
from mooring.cli.output import Format, OutputOption, show, show_one
from mooring.cli.serving import DataDirOption
from mooring.errors import MooringError
from mooring.offline_audit import offline_audit
from mooring.output_file import output_file
from mooring.settings import load

T = TypeVar("T")
_LINE_LIMIT_BYTES = 1 << 20  # entries hold a profile or a twin at most

app = typer.Typer(
    help="The audit: who changed what. Its entries are chained, so that edits and deletions are found.",
    epilog="Keep the output of `mooring audit head` elsewhere: it finds even a chain that was cut off or written anew.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

OnlineOption = Annotated[
    str | None,
    typer.Option("--url", help="Ask a running server, at its admin address, instead of reading the database"),
]


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An exported file; without it, the database")] = None,
    head: Annotated[str, typer.Option(help="What `mooring audit head` once said")] = "",
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    url: OnlineOption = None,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Look for entries that were edited, deleted, put in or moved; exit code 1 when there are any."""
    known = _mark(head)
    report: dict[str, Any]
    if file is not None:
        report = _verify_file(file, known)
    elif url is not None:
        report = call(url, token, lambda api: api.get("audit:verify", head=head.strip() or None))
    else:

        async def work(audit: Audit) -> dict[str, Any]:
            return (await audit.verify(known)).json()

        report = _offline(config, data_dir, work)
    faults = report["faults"]
    if output is Format.JSON:
        show_one(report, output)
    elif faults:
        show(faults, ("seq", "detail"), output)
    if not report["ok"]:
        typer.echo(f"the audit was tampered with: {report['faults_total']} faults", err=True)
        raise typer.Exit(1)
    typer.echo(f"{report['entries']} entries, whole and unchanged; head {report['head']}", err=True)


@app.command("head")
def show_head(
    config: ConfigOption = None, data_dir: DataDirOption = None, url: OnlineOption = None, token: TokenOption = ""
) -> None:
    """Print the newest entry as number:digest, to be kept elsewhere."""

    async def work(audit: Audit) -> str:
        return str(await audit.head())

    if url is not None:
        print(call(url, token, lambda api: api.get("audit:head"))["head"])  # noqa: T201
    else:
        print(_offline(config, data_dir, work))  # noqa: T201


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to; - for standard output")],
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    url: OnlineOption = None,
    token: TokenOption = "",
) -> None:
    """Write all entries, oldest first, as lines of JSON that `verify FILE` can check."""
    with output_file(file) as target:

        async def work(audit: Audit) -> None:
            async for lines in audit.export():
                target.write(lines)

        if url is not None:
            call(url, token, lambda api: api.download("audit:export", target.write))
        else:
            _offline(config, data_dir, work)


def _mark(head: str) -> Mark | None:
    try:
        return parse_mark(head) if head else None
    except ValueError as error:
        raise MooringError(f"--head: {error}") from error


def _verify_file(path: Path, known: Mark | None) -> dict[str, Any]:
    walk: Walk | None = None
    try:
        for line in _lines(path):
            if walk is None:
                walk = Walk(_before(line), known=known)
            walk.step(line)
    except OSError as error:
        raise MooringError(f"{path}: {error.strerror or error}") from error
    return (walk or Walk(START, known=known)).end().json()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        while line := file.readline(_LINE_LIMIT_BYTES):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            # What is no entry is handed on as one without a number, which is a fault of the file's.
            yield entry if isinstance(entry, dict) else {}


def _before(first: dict[str, Any]) -> Mark:
    """Where a file begins: it is enough that its own entries say that the older ones were dropped."""
    seq, prev = first.get("seq"), first.get("prev")
    return Mark(seq=seq - 1, digest=prev) if type(seq) is int and isinstance(prev, str) else START


def _offline(config: Path | None, data_dir: Path | None, work: Callable[[Audit], Awaitable[T]]) -> T:
    settings = load({"data_dir": data_dir}, file=config)

    async def run() -> T:
        async with offline_audit(settings) as audit:
            return await work(audit)

    return asyncio.run(run())
