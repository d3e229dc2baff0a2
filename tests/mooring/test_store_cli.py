"""`mooring store`: files out and in again, a move killed half way, and one line for what cannot be done."""

import asyncio
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet
import pytest

from gateway.readings import Reading
from gateway.store import Query
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from gateway.stores.influxdb import InfluxOptions, InfluxStore
from tests import servers
from tests.mooring.test_cli import mooring

DAY_MS = 86_400_000
START_MS = (time.time_ns() // 1_000_000 // DAY_MS - 3) * DAY_MS
READINGS = [
    Reading(device, metric, START_MS + second * 1000, value)
    for device in ("pump-1", "pump-2")
    for second in range(50)
    for metric, value in (("t", second + 0.5), ("note", '=1+1, "x"\n'), ("on", True))
]


def fill(data_dir: Path, readings: Sequence[Reading]) -> None:
    async def run() -> None:
        store = EmbeddedStore(EmbeddedOptions(directory=data_dir / "readings", synchronous="normal"))
        await store.open()
        await store.write(readings)
        await store.close()

    asyncio.run(run())


def content(data_dir: Path, devices: Sequence[str] = ("pump-1", "pump-2")) -> list[Reading]:
    async def run() -> list[Reading]:
        store = EmbeddedStore(EmbeddedOptions(directory=data_dir / "readings"))
        await store.open()
        found: list[Reading] = []
        for device in devices:
            answer = await store.query(Query(device_id=device, start_ms=0, end_ms=START_MS + 9 * DAY_MS))
            found += [
                Reading(device, metric, ts, value)
                for metric, series in answer.items()
                for ts, value in zip(series.t, series.v, strict=True)
            ]
        await store.close()
        return sorted(found, key=lambda reading: reading[:3])

    return asyncio.run(run())


def in_order(readings: Sequence[Reading]) -> list[Reading]:
    return sorted(readings, key=lambda reading: reading[:3])


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    fill(tmp_path / "data", READINGS)
    return tmp_path / "data"


@pytest.mark.parametrize("form", [(), ("--wide",)])
def test_an_export_imported_elsewhere_is_the_same_readings(data_dir: Path, tmp_path: Path, form: tuple[str]) -> None:
    exported = mooring("store", "export", "out.csv", *form, cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    assert f"{len(READINGS)} readings" in exported.stderr
    (tmp_path / "other" / "readings").mkdir(parents=True)
    arguments = ("store", "import", "out.csv", "--any-device", "--data-dir", "other")
    for _ in range(2):  # again: the same points
        imported = mooring(*arguments, cwd=tmp_path)
        assert imported.returncode == 0, imported.stderr
        assert content(tmp_path / "other") == in_order(READINGS)
    assert not list(tmp_path.glob("*.import.json"))


def test_an_export_is_narrowed_by_device_metric_and_time(data_dir: Path, tmp_path: Path) -> None:
    narrow = ("--device", "pump-2", "--metric", "t", "--start", str(START_MS + 5000), "--end", str(START_MS + 7000))
    result = mooring("store", "export", "-", *narrow, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = result.stdout.splitlines()
    assert rows[0] == "device,metric,ts,time,type,value"
    assert [row.split(",")[0::5] for row in rows[1:]] == [["pump-2", "5.5"], ["pump-2", "6.5"]]


def test_a_parquet_file_holds_every_reading_in_the_column_of_its_kind(data_dir: Path, tmp_path: Path) -> None:
    result = mooring("store", "export", "out.parquet", "--format", "parquet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    found = []
    for row in rows:
        (value,) = [row[kind] for kind in ("number", "boolean", "text") if row[kind] is not None]
        found.append(Reading(row["device"], row["metric"], round(row["ts"].timestamp() * 1000), value))
    assert in_order(found) == in_order(READINGS)


def test_without_pyarrow_parquet_says_what_to_install(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "shadow" / "pyarrow").mkdir(parents=True)
    (tmp_path / "shadow" / "pyarrow" / "__init__.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path / "shadow"), os.environ.get("PYTHONPATH", "")])
    result = mooring("store", "export", "out.parquet", "--format", "parquet", cwd=tmp_path, PYTHONPATH=path)
    assert result.returncode == 2
    assert "mooring[parquet]" in result.stderr
    assert not list(tmp_path.glob("*out.parquet*"))


def test_stats_are_told_as_json(data_dir: Path, tmp_path: Path) -> None:
    result = mooring("store", "stats", "-o", "json", cwd=tmp_path)
    (told,) = json.loads(result.stdout)
    assert (told["points"], told["devices"], told["oldest_ms"]) == (len(READINGS), 2, START_MS)
    by_day = json.loads(mooring("store", "stats", "--days", "-o", "json", cwd=tmp_path).stdout)
    assert by_day[0]["day"] == f"{datetime.fromtimestamp(START_MS / 1000, UTC):%Y-%m-%d}"
    assert sum(each["loose_points"] + each["sealed_points"] for each in by_day) == len(READINGS)
    wrong = mooring("store", "stats", "--days", "--url", "http://127.0.0.1:1", cwd=tmp_path)
    assert (wrong.returncode, "not with --url" in wrong.stderr) == (2, True)


def test_line_protocol_is_taken_in_and_its_bad_lines_are_told(data_dir: Path, tmp_path: Path) -> None:
    second = START_MS // 1000
    lines = [
        f'weather,host=pump-1 wind=3i,sky="two\nlines" {second}',
        "nonsense",
        f"weather,host=stranger wind=1 {second}",
        f"weather,host=pump-1 t=t {second}",
        "weather,host=pump-1 wind=1 12",
        f"weather,host=pump-2 wind=4 {second}",
    ]
    (tmp_path / "old.lp.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    arguments = ("store", "import", "old.lp.gz", "--format", "lines", "--precision", "s", "--device-tag", "host")
    dry = mooring(*arguments, "--dry-run", "-o", "json", cwd=tmp_path)
    assert dry.returncode == 1
    assert [error["line"] for error in json.loads(dry.stdout)] == [3, 4, 5, 6]
    assert content(data_dir) == in_order(READINGS)
    result = mooring(*arguments, "-o", "json", cwd=tmp_path)
    assert result.returncode == 1
    assert "3 readings stored, 4 records left out" in result.stderr
    reasons = [error["reason"] for error in json.loads(result.stdout)]
    for reason, words in zip(reasons, ("no fields", "not a device", "t is a number", "before 2000"), strict=True):
        assert words in reason
    new = [Reading("pump-1", "wind", START_MS, 3), Reading("pump-1", "sky", START_MS, "two\nlines")]
    new.append(Reading("pump-2", "wind", START_MS, 4))
    assert content(data_dir) == in_order([*READINGS, *new])


@pytest.mark.parametrize("changed", [False, True])
def test_an_import_goes_on_behind_its_checkpoint_unless_the_file_changed(
    data_dir: Path, tmp_path: Path, changed: bool
) -> None:
    first, second = (f"pump-1,{START_MS + ms},{ms}\n" for ms in (1, 2))
    file = tmp_path / "in.csv"
    file.write_text(f"device,ts,extra\n{first}{second}")
    status = file.stat()
    place = {"offset": len("device,ts,extra\n" + first), "file": [status.st_size + changed, status.st_mtime_ns]}
    (tmp_path / "in.csv.import.json").write_text(json.dumps(place))
    assert mooring("store", "import", "in.csv", cwd=tmp_path).returncode == 0
    stored = (1, 2) if changed else (2,)
    assert content(data_dir) == in_order([*READINGS, *(Reading("pump-1", "extra", START_MS + ms, ms) for ms in stored)])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("stats", "--data-dir", "nowhere"), 2, "no readings in nowhere"),
        (("import", "nothing.csv"), 2, "no file nothing.csv"),
        (("export", "-", "--start", "yesterday"), 2, "--start"),
        (("export", "missing/out.csv"), 1, "missing"),
        (("import", "bad.csv"), 1, "must name the columns"),
        (("import", "cut.csv.gz"), 1, "ended before"),
        (("copy", "--to", "influxdb", "--target-url", "http://127.0.0.1:1", "--from-day", "soon"), 2, "--from-day"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    data_dir: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(b"device,ts,x\n")[:-9])
    (tmp_path / "cut.csv.gz.import.json").write_text("{")
    result = mooring("store", *arguments, cwd=tmp_path)
    assert result.returncode == code, result.stderr
    assert words in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def test_a_store_in_use_says_so(data_dir: Path, tmp_path: Path) -> None:
    async def run() -> subprocess.CompletedProcess[str]:
        store = EmbeddedStore(EmbeddedOptions(directory=data_dir / "readings"))
        await store.open()
        try:
            return await asyncio.to_thread(mooring, "store", "stats", cwd=tmp_path)
        finally:
            await store.close()

    result = asyncio.run(run())
    assert result.returncode == 2
    assert "in use" in result.stderr
    assert "Stop the server first" in result.stderr


def test_another_store_is_not_ours_to_open(data_dir: Path, tmp_path: Path) -> None:
    environ = {"MOORING_STORE__KIND": "influxdb", "MOORING_STORE__URL": "http://127.0.0.1:1"}
    result = mooring("store", "stats", cwd=tmp_path, **environ)
    assert result.returncode == 2
    assert "store.kind is influxdb" in result.stderr


@pytest.mark.servers
def test_a_copy_killed_half_way_and_run_again_has_everything_once(tmp_path: Path) -> None:
    devices = [f"pump-{number}" for number in range(60)]
    readings = [Reading(d, "t", START_MS + s * 100, float(s)) for d in devices for s in range(2000)]
    fill(tmp_path / "data", readings)
    with servers.influxdb() as influx:
        arguments = ("store", "copy", "--to", "influxdb", "--target-url", influx.url, "--bucket", "b", "--api", "v1")
        environ = {**os.environ, "MOORING_DATA_DIR": str(tmp_path / "data")}
        first = subprocess.Popen([sys.executable, "-m", "mooring", *arguments], env=environ, stderr=subprocess.DEVNULL)
        checkpoint = tmp_path / "data" / "store-copy.json"
        deadline = time.monotonic() + 30
        while first.poll() is None and time.monotonic() < deadline:
            if checkpoint.exists() and json.loads(checkpoint.read_text())["device"] > "pump-1":
                break
            time.sleep(0.005)
        first.send_signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL, "it ended before it could be killed"
        second = mooring(*arguments, cwd=tmp_path)
        assert second.returncode == 0, second.stderr
        assert "gone on where it was" in second.stderr
        assert int(second.stderr.split()[0]) < len(readings)

        async def counts() -> list[int]:
            store = InfluxStore(InfluxOptions(url=influx.url, bucket="b", api="v1"))
            await store.open()
            try:
                query = [Query(device_id=d, start_ms=0, end_ms=START_MS + DAY_MS) for d in devices]
                return [len((await store.query(one))["t"].t) for one in query]
            finally:
                await store.close()

        assert asyncio.run(counts()) == [2000] * 60


def test_a_store_is_verified_compacted_and_backed_up(data_dir: Path, tmp_path: Path) -> None:
    verified = mooring("store", "verify", cwd=tmp_path)
    assert (verified.returncode, "All files are well." in verified.stderr) == (0, True), verified
    compacted = mooring("store", "compact", cwd=tmp_path)
    assert compacted.returncode == 0, compacted.stderr
    (stats,) = json.loads(mooring("store", "stats", "-o", "json", cwd=tmp_path).stdout)
    assert (stats["points"], stats["loose_points"]) == (len(READINGS), 0)
    copy = tmp_path / "copy" / "readings"
    backed_up = mooring("store", "backup", str(copy), cwd=tmp_path)
    assert backed_up.returncode == 0, backed_up.stderr
    assert content(copy.parent) == content(data_dir) == in_order(READINGS)
    again = mooring("store", "backup", str(copy), cwd=tmp_path)
    assert (again.returncode, "is not an empty directory" in again.stderr) == (2, True)

    (day,) = copy.glob("*.db")
    with sqlite3.connect(day) as database:
        database.execute("UPDATE chunk SET body = x'00' WHERE sid = 1")
    database.close()
    found = mooring("store", "verify", "--data-dir", str(copy.parent), "-o", "json", cwd=tmp_path)
    assert found.returncode == 1
    (finding,) = json.loads(found.stdout)
    assert (finding["file"], finding["series"]) == (day.name, "pump-1 t")
