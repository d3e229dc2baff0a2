"""Readings of the past, taken in while everything goes on."""

from fleet.errors import AlreadyExists, Conflict, Invalid, NotFound
from fleet.views import Role
from gateway.journal_file import JournalError
from gateway.store import StoreError
from gateway.stores.transfer import BadRecord
from gateway.stores.transfer_lines import Mapping
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.imports import pour
from web.keys import IMPORTS
from web.schemas.imports import ImportBrokenOff, ImportQuery, ImportRefused, TelemetryImported

imports = Routes("Imports", "Readings of the past.")

MOST_CREATED = 1_000
CSV, LINES = "text/csv", "text/plain"


@imports.post(
    "/api/v1/telemetry:import",
    summary="Import readings",
    role=Role.OPERATOR,
    raises=(409, 503),
    consumes=(CSV, LINES),
)
async def import_telemetry(call: Call, query: ImportQuery) -> TelemetryImported:
    """CSV (text/csv) as an export has it, or InfluxDB line protocol (text/plain); a gzip file or not (known by its
    first bytes; no Content-Encoding), read as it comes.

    What is counted as stored is stored, and the same file again changes nothing: after a 503, or when it was broken
    off, send it once more. Readings go straight into the store, behind live ones. One import at a time (409).
    """
    media = call.request.content_type
    if media not in (CSV, LINES):
        raise Problem(415, f"send {CSV}, or {LINES} for line protocol, not {media[:60]}")
    running = call.request.app[IMPORTS]
    with running.one():
        devices = _Devices(call, query)
        importing = call.gateway.importing(
            is_known=devices.is_known,
            lines=None if media == CSV else _mapping(query),
            profile_of=call.fleet.profiles.of,
            dry_run=query.dry_run,
        )
        before = running.take_broken_off()
        ended = False
        reason = "the server stopped, or the sender went away"
        try:
            await pour(call.request, importing)
            result = await importing.finish()
            ended = True
        except Problem as error:
            reason = error.detail
            raise
        except BadRecord as error:
            reason = str(error)
            raise Problem(422, reason) from error
        except (StoreError, JournalError) as error:
            reason = str(error)
            detail = f"{reason}; {importing.result.points} readings were stored: send it again"
            raise Problem(503, detail) from error
        finally:
            importing.abandon()
            if not ended and not query.dry_run:
                running.broke_off(importing.result, reason)
            if not query.dry_run:
                after = {"records": importing.result.records, "stored": importing.result.points, "ended": ended}
                await call.fleet.audit.record(call.actor, "telemetry.import", "store", "readings", after=after)
    return TelemetryImported(
        records=result.records,
        stored=result.points,
        refused=result.bad_records,
        reasons=[
            ImportRefused(reason=one.reason, first_line=one.first_line, count=one.count)
            for one in result.reasons.values()
        ],
        devices_created=devices.created,
        dry_run=query.dry_run,
        broken_off=before and ImportBrokenOff(records=before.records, stored=before.stored, reason=before.reason),
    )


class _Devices:
    """Which devices may have readings; creates those that are asked for."""

    def __init__(self, call: Call, query: ImportQuery) -> None:
        self._call = call
        self._query = query
        self.created: list[str] = []

    async def is_known(self, device_id: str) -> bool:
        """Raises BadRecord where it cannot be created."""
        try:
            await self._call.fleet.devices.get(device_id)
            return True
        except NotFound:
            if not self._query.create_devices:
                return False
        if device_id in self.created and self._query.dry_run:
            return True
        if len(self.created) >= MOST_CREATED:
            raise BadRecord(f"an import creates at most {MOST_CREATED} devices: import the rest afterwards")
        if not self._query.dry_run:
            try:
                await self._call.fleet.devices.create(self._call.actor, id=device_id)
            except AlreadyExists:
                return True
            except (Conflict, Invalid) as error:
                raise BadRecord(f"{device_id} cannot be created: {error}") from error
        self.created.append(device_id)
        return True


def _mapping(query: ImportQuery) -> Mapping:
    return Mapping(
        device_tag=query.device_tag,
        measurement_prefix=query.measurement_prefix,
        metric_tags=tuple(tag for tag in query.metric_tags.split(",") if tag),
        precision=query.precision,
    )
