"""A multipart form with one file, read as it arrives: fields first, then the file, chunk by chunk, never all of it."""

import asyncio
import warnings
from collections.abc import AsyncIterator
from typing import TypeVar

from aiohttp import BodyPartReader, MultipartReader, hdrs, parse_content_disposition, web
from pydantic import BaseModel, ValidationError

from web.api.problem import Problem

M = TypeVar("M", bound=BaseModel)

_CHUNK = 64 * 1024
_FIELDS_S = 30.0  # for at most 128 KiB and what comes between them
_CHUNK_S = 60.0  # a chunk in a minute, 1 KB/s, is slower than any link worth waiting for
_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 8192
_MAX_NAME = 128


class _Form(MultipartReader):
    """A reader for which a part that does not say properly what it is, is an error. Raises ValueError."""

    async def fetch_next_part(self) -> "MultipartReader | BodyPartReader":
        part = await super().fetch_next_part()
        disposition = part.headers.get(hdrs.CONTENT_DISPOSITION)
        # aiohttp warns, each time with the peer's text; nothing is awaited in here, so that nobody else's are changed.
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                _, parameters = parse_content_disposition(disposition)
            except RuntimeWarning as error:
                raise ValueError("a part's Content-Disposition is malformed") from error
        if parameters.get("name") == "_charset_":  # which aiohttp would act upon
            raise ValueError("fields are UTF-8, and _charset_ is none of them")
        return part


async def read_form(request: web.Request, model: type[M], limit_bytes: int) -> tuple[M, str, AsyncIterator[bytes]]:
    """The form's fields, the file's own name (cleaned; may be empty), and the file's chunks, to be read once.

    Reading the fields raises Problem 400, 408, 415 and 422. Reading the chunks raises Problem 413 past `limit_bytes`,
    422 when more fields follow the file, 400 when the form breaks off: whoever stores them must drop what came so far.
    """
    if request.content_type != "multipart/form-data":
        raise Problem(415, "send multipart/form-data")
    if (request.content_length or 0) > limit_bytes + _MAX_FIELDS * _MAX_FIELD_BYTES:
        raise Problem(413, f"the file is larger than {limit_bytes} bytes")
    try:
        reader = _Form(request.headers, request.content, max_size_error_cls=web.HTTPRequestEntityTooLarge)
        async with asyncio.timeout(_FIELDS_S):
            values, part = await _fields(reader)
    except TimeoutError as error:
        raise Problem(408, "the form did not come in time", headers={"Connection": "close"}) from error
    except ValueError as error:
        raise Problem(400, f"the form cannot be read: {error}") from error
    if part is None:
        raise Problem(422, "file: is required", errors=[("file", "is required, after all other fields")])
    try:
        fields = model.model_validate(values)
    except ValidationError as error:
        raise Problem.of_input(error.errors(include_url=False, include_input=False, include_context=False)) from error
    return fields, _file_name(part.filename), _chunks(reader, part, limit_bytes)


async def _fields(reader: MultipartReader) -> tuple[dict[str, str], BodyPartReader | None]:
    values: dict[str, str] = {}
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or part.name is None:
            raise Problem(400, "the form has a part without a name")
        if part.name == "file":
            return values, part
        if len(values) >= _MAX_FIELDS or part.name in values:
            raise Problem(422, "the form has too many fields, or one twice")
        raw = bytearray()
        while chunk := await part.read_chunk(_MAX_FIELD_BYTES):
            raw += chunk
            if len(raw) > _MAX_FIELD_BYTES:
                raise Problem(422, "a field of the form is too long", errors=[(part.name[:64], "is too long")])
        values[part.name] = raw.decode()
        if "\0" in values[part.name]:
            raise Problem(422, "a field of the form has a NUL character")
    return values, None


async def _chunks(reader: MultipartReader, part: BodyPartReader, limit_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    try:
        while chunk := await _next_chunk(part):
            size += len(chunk)
            if size > limit_bytes:
                raise Problem(413, f"the file is larger than {limit_bytes} bytes")
            yield bytes(chunk)
        if not part.at_eof():
            raise Problem(400, "the form breaks off")
        if await reader.next() is not None:
            raise Problem(422, "the file must be the form's last field", errors=[("file", "must be the last field")])
    except ValueError as error:
        raise Problem(400, f"the form cannot be read: {error}") from error


async def _next_chunk(part: BodyPartReader) -> bytearray | bytes:
    try:
        async with asyncio.timeout(_CHUNK_S):
            return await part.read_chunk(_CHUNK)
    except TimeoutError as error:
        raise Problem(408, "the file did not come in time", headers={"Connection": "close"}) from error


def _file_name(name: str | None) -> str:
    """The last part of a file name, whatever the sender's system separates with, printable and cut."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(character for character in last if character.isprintable())[:_MAX_NAME]
