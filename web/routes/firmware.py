"""Firmware: artifacts, campaigns, jobs."""

from aiohttp import web

from fleet.views import Campaign as CampaignView
from fleet.views import Role, StepTimeouts
from web.api.layer import Routes
from web.call import Call
from web.schemas.base import Id, Paged
from web.schemas.firmware import (
    Artifact,
    ArtifactFields,
    ArtifactPage,
    Campaign,
    CampaignCreate,
    CampaignPage,
    CampaignQuery,
    Job,
    JobPage,
    JobQuery,
)
from web.uploads import read_form

artifacts = Routes("Artifacts", "Firmware files.")
campaigns = Routes("Campaigns", "Updates of many devices; each has a job that always reaches an end.")


@artifacts.get("/api/v1/artifacts", summary="All artifacts, newest first", role=Role.VIEWER)
async def list_artifacts(call: Call, query: Paged) -> ArtifactPage:
    page = await call.fleet.artifacts.list(cursor=query.cursor, limit=query.limit)
    items = [Artifact.model_validate(artifact.json()) for artifact in page.items]
    return ArtifactPage(items=items, next_cursor=page.next_cursor, total=page.total)


@artifacts.post(
    "/api/v1/artifacts",
    summary="Upload an artifact",
    role=Role.OPERATOR,
    status=201,
    raises=(409, 507),
    form=ArtifactFields,
)
async def create_artifact(call: Call) -> Artifact:
    """A multipart form, its fields before the file. The file goes to disk as it arrives, 1 GiB at most by default."""
    fields, name, chunks = await read_form(call.request, ArtifactFields, call.parts.options.upload_limit_bytes)
    artifact = await call.fleet.artifacts.create(
        call.actor,
        version=fields.version,
        name=fields.name or name or fields.version,
        chunks=chunks,
        sha256=fields.sha256.lower() if fields.sha256 else None,
        description=fields.description,
    )
    return Artifact.model_validate(artifact.json())


@artifacts.get("/api/v1/artifacts/{id}", summary="One artifact", role=Role.VIEWER, raises=(404,))
async def get_artifact(call: Call, artifact_id: Id) -> Artifact:
    return Artifact.model_validate((await call.fleet.artifacts.get(artifact_id)).json())


@artifacts.delete("/api/v1/artifacts/{id}", summary="Delete an artifact", role=Role.OPERATOR, raises=(404, 409))
async def delete_artifact(call: Call, artifact_id: Id) -> None:
    """409 while an unfinished job needs it."""
    await call.fleet.artifacts.delete(call.actor, artifact_id)


@artifacts.get(
    "/api/v1/artifacts/{id}/file",
    summary="Download an artifact's file",
    role=Role.OPERATOR,
    raises=(206, 304, 404, 412, 416),
    produces="application/octet-stream",
)
async def get_artifact_file(call: Call, artifact_id: Id) -> web.StreamResponse:
    """Ranges are answered."""
    artifact = await call.fleet.artifacts.get(artifact_id)
    path = await call.fleet.artifacts.file(artifact_id)
    return web.FileResponse(
        path,
        headers={
            "Content-Type": "application/octet-stream",
            # Never shown, whatever it is: an SVG or HTML page from here would run as the console.
            "Content-Disposition": f'attachment; filename="{artifact.id}.bin"',
            "X-Content-SHA256": artifact.sha256,
        },
    )


@campaigns.get("/api/v1/campaigns", summary="All campaigns, newest first", role=Role.VIEWER)
async def list_campaigns(call: Call, query: CampaignQuery) -> CampaignPage:
    page = await call.fleet.campaigns.list(cursor=query.cursor, limit=query.limit, status=query.status or "")
    items = [_campaign(campaign) for campaign in page.items]
    return CampaignPage(items=items, next_cursor=page.next_cursor, total=page.total)


@campaigns.post(
    "/api/v1/campaigns", summary="Plan an update", role=Role.OPERATOR, status=201, raises=(404,), idempotent=True
)
async def create_campaign(call: Call, body: CampaignCreate) -> Campaign:
    """A job for each device. With `start` it begins at once."""
    given = {} if body.timeouts is None else body.timeouts.model_dump(exclude_none=True)
    campaign = await call.fleet.campaigns.create(
        call.actor,
        name=body.name,
        artifact_id=body.artifact,
        devices=body.devices,
        timeouts=StepTimeouts(**given) if given else None,
    )
    if body.start:
        campaign = await call.fleet.campaigns.start(call.actor, campaign.id)
    return _campaign(campaign)


@campaigns.get("/api/v1/campaigns/{id}", summary="One campaign", role=Role.VIEWER, raises=(404,))
async def get_campaign(call: Call, campaign_id: Id) -> Campaign:
    return _campaign(await call.fleet.campaigns.get(campaign_id))


@campaigns.get("/api/v1/campaigns/{id}/jobs", summary="A campaign's jobs", role=Role.VIEWER, raises=(404,))
async def list_jobs(call: Call, campaign_id: Id, query: JobQuery) -> JobPage:
    page = await call.fleet.campaigns.jobs(
        campaign_id, cursor=query.cursor, limit=query.limit, status=query.status or ""
    )
    items = [Job.model_validate(job.json()) for job in page.items]
    return JobPage(items=items, next_cursor=page.next_cursor, total=page.total)


@campaigns.post("/api/v1/campaigns/{id}/start", summary="Start a campaign", role=Role.OPERATOR, raises=(404, 409))
async def start_campaign(call: Call, campaign_id: Id) -> Campaign:
    return _campaign(await call.fleet.campaigns.start(call.actor, campaign_id))


@campaigns.post(
    "/api/v1/campaigns/{id}/abort", summary="Stop a campaign for good", role=Role.OPERATOR, raises=(404, 409)
)
async def abort_campaign(call: Call, campaign_id: Id) -> Campaign:
    """Jobs that have not ended are cancelled."""
    return _campaign(await call.fleet.campaigns.abort(call.actor, campaign_id))


@campaigns.post(
    "/api/v1/campaigns/{id}/retry",
    summary="Try the jobs again that did not succeed",
    role=Role.OPERATOR,
    raises=(404, 409),
)
async def retry_campaign(call: Call, campaign_id: Id) -> Campaign:
    """Those that failed, timed out or were rejected."""
    return _campaign(await call.fleet.campaigns.retry(call.actor, campaign_id))


def _campaign(campaign: CampaignView) -> Campaign:
    return Campaign.model_validate(campaign.json())
