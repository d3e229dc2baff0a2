"""Where the server says that devices reach it."""

from pathlib import Path
from typing import Any

import pytest

from mooring.server import Server, without_credentials
from mooring.settings import Settings
from web.parts import DeviceEndpoints


def endpoints(directory: Path, **settings: Any) -> DeviceEndpoints:
    return Server(Settings.model_validate({"data_dir": directory, **settings}))._device_endpoints()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://broker:1883", "mqtt://broker:1883"),
        ("mqtts://mooring:p%40ss@broker.example.com:8883", "mqtts://broker.example.com:8883"),
        ("mqtt://user:a@b@[::1]:1883/?clientid=secret#x", "mqtt://[::1]:1883"),
    ],
)
def test_the_url_of_an_external_broker_is_shown_without_its_password(tmp_path: Path, url: str, shown: str) -> None:
    assert without_credentials(url) == shown
    found = endpoints(tmp_path, broker={"engine": "external", "url": url})
    assert (found.mqtt, found.mqtt_ws, found.mqtt_tls) == (shown, None, None)


def test_the_device_api_has_its_public_url_or_the_listeners_own(tmp_path: Path) -> None:
    assert endpoints(tmp_path, device_http={"host": "0.0.0.0", "port": 81}).device_http == "http://0.0.0.0:81"
    assert endpoints(tmp_path, device_http={"host": "::", "port": 81}).device_http == "http://[::]:81"
    assert endpoints(tmp_path, device_http={"public_url": "https://d.example"}).device_http == "https://d.example"
