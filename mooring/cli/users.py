"""`mooring user`: who may use the console and the API."""

import asyncio
from typing import Annotated, Any

import typer

from mooring.cli.client import DEFAULT_URL, Api, ApiError, TokenOption, UrlOption, call, connect
from mooring.cli.output import Format, OutputOption, show

app = typer.Typer(help="People: log in, list, add, change roles.", no_args_is_help=True)
COLUMNS = ("username", "role", "disabled", "last_login_at", "created_at")


@app.command()
def login(
    username: str,
    url: UrlOption = DEFAULT_URL,
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, envvar="MOORING_PASSWORD")] = "",
    otp: Annotated[str, typer.Option(help="Code of the second factor; asked for where it is needed")] = "",
) -> None:
    """Print an access token for MOORING_TOKEN; it lasts 15 minutes."""

    async def run(otp: str) -> str:
        async with connect(url) as api:
            tokens = await api.post("auth/login", {"username": username, "password": password, "otp": otp})
            return str(tokens["access_token"])

    try:
        token = asyncio.run(run(otp))
    except ApiError as error:
        if error.code != "otp_required":
            raise
        token = asyncio.run(run(typer.prompt("Code of the second factor", err=True)))
    print(token)  # noqa: T201


@app.command("list")
def list_users(url: UrlOption = DEFAULT_URL, token: TokenOption = "", output: OutputOption = Format.TABLE) -> None:
    """List everybody."""

    async def work(api: Api) -> list[dict[str, Any]]:
        return [user async for user in api.all("users")]

    show(call(url, token, work), COLUMNS, output)


@app.command()
def add(
    username: str,
    role: Annotated[str, typer.Option(help="viewer, operator or admin")] = "viewer",
    password: Annotated[str, typer.Option(prompt=True, hide_input=True, confirmation_prompt=True)] = "",
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = "",
) -> None:
    """Add a person."""
    body = {"username": username, "role": role, "password": password}
    call(url, token, lambda api: api.post("users", body))
    typer.echo(f"added {username} as {role}", err=True)
