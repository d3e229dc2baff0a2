"""Twin templates: the same wish for many devices, and who has come to it."""

from fleet.views import Role
from web.api.layer import Routes
from web.call import Call
from web.schemas.base import Id, Paged
from web.schemas.twin_templates import (
    CompliancePage,
    ComplianceQuery,
    DeviceCompliance,
    TwinTemplateCreate,
    TwinTemplateOut,
    TwinTemplatePage,
)

twin_templates = Routes("Twin templates", "What many devices should be like, and which of them are.")

_TEMPLATES = "/api/v1/twin-templates"


@twin_templates.get(_TEMPLATES, summary="Twin templates, newest first", role=Role.VIEWER)
async def list_twin_templates(call: Call, query: Paged) -> TwinTemplatePage:
    page = await call.fleet.twin_templates.list(cursor=query.cursor, limit=query.limit)
    return TwinTemplatePage(
        items=[TwinTemplateOut.model_validate(one.json()) for one in page.items],
        next_cursor=page.next_cursor,
        total=page.total,
    )


@twin_templates.post(
    _TEMPLATES, summary="Make and apply a template", role=Role.OPERATOR, status=201, raises=(409,), idempotent=True
)
async def create_twin_template(call: Call, body: TwinTemplateCreate) -> TwinTemplateOut:
    """Applied in the background to the devices that are its target now."""
    made = await call.fleet.twin_templates.create(
        call.actor, name=body.name, desired=body.desired, target=body.target.value()
    )
    return TwinTemplateOut.model_validate(made.json())


@twin_templates.get(f"{_TEMPLATES}/{{id}}", summary="One template", role=Role.VIEWER, raises=(404,))
async def get_twin_template(call: Call, template_id: Id) -> TwinTemplateOut:
    return TwinTemplateOut.model_validate((await call.fleet.twin_templates.get(template_id)).json())


@twin_templates.post(f"{_TEMPLATES}/{{id}}/apply", summary="Apply it again", role=Role.OPERATOR, raises=(404,))
async def apply_twin_template(call: Call, template_id: Id) -> TwinTemplateOut:
    """To the devices that are its target now: those that came since are taken in, those that are none are left out."""
    made = await call.fleet.twin_templates.apply(call.actor, template_id)
    return TwinTemplateOut.model_validate(made.json())


@twin_templates.delete(f"{_TEMPLATES}/{{id}}", summary="Delete a template", role=Role.OPERATOR, raises=(404,))
async def delete_twin_template(call: Call, template_id: Id) -> None:
    """The twins stay as they are."""
    await call.fleet.twin_templates.delete(call.actor, template_id)


@twin_templates.get(
    f"{_TEMPLATES}/{{id}}/compliance", summary="Who is as it asks, since when", role=Role.VIEWER, raises=(404,)
)
async def list_compliance(call: Call, template_id: Id, query: ComplianceQuery) -> CompliancePage:
    """By device id. A device is converged once it reports what was asked for, whatever else is desired of it."""
    page = await call.fleet.twin_templates.compliance(
        template_id, state=query.state or "", cursor=query.cursor, limit=query.limit
    )
    return CompliancePage(
        items=[DeviceCompliance.model_validate(one.json()) for one in page.items],
        next_cursor=page.next_cursor,
        total=page.total,
    )
