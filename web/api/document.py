"""The OpenAPI 3.1 document, made from the declared routes. No I/O.

Models go in `components` once, under their own name; a model that looks different on its way in and on its way
out gets two.
"""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter

from web.api.layer import Route, Routes
from web.api.problem import CONTENT_TYPE, ProblemBody

_REF = "#/components/schemas/{model}"

Mode = Literal["validation", "serialization"]
Key = tuple[str, Mode]


def document(subjects: Sequence[Routes], *, title: str, version: str, description: str) -> dict[str, Any]:
    """The whole document. Operation ids are the handlers' names, in camel case."""
    routes = [route for subject in subjects for route in subject]
    schemas, components = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description},
        "tags": [{"name": subject.tag, "description": subject.description} for subject in subjects],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The access token that auth/login gives; good for 15 minutes.",
                }
            },
        },
    }


def operation_id(route: Route) -> str:
    """list_devices becomes listDevices."""
    head, *tail = route.handler.__name__.split("_")
    return head + "".join(word.capitalize() for word in tail)


def _schemas(routes: Iterable[Route]) -> tuple[dict[tuple[int, Mode], Any], dict[str, Any]]:
    inputs: list[tuple[int, Mode, TypeAdapter[Any]]] = [(id(ProblemBody), "serialization", TypeAdapter(ProblemBody))]
    seen: set[int] = {id(ProblemBody)}
    for route in routes:
        for model in (route.body_model, route.form_model):
            if model is not None and id(model) not in seen:
                seen.add(id(model))
                inputs.append((id(model), "validation", TypeAdapter(model)))
        if route.answer is not None:
            inputs.append((id(route.answer), "serialization", route.answer))
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)
    components = {name: _plain(schema) for name, schema in sorted(definitions.get("$defs", {}).items())}
    return dict(schemas), components


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A model's schema without the titles that pydantic makes of field names, and without "default: null".

    A null that means "left out" is said by `required` already; generators of clients would demand the field.
    """
    if "properties" not in schema:
        return schema
    fields = {
        name: {key: value for key, value in field.items() if key != "title" and (key != "default" or value is not None)}
        for name, field in schema["properties"].items()
    }
    return {**schema, "properties": fields}


def _operation(route: Route, schemas: dict[tuple[int, Mode], Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": operation_id(route), "summary": route.summary, "tags": [route.tag]}
    if route.description:
        operation["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", route.description)
    if route.role is not None:
        operation["security"] = [{"bearer": []}]
        operation["x-role"] = str(route.role)
    else:
        operation["security"] = []
    parameters = [*_parameters(route.path_model, "path"), *_parameters(route.query_model, "query")]
    parameters += [
        {
            "name": header.name,
            "in": "header",
            "required": header.required,
            "description": header.description,
            "schema": {"type": "string"},
        }
        for header in route.request_headers
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body_model is not None:
        schema = schemas[id(route.body_model), "validation"]
        required = any(field.is_required() for field in route.body_model.model_fields.values())
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    if route.form_model is not None:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _form(route)}}}
    if route.consumes:
        content = {media: {"schema": {"type": "string"}} for media in route.consumes}
        operation["requestBody"] = {"required": True, "content": content}
    operation["responses"] = _responses(route, schemas)
    return operation


def _form(route: Route) -> dict[str, Any]:
    assert route.form_model is not None  # noqa: S101
    schema = route.form_model.model_json_schema()
    fields = {name: _inline(one, schema.get("$defs", {})) for name, one in schema["properties"].items()}
    file = {"type": "string", "format": "binary", "description": "Last of all fields."}
    return {
        "type": "object",
        "properties": {**fields, "file": file},
        "required": [*schema.get("required", []), "file"],
    }


def _parameters(model: type[BaseModel] | None, place: Literal["path", "query"]) -> list[dict[str, Any]]:
    if model is None:
        return []
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    found = []
    for name, property_ in schema["properties"].items():
        inline = _inline(property_, definitions)
        parameter = {"name": name, "in": place, "required": place == "path" or name in schema.get("required", ())}
        if description := inline.pop("description", None):
            parameter["description"] = description
        found.append({**parameter, "schema": inline})
    return found


def _inline(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A parameter's schema without references, and without "or null", which a URL cannot say."""
    schema = {key: value for key, value in schema.items() if key != "title"}
    if "anyOf" in schema:
        options = [option for option in schema.pop("anyOf") if option != {"type": "null"}]
        schema = {**options[0], **schema} if len(options) == 1 else {"anyOf": options, **schema}
        if schema.get("default", ...) is None:
            del schema["default"]
    if reference := schema.pop("$ref", None):
        target = {key: value for key, value in definitions[reference.rsplit("/", 1)[1]].items() if key != "title"}
        schema = {**target, **schema}
    return schema


def _responses(route: Route, schemas: dict[tuple[int, Mode], Any]) -> dict[str, Any]:
    done: dict[str, Any] = {"description": HTTPStatus(route.status).phrase}
    if route.answer is not None:
        done["content"] = {route.produces: {"schema": schemas[id(route.answer), "serialization"]}}
    elif route.status != 204:
        binary = not route.produces.startswith("text/")
        done["content"] = {route.produces: {"schema": {"type": "string", **({"format": "binary"} if binary else {})}}}
    if route.answer_headers:
        done["headers"] = {
            header.name: {"description": header.description, "schema": {"type": "string"}}
            for header in route.answer_headers
        }
    problem = {"content": {CONTENT_TYPE: {"schema": schemas[id(ProblemBody), "serialization"]}}}
    responses = {str(route.status): done}
    for status in route.statuses:
        if status >= 400:
            responses[str(status)] = {"description": HTTPStatus(status).phrase, **problem}
        elif status != route.status:
            responses[str(status)] = {"description": HTTPStatus(status).phrase}
    responses["default"] = {"description": "Any other error", **problem}
    return responses
