"""Settings: precedence, secrets in files, and every mistake in one line that names the setting and its source."""

import re
from pathlib import Path

import pytest

from mooring.cli.config import template
from mooring.errors import SettingsError
from mooring.settings import load, rows

DOCS = Path(__file__).parents[2] / "docs"


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "mooring.toml"
    file.write_text("[web]\nport = 1\nhost = '127.0.0.2'\n[broker]\nport = 7\n")
    settings = load({"web": {"port": 3}}, file=file, environ={"MOORING_WEB__PORT": "2", "MOORING_BROKER__PORT": "8"})
    assert (settings.web.port, settings.broker.port, settings.web.host) == (3, 8, "127.0.0.2")
    assert settings.device_http.port == 8081


def test_a_flag_that_was_not_given_hides_nothing() -> None:
    assert load({"web": {"port": None}}, environ={"MOORING_WEB__PORT": "2"}).web.port == 2


def test_secret_is_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    settings = load(environ={"MOORING_STORE__TOKEN_FILE": str(secret)})
    assert settings.store.token is not None
    assert settings.store.token.get_secret_value() == "s3cret"
    assert "s3cret" not in repr(settings)


def test_database_defaults_to_a_file_in_the_data_directory() -> None:
    assert load({"data_dir": "/somewhere"}, environ={}).database_url == "sqlite:///somewhere/fleet.db"


def test_empty_ws_port_turns_the_listener_off(tmp_path: Path) -> None:
    assert load(environ={"MOORING_BROKER__WS_PORT": ""}).broker.ws_port is None
    file = tmp_path / "mooring.toml"
    file.write_text('[broker]\nws_port = ""\nurl = ""\n')
    assert load(file=file, environ={}).broker.ws_port is None
    assert load(file=file, environ={}).broker.url is None


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"MOORING_COLOUR": "red"}, "unknown setting MOORING_COLOUR in the environment"),
        ({"MOORING_WEB__PROT": "1"}, "unknown setting MOORING_WEB__PROT in the environment"),
        ({"MOORING_WEB__PORT": "many"}, "setting web.port in environment: input should be a valid integer"),
        ({"MOORING_WEB__PORT": "70000"}, "setting web.port in environment: input should be less than or equal to"),
        ({"MOORING_INGEST__CLOCK_SKEW_S": "0"}, "setting ingest.clock_skew_s in environment: input should be greater"),
        ({"MOORING_INGEST__CLOCK_SKEW_S": "nan"}, "setting ingest.clock_skew_s in environment: input should be"),
        ({"MOORING_BROKER__ENGINE": "external"}, "broker.url must say where"),
        ({"MOORING_STORE__KIND": "influxdb"}, "store.url must say where"),
        ({"MOORING_ADMIN__USERNAME": "ann"}, "belong together"),
        ({"MOORING_STORE__TOKEN_FILE": "/nowhere/token"}, "cannot be read: No such file"),
        ({"MOORING_CONFIG": "/nowhere/mooring.toml"}, "cannot read settings file /nowhere/mooring.toml"),
    ],
)
def test_mistake_in_the_environment_is_one_line(environ: dict[str, str], text: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(text)) as error:
        load(environ=environ)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        ("colour = 1", "unknown setting colour in"),
        ("[web]\nprot = 1", "unknown setting web.prot in"),
        ("[web\n", "is not valid TOML"),
        ("web = 3", "setting web in"),
    ],
)
def test_mistake_in_the_file_is_one_line(tmp_path: Path, toml: str, text: str) -> None:
    file = tmp_path / "mooring.toml"
    file.write_text(toml)
    with pytest.raises(SettingsError, match=re.escape(text)) as error:
        load(file=file, environ={})
    assert "\n" not in str(error.value)


def test_template_names_every_setting_and_loads_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mooring.toml"
    file.write_text(template())
    assert load(file=file, environ={}) == load(environ={})
    file.write_text(re.sub("(?m)^#(?=[a-z_]+ = )", "", template()))
    uncommented = load(file=file, environ={})
    assert uncommented.broker.ws_port == 8083
    assert uncommented == load(environ={})
    assert all(f"#{name.split('.')[-1]} = " in template() for name, _, _ in rows())


def test_every_setting_is_documented_and_described() -> None:
    page = (DOCS / "settings.md").read_text()
    for name, environment, field in rows():
        assert field.description, name
        assert f"`{environment}`" in page, f"docs/settings.md lacks {environment}: run `make docs`"
        assert str(field.description) in page, f"docs/settings.md is out of date at {name}: run `make docs`"
