"""The command line without a server: help that teaches, exit codes, one line on stderr."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest


def mooring(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mooring", *arguments],
        cwd=cwd,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(cwd),
            "NO_COLOR": "1",
            "COLUMNS": "160",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_names_every_command_and_where_to_start(tmp_path: Path) -> None:
    result = mooring("--help", cwd=tmp_path)
    assert result.returncode == 0
    for command in ("serve", "demo", "sim", "init", "config", "user", "device", "firmware", "campaign", "dead-letters"):
        assert command in result.stdout
    assert "mooring demo" in result.stdout


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"MOORING_COLOUR": "red"}, "unknown setting MOORING_COLOUR"),
        ({"MOORING_DATA_DIR": "/proc/mooring"}, "data_dir /proc/mooring cannot be written"),
    ],
)
def test_serve_that_cannot_start_says_why_in_one_line_and_exits_2(
    tmp_path: Path, environ: dict[str, str], text: str
) -> None:
    result = mooring("serve", cwd=tmp_path, **environ)
    assert result.returncode == 2
    assert text in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


@pytest.mark.parametrize("setting", ["MOORING_BROKER__PORT", "MOORING_DEVICE_HTTP__PORT", "MOORING_WEB__PORT"])
def test_busy_port_is_named_with_the_setting_that_moves_it(tmp_path: Path, setting: str) -> None:
    ports = {
        "MOORING_BROKER__PORT": "0",
        "MOORING_BROKER__WS_PORT": "",
        "MOORING_DEVICE_HTTP__PORT": "0",
        "MOORING_WEB__PORT": "0",
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = mooring("serve", cwd=tmp_path, **{**ports, setting: port})
    assert result.returncode == 2
    last = result.stderr.strip().splitlines()[-1]
    assert f"127.0.0.1:{port}" in last
    assert setting in last
    assert "Traceback" not in result.stderr


def test_client_command_without_a_token_says_how_to_get_one(tmp_path: Path) -> None:
    result = mooring("device", "list", cwd=tmp_path)
    assert result.returncode == 2
    assert "mooring user login" in result.stderr


def test_client_command_without_a_server_says_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
    result = mooring("device", "list", "--token", "x", "--url", url, cwd=tmp_path)
    assert result.returncode == 1
    assert "is `mooring serve` running?" in result.stderr


def test_init_writes_a_file_that_config_check_accepts(tmp_path: Path) -> None:
    assert mooring("init", cwd=tmp_path).returncode == 0
    assert mooring("config", "check", cwd=tmp_path).returncode == 0
    again = mooring("init", cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_config_show_hides_secrets(tmp_path: Path) -> None:
    result = mooring("config", "show", "-o", "json", cwd=tmp_path, MOORING_STORE__TOKEN="s3cret")
    assert result.returncode == 0
    assert "s3cret" not in result.stdout
    assert "MOORING_STORE__TOKEN" in result.stdout
