"""What commands print: a table for people, JSON or CSV for scripts. A device's text is escaped."""

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


OutputOption = Annotated[Format, typer.Option("-o", "--output", help="How to print it")]


def show(rows: Iterable[dict[str, Any]], columns: Sequence[str], form: Format, *, empty: str = "Nothing here.") -> None:
    """Print rows: the named columns as a table or CSV, everything as JSON."""
    items = list(rows)
    if form is Format.JSON:
        print(json.dumps(items, indent=2))  # noqa: T201
    elif form is Format.CSV:
        writer = csv.writer(sys.stdout)
        writer.writerow(columns)
        writer.writerows([_guard(_plain(item.get(column))) for column in columns] for item in items)
    elif not items:
        Console(stderr=True).print(empty)
    else:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for item in items:
            table.add_row(*(Text(_printable(_plain(item.get(column)))) for column in columns))
        Console().print(table)


def show_one(item: dict[str, Any], form: Format) -> None:
    """Print one object: its fields as a two-column table, or the whole as JSON."""
    if form is Format.TABLE:
        show([{"field": k, "value": v} for k, v in item.items()], ["field", "value"], form)
    else:
        show([item], list(item), form)


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and all(isinstance(number, int) for number in value.values()):
        return ", ".join(f"{number} {name}" for name, number in value.items() if number)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return json.dumps(value)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[:400])


def _guard(text: str) -> str:
    """A cell that begins like a formula would be run by a spreadsheet."""
    return f"'{text}" if text[:1] in "=+-@\t\r" else text
