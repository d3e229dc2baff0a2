"""The order of the packages is a contract; `make lint` shows it, and so does every test run."""

import subprocess
import sys
from pathlib import Path


def test_every_import_contract_is_kept() -> None:
    # In a process of its own: it sets up logging anew, and would silence what other tests listen to.
    result = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout
    assert "3 kept, 0 broken" in result.stdout
