"""The stores a gateway can keep its readings in. Which one, the settings say; all pass the same contract suite."""

from gateway.store import Store
from gateway.stores.embedded import DayStats, EmbeddedOptions, EmbeddedStore, Finding
from gateway.stores.influxdb import InfluxOptions, InfluxStore
from gateway.stores.victoriametrics import VictoriaOptions, VictoriaStore

__all__ = [
    "DayStats",
    "EmbeddedOptions",
    "EmbeddedStore",
    "Finding",
    "InfluxOptions",
    "InfluxStore",
    "VictoriaOptions",
    "VictoriaStore",
    "make_store",
]


def make_store(options: EmbeddedOptions | InfluxOptions | VictoriaOptions) -> Store:
    """The store for these options, not yet opened."""
    match options:
        case EmbeddedOptions():
            return EmbeddedStore(options)
        case InfluxOptions():
            return InfluxStore(options)
        case VictoriaOptions():
            return VictoriaStore(options)
