"""`mooring api-key`: how programs come in."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from mooring.cli.client import DEFAULT_URL, Api, TokenOption, UrlOption, call
from mooring.cli.output import Format, OutputOption, show

app = typer.Typer(help="API keys, for programs: list, add, revoke.", no_args_is_help=True)
COLUMNS = ("id", "name", "owner", "role", "hint", "expires_at", "last_used_at", "revoked_at")


@app.command("list")
def list_keys(
    everybody: Annotated[bool, typer.Option("--all", help="Everybody's, for administrators")] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """List your keys (never the keys themselves)."""

    async def work(api: Api) -> list[dict[str, Any]]:
        return [key async for key in api.all("api-keys", limit=200, all=str(everybody).lower())]

    show(call(url, token, work), COLUMNS, output, empty="No keys. Make one with `mooring api-key add NAME`.")


@app.command()
def add(
    name: str,
    role: Annotated[str, typer.Option(help="viewer, operator or admin; at most your own")] = "viewer",
    days: Annotated[int, typer.Option(min=0, max=36_500, help="It ends after so many; 0: never")] = 90,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Make a key and print it, which is shown this once; use it as MOORING_TOKEN."""
    ends = None if days == 0 else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    body = {"name": name, "role": role, "expires_at": ends}
    print(call(url, token, lambda api: api.post("api-keys", body))["key"])  # noqa: T201


@app.command()
def revoke(key_id: str, url: UrlOption = DEFAULT_URL, token: TokenOption = "") -> None:
    """Revoke a key; what came in with it is out at once."""
    call(url, token, lambda api: api.delete(f"api-keys/{key_id}"))
    typer.echo(f"revoked {key_id}", err=True)
