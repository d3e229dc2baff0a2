"""The `mooring` command. Exit codes: 0 done, 1 it failed, 2 wrong usage or settings (one line on stderr says why)."""

import sys

import typer

from mooring.cli import (
    api_keys,
    audit,
    campaigns,
    commands,
    config,
    dead_letters,
    devices,
    firmware,
    serving,
    store,
    users,
)
from mooring.cli.client import ApiError
from mooring.errors import MooringError

app = typer.Typer(
    name="mooring",
    help="IoT device gateway and fleet manager: MQTT broker, telemetry, commands and firmware updates in one process.",
    epilog="Start with `mooring demo`, which needs nothing else, then `mooring init` and `mooring serve`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
serving.add_to(app)
config.add_to(app)
app.add_typer(users.app, name="user")
app.add_typer(api_keys.app, name="api-key")
app.add_typer(devices.app, name="device")
app.add_typer(devices.tokens, name="token")
app.add_typer(commands.app, name="command")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(firmware.app, name="firmware")
app.add_typer(campaigns.app, name="campaign")
app.add_typer(store.app, name="store")
app.add_typer(audit.app, name="audit")


def main() -> None:
    """Run the command line; turn what the operator can mend into one line instead of a traceback."""
    try:
        app()
    except MooringError as error:
        print(f"mooring: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except ApiError as error:
        print(f"mooring: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
