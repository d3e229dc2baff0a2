"""Write the generated parts of docs/: the settings' table and the state diagrams. `make docs` runs it."""

import re
from pathlib import Path

from fleet.machines.campaign import CAMPAIGN
from fleet.machines.command import COMMAND
from fleet.machines.job import JOB
from fleet.machines.machine import mermaid
from mooring.cli.config import shown_default
from mooring.settings import rows

DOCS = Path(__file__).parent


def settings_page() -> str:
    """docs/settings.md, whole."""
    lines = [
        "# Settings",
        "",
        "Flag > environment > file > default. The file is TOML: `--config`, else `./mooring.toml`,",
        "`~/.config/mooring/mooring.toml`, `/etc/mooring/mooring.toml`; `mooring init` writes a commented one.",
        "Names with secrets also take `_FILE`: the path of a file that holds the value. Unknown names are errors.",
        "Which store to choose, and how to move to another: [stores.md](stores.md).",
        "",
        "| file | environment | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for name, environment, field in rows():
        lines.append(f"| `{name}` | `{environment}` | {shown_default(field)} | {field.description} |")
    return "\n".join(lines) + "\n"


def fill(page: Path, name: str, text: str) -> None:
    """Put `text` between the page's markers <!-- name --> and <!-- /name -->."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    old = page.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise SystemExit(f"{page} has no place marked {name}")
    page.write_text(pattern.sub(lambda match: match[1] + text + match[2], old), encoding="utf-8")


def main() -> None:
    (DOCS / "settings.md").write_text(settings_page(), encoding="utf-8")
    for machine in (COMMAND, JOB, CAMPAIGN):
        fill(DOCS / "architecture.md", f"{machine.name} states", f"```mermaid\n{mermaid(machine)}```\n")


if __name__ == "__main__":
    main()
