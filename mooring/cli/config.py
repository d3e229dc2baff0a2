"""`mooring init` and `mooring config`: write a settings file, show and check what is in force."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mooring.cli.output import Format, OutputOption, show
from mooring.errors import SettingsError
from mooring.settings import Settings, load, rows

app = typer.Typer(help="Settings: show and check what is in force.", no_args_is_help=True)
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file; else ./mooring.toml and so on")]


def add_to(root: typer.Typer) -> None:
    root.command()(init)
    root.add_typer(app, name="config")


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it")] = Path("mooring.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file")] = False,
) -> None:
    """Write a settings file with every setting, its default and what it is for."""
    if path.exists() and not force:
        raise SettingsError(f"{path} exists; give --force to replace it")
    path.write_text(template(), encoding="utf-8")
    typer.echo(f"wrote {path}; start with `mooring serve --config {path}`", err=True)


@app.command("show")
def show_settings(config: ConfigOption = None, output: OutputOption = Format.TABLE) -> None:
    """Show every setting in force, its environment name, and what it is for. Secrets stay hidden."""
    settings = load(file=config)
    table = [
        {"setting": name, "value": _shown(_value(settings, name)), "environment": env, "meaning": field.description}
        for name, env, field in rows()
    ]
    show(table, ("setting", "value", "environment", "meaning"), output)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check the settings in force without starting anything; exit code 2 names the first mistake."""
    load(file=config)
    typer.echo("settings are valid", err=True)


def template() -> str:
    """A commented mooring.toml: every line is a comment until it is wanted."""
    lines = ["# Mooring's settings. Every line shows the default; remove the # to change it.", ""]
    section = ""
    for name, _, field in rows():
        group, _, key = name.rpartition(".")
        if group != section:
            section = group
            lines += ["", f"[{group}]"]
        lines.append(f"# {field.description}")
        lines.append(f"#{key} = {_toml(field.default)}")
    return "\n".join(lines) + "\n"


def _value(settings: Settings, name: str) -> Any:
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:
    return "" if value is None else "(set)" if isinstance(value, SecretStr) else str(value)


def _toml(default: Any) -> str:
    if default is None or default is PydanticUndefined:
        return '""'
    return json.dumps(str(default) if isinstance(default, Path) else default)


def shown_default(field: FieldInfo) -> str:
    """A setting's default as the docs print it."""
    if field.default is None:
        return "unset"
    return f"`{field.default}`"
