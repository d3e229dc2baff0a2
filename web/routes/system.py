"""The server itself: overview, audit, health, metrics, and the description of this API."""

import hmac

from aiohttp import web

from fleet.audit_chain import parse_mark
from fleet.views import Role
from web.access import bearer
from web.api.layer import Routes
from web.api.problem import Problem
from web.audit_lines import send_audit
from web.call import Call
from web.docs import docs_page
from web.keys import DOCUMENT, METRICS, OVERVIEWS
from web.overview import READY
from web.schemas.system import (
    AuditEntry,
    AuditHead,
    AuditPage,
    AuditQuery,
    AuditReport,
    AuditVerifyQuery,
    Health,
    Overview,
    Readiness,
)

system = Routes("Server", "How the server does.")
audit = Routes("Audit", "Who changed what.")


@system.get("/api/v1/overview", summary="The whole on one page", role=Role.VIEWER)
async def get_overview(call: Call) -> Overview:
    return await call.request.app[OVERVIEWS].overview()


@system.get("/healthz", summary="Whether the process answers", role=None)
async def get_health(call: Call) -> Health:
    return Health(status="ok")


@system.get("/readyz", summary="Whether every part works", role=None, raises=(503,))
async def get_readiness(call: Call) -> Readiness:
    """503 with the parts that do not, in `errors`."""
    parts = await call.request.app[OVERVIEWS].parts()
    bad = [part for part in parts if part.state not in READY]
    if bad:
        errors = [(part.name, f"{part.state}: {part.detail}") for part in bad]
        raise Problem(503, f"not ready: {', '.join(part.name for part in bad)}", errors=errors)
    return Readiness(status="ready", parts=parts)


@system.get(
    "/metrics", summary="Metrics for Prometheus", role=None, raises=(401,), produces="text/plain; version=0.0.4"
)
async def get_metrics(call: Call) -> web.StreamResponse:
    """A bearer token is asked for when the server was given one for this."""
    wanted = call.parts.options.metrics_token
    if wanted is not None and not hmac.compare_digest((bearer(call.request) or "").encode(), wanted.encode()):
        raise Problem(401, "metrics ask for their own token", headers={"WWW-Authenticate": "Bearer"})
    body, content_type = await call.request.app[METRICS].render(call.request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


@system.get("/api/openapi.json", summary="This description", role=None, produces="application/json")
async def get_openapi(call: Call) -> web.StreamResponse:
    return web.Response(body=call.request.app[DOCUMENT], content_type="application/json")


@system.get("/api/docs", summary="This description, to be read", role=None, produces="text/html")
async def get_docs(call: Call) -> web.StreamResponse:
    return docs_page()


@audit.get("/api/v1/audit", summary="Changes, newest first", role=Role.ADMIN)
async def list_audit(call: Call, query: AuditQuery) -> AuditPage:
    page = await call.fleet.audit.list(
        cursor=query.cursor, limit=query.limit, actor=query.actor, action=query.action, target_id=query.target
    )
    items = [AuditEntry.model_validate(entry.json()) for entry in page.items]
    return AuditPage(items=items, next_cursor=page.next_cursor, total=page.total)


@audit.get("/api/v1/audit:head", summary="The newest entry's number and digest", role=Role.ADMIN)
async def get_audit_head(call: Call) -> AuditHead:
    """Each entry is chained to the one before it. A head that is kept elsewhere shows later whether the audit was cut
    off or written anew."""
    trail = call.fleet.audit
    return AuditHead(head=str(await trail.head()), anchor=str(await trail.anchor()))


@audit.get("/api/v1/audit:verify", summary="Whether the audit is whole and unchanged", role=Role.ADMIN, raises=(409,))
async def verify_audit(call: Call, query: AuditVerifyQuery) -> AuditReport:
    """Reads all of it: entries that were edited, deleted, put in, or change places are found."""
    known = None if query.head is None else parse_mark(query.head)
    return AuditReport.model_validate((await call.fleet.audit.verify(known)).json())


@audit.get(
    "/api/v1/audit:export",
    summary="All entries, oldest first, as lines of JSON",
    role=Role.ADMIN,
    raises=(503,),
    produces="application/x-ndjson",
)
async def export_audit(call: Call) -> web.StreamResponse:
    """`mooring audit verify FILE` checks such a file without the server."""
    return await send_audit(call.request, call.fleet.audit)
