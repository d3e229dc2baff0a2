"""The store that the settings name."""

from collections.abc import Callable

from gateway.store import Store
from gateway.stores.embedded import EmbeddedOptions, EmbeddedStore
from gateway.stores.influxdb import InfluxOptions, InfluxStore
from gateway.stores.victoriametrics import VictoriaOptions, VictoriaStore
from mooring.settings import Settings


def open_store(
    settings: Settings,
    *,
    retention_of: Callable[[str], int | None] | None = None,
    now_ms: Callable[[], int] | None = None,
) -> Store:
    """Made, not yet opened. `retention_of` says for how many days a device's readings are kept, `now_ms` by which
    clock: the embedded store alone asks them; the others have one retention for all, and a clock of their own."""
    store = settings.store
    token = store.token.get_secret_value() if store.token else ""
    if store.kind == "influxdb" and store.url:
        return InfluxStore(
            InfluxOptions(
                url=store.url,
                token=token,
                org=store.org,
                bucket=store.bucket,
                api=store.api,
            )
        )
    if store.kind == "victoriametrics" and store.url:
        return VictoriaStore(VictoriaOptions(url=store.url, token=token))
    return EmbeddedStore(
        EmbeddedOptions(
            directory=settings.data_dir / "readings",
            retention_days=store.retention_days,
            limit_bytes=None if store.limit_mib is None else store.limit_mib * 1024 * 1024,
        ),
        retention_of=retention_of,
        now_ms=now_ms,
    )
