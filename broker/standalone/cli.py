"""`python -m broker`: the command line. Exit codes: 0 done, 1 it could not start, 2 wrong usage or settings."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from broker.scram import DEFAULT_ITERATIONS, MAX_ITERATIONS, MIN_ITERATIONS, ScramCredential
from broker.standalone import logs, passwords
from broker.standalone.settings import Settings, SettingsError, load

PROGRAM = "python -m broker"
MIN_PASSWORD = 8
EXAMPLES = """\
**Examples**

Try it out on this machine, open to everybody who is on it:

    python -m broker --allow-anonymous

    mosquitto_sub -t 'greeting/#' -v &  mosquitto_pub -t greeting/hello -m world

Make a line for the file, then check the file, then run with it:

    python -m broker hash-password

    python -m broker --config broker.toml --check

    python -m broker --config broker.toml

Reachable from elsewhere by TLS alone, clients with certificates of one authority, WebSockets for browsers:

    python -m broker --host 0.0.0.0 --port none --tls-cert server.pem --tls-key server.key --client-ca ca.pem
    --wss-port 8443 --config broker.toml

After a change of users, rules or certificates, without ending connections: kill -HUP.

All other settings stand in the file: docs/broker.md has one with every line explained.
"""

app = typer.Typer(
    name=PROGRAM,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _port_or_none(text: str) -> int | str:
    if text == "none":
        return text
    if not text.isascii() or not text.isdigit() or int(text) > 65_535:
        raise typer.BadParameter("must be 0 to 65535, or none")
    return int(text)


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def serve(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings, users and rules, in TOML")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the settings, say all that is wrong, and end")] = False,
    host: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Listen here; 0.0.0.0 for everywhere  [default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        str | None,
        typer.Option(
            metavar="PORT", help="MQTT over TCP; 0 for any free port, none for no such listener  [default: 1883]"
        ),
    ] = None,
    tls_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, metavar="PORT", help="MQTT over TLS  [default: 8883 with a certificate]"),
    ] = None,
    ws_port: Annotated[int | None, typer.Option(min=0, max=65_535, metavar="PORT", help="MQTT over WebSocket")] = None,
    wss_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, metavar="PORT", help="MQTT over WebSocket with TLS")
    ] = None,
    unix: Annotated[
        Path | None, typer.Option(metavar="PATH", help="MQTT over a Unix socket, for this user only")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="The broker's certificate chain, PEM")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its private key, PEM")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Clients must show a certificate signed by one of these, PEM")
    ] = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Let clients in without a password; they may do everything")
    ] = False,
    persistence: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep sessions and retained messages here, over restarts and kill -9"),
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error  [default: info]")
    ] = None,
) -> None:
    """An MQTT 3.1, 3.1.1 and 5 broker. Whoever is not allowed something may not do it: without users nobody gets in.

    Flags win over the file. SIGTERM and Ctrl+C stop it cleanly, a second one hastens that; SIGHUP reads users, rules
    and certificates again.
    """
    if context.invoked_subcommand is not None:
        return
    flags: dict[str, Any] = {
        "host": host,
        "port": None if port is None else _port_or_none(port),
        "tls_port": tls_port,
        "ws_port": ws_port,
        "wss_port": wss_port,
        "unix_path": unix,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "client_ca": client_ca,
        "allow_anonymous": allow_anonymous or None,
        "persistence": persistence,
        "log_level": log_level,
    }

    def read() -> Settings:
        return load(config, flags)

    try:
        settings = read()
    except SettingsError as error:
        for mistake in error.mistakes:
            typer.echo(f"broker: {mistake}", err=True)
        raise typer.Exit(2) from error
    if check:
        typer.echo("broker: the settings are in order")
        return
    _run(settings, read)


def _run(settings: Settings, read: Any) -> None:
    from broker.standalone.serve import StartFailed, run

    logs.configure(settings.log_level)
    try:
        run(settings, read, typer.echo)  # which flushes: whoever started it may wait for these lines
    except StartFailed as error:
        typer.echo(f"broker: {error}", err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(1) from None


@app.command("hash-password")
def hash_password(
    scram: Annotated[
        bool, typer.Option("--scram", help="For SCRAM-SHA-256, in which the password is never sent")
    ] = False,
    iterations: Annotated[
        int,
        typer.Option(
            min=MIN_ITERATIONS,
            max=MAX_ITERATIONS,
            help="With --scram: work for each guess, and for each login of a client",
        ),
    ] = DEFAULT_ITERATIONS,
) -> None:
    """Ask for a password and print the line for [[users]] that lets it in. From a pipe, the first line is taken."""
    password = _ask_password()
    try:
        line = (
            f'scram = "{ScramCredential.make(password, iterations=iterations)}"'
            if scram
            else f'password_hash = "{passwords.hash_password(password)}"'
        )
    except ValueError as error:
        typer.echo(f"broker: SCRAM does not allow this password: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(line)


def _ask_password() -> str:
    """Never an argument, which the whole machine could read."""
    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < MIN_PASSWORD:
        typer.echo(f"broker: a password has at least {MIN_PASSWORD} characters", err=True)
        raise typer.Exit(2)
    if len(password.encode()) > passwords.LENGTH_LIMIT:
        typer.echo(f"broker: a password has at most {passwords.LENGTH_LIMIT:,} bytes", err=True)
        raise typer.Exit(2)
    return password


def main() -> None:
    app(prog_name=PROGRAM)
