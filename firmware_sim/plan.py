"""Who is in the fleet: kinds, names, sites and places, the same in every run with the same seed. No I/O, no clock."""

from collections.abc import Iterator

from firmware_sim.chance import key, unit
from firmware_sim.device import DeviceSpec
from firmware_sim.options import SimOptions
from firmware_sim.signals import Kind

SITES = (
    ("hamburg", 53.541, 9.984),
    ("rotterdam", 51.948, 4.142),
    ("bergen", 60.395, 5.320),
    ("gdansk", 54.399, 18.667),
    ("valencia", 39.449, -0.317),
    ("genoa", 44.404, 8.913),
)

_TITLES = {
    Kind.PUMP: "Pump",
    Kind.COLD_STORE: "Cold store",
    Kind.WEATHER_STATION: "Weather station",
    Kind.ENERGY_METER: "Energy meter",
}


def plan(options: SimOptions) -> Iterator[DeviceSpec]:
    """The devices of a swarm: {prefix}-0001 and so on, kinds in turn, spread over the sites."""
    for number in range(options.first, options.first + options.devices):
        device_id = f"{options.prefix}-{number:04d}"
        kind = options.kinds[(number - 1) % len(options.kinds)]
        site, lat, lon = SITES[key(options.seed, device_id, "site") % len(SITES)]
        yield DeviceSpec(
            device_id=device_id,
            kind=kind,
            name=f"{_TITLES[kind]} {number}, {site.capitalize()}",
            site=site,
            serial=f"{key(options.seed, device_id, 'serial') % 10**8:08d}",
            lat=round(lat + 0.02 * (unit(options.seed, device_id, "lat") - 0.5), 5),
            lon=round(lon + 0.02 * (unit(options.seed, device_id, "lon") - 0.5), 5),
        )


def speaks_http(options: SimOptions, device_id: str) -> bool:
    """Whether a device speaks HTTP; the others speak MQTT."""
    if options.transport == "mixed":
        return unit(options.seed, device_id, "transport") < options.http_share
    return options.transport == "http"


def fetches_chunks(options: SimOptions, device_id: str) -> bool:
    """Whether an MQTT device fetches firmware in chunks over MQTT rather than over HTTP."""
    return unit(options.seed, device_id, "chunks") < options.chunk_share


def speaks_cbor(options: SimOptions, device_id: str) -> bool:
    """Whether a device sends its telemetry in CBOR."""
    if options.encoding == "mixed":
        return unit(options.seed, device_id, "encoding") < 0.5
    return options.encoding == "cbor"
