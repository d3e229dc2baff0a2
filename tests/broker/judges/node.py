"""Node.js for the tests: finds it the way build_console.py does, and installs package-lock.json's packages beside this.

Not there and not to be had: the test is skipped by name, or fails where CI=true.
"""

import functools
import hashlib
import os
from pathlib import Path

import pytest

import build_console

HERE = Path(__file__).resolve().parent
INSTALLED = HERE / "node_modules" / ".mooring-lock"


@functools.cache
def node() -> str:
    """The path of a Node.js whose scripts in this folder find their packages (the first time, npm ci: about 5 s)."""
    lock = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    try:
        npm = build_console.find_npm(may_install=True)
        if not INSTALLED.is_file() or INSTALLED.read_text() != lock:
            npm("ci", "--prefix", str(HERE), "--no-audit", "--no-fund")
            INSTALLED.write_text(lock)
    except build_console.Failed as error:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"no npm packages to judge by: {error}; with CI=true that is a failure", pytrace=False)
        pytest.skip(f"no npm packages to judge by: {error}")
    return _node()


def script(name: str) -> str:
    """The path of one of the scripts in this folder."""
    return str(HERE / name)


def _node() -> str:
    on_path = build_console.node_on_path()
    if on_path is not None:
        return str(on_path)
    home = build_console.node_from_wheel()
    assert home is not None, "find_npm has just found it"
    return str(next(path for path in (home / "bin" / "node", home / "node.exe") if path.is_file()))
