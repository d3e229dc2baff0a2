"""What the embedded store would forget at once is refused by the server it belongs to, and by no other."""

import time
from pathlib import Path

import pytest

from gateway.link import Outcome, Uplink
from mooring.server import Server
from mooring.settings import Settings

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("store", "reason"),
    [({"retention_days": 7}, "too_old"), ({"kind": "victoriametrics", "url": "http://127.0.0.1:9"}, "")],
    ids=["embedded", "another"],
)
async def test_readings_past_the_retention_are_refused(tmp_path: Path, store: dict[str, object], reason: str) -> None:
    server = Server(Settings.model_validate({"data_dir": tmp_path, "store": store}))
    server._compose()
    gateway = server.gateway
    await gateway.journal.open()
    answers: list[Outcome] = []
    now_ms = time.time_ns() // 1_000_000
    for age_days in (6, 9):
        payload = b'{"ts": %d, "values": {"t": 1}}' % (now_ms - age_days * DAY_MS)
        uplink = Uplink(device_id="a", channel="telemetry", payload=payload, received_at_ms=now_ms)
        gateway.ingest.uplinks([uplink], answers.extend)
    await gateway.journal.close()
    assert [outcome.reason for outcome in answers] == ["", reason]
