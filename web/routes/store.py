"""The store of readings: how it does, and work on its files."""

from dataclasses import asdict

from fleet.views import Role
from web.api.layer import Routes
from web.api.problem import Problem
from web.call import Call
from web.keys import STORE_JOBS
from web.schemas.base import Id
from web.schemas.store import Store, StoreFinding, StoreJob
from web.store_jobs import Job, JobRunning, NoRoom, StoreFiles, StoreJobKind

store = Routes("Store", "Where readings are kept. A server such as InfluxDB looks after its files by itself: 409.")

_BUSY = (409, 507)


@store.get("/api/v1/store", summary="How the store does", role=Role.VIEWER, raises=(503,))
async def get_store(call: Call) -> Store:
    """Sizes are at most 30 s old."""
    found = call.gateway.store
    return Store(**asdict(await found.stats()), has_files=isinstance(found, StoreFiles))


@store.post("/api/v1/store:verify", summary="Look for damage", role=Role.ADMIN, status=202, raises=_BUSY)
async def verify_store(call: Call) -> StoreJob:
    """Decodes and checks every reading; meanwhile everything goes on."""
    return await _start(call, StoreJobKind.VERIFY)


@store.post("/api/v1/store:compact", summary="Compress all at once", role=Role.ADMIN, status=202, raises=_BUSY)
async def compact_store(call: Call) -> StoreJob:
    """The store does it by itself, a day after the other; this does not wait for it, and gives free space back."""
    return await _start(call, StoreJobKind.COMPACT)


@store.post("/api/v1/store:backup", summary="Copy it", role=Role.ADMIN, status=202, raises=_BUSY)
async def back_up_store(call: Call) -> StoreJob:
    """To a new directory below the server's `{data_dir}/backups`; 507 where the disk has no room for it."""
    return await _start(call, StoreJobKind.BACKUP)


@store.get("/api/v1/store/jobs/{id}", summary="How one of these does", role=Role.VIEWER, raises=(404,))
async def get_store_job(call: Call, job_id: Id) -> StoreJob:
    """The last 20 are remembered, until the server stops."""
    job = call.request.app[STORE_JOBS].get(job_id)
    if job is None:
        raise Problem(404, f"there is no job {job_id}")
    return _shape(job)


async def _start(call: Call, kind: StoreJobKind) -> StoreJob:
    files = call.gateway.store
    if not isinstance(files, StoreFiles):
        raise Problem(409, "this store looks after its files by itself: use its own tools")
    try:
        job = await call.request.app[STORE_JOBS].start(kind, files)
    except JobRunning as error:
        raise Problem(409, "another job is at work on the store: wait for it") from error
    except NoRoom as error:
        raise Problem(507, str(error)) from error
    await call.fleet.audit.record(call.actor, f"store.{kind}", "store", "readings", after={"job": job.id})
    return _shape(job)


def _shape(job: Job) -> StoreJob:
    return StoreJob(
        id=job.id,
        kind=job.kind,
        state=job.state,
        done=job.done,
        total=job.total,
        findings=[StoreFinding(**asdict(finding)) for finding in job.findings],
        found=job.found,
        directory=None if job.directory is None else str(job.directory),
        detail=job.detail,
    )
