"""JSON Schemas (2020-12) that cannot hurt: bounded in size, without remote or circular references. No I/O, no clock.

A validator follows references by recursion and inlines what it finds, so a circle ends its process and a chain of
doublings its memory; both are counted here before anything is compiled. Patterns run on an automaton, in linear time.
What a message costs grows with its size times the schema's, which is why that product is bounded too.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jsonschema_rs
import orjson

SCHEMA_LIMIT_BYTES = 16 * 1024
_DEPTH = 24
_PARTS = 1000
"""Containers, and what lists hold, with every reference written out: what a value is checked against at most."""
_WORK = 250_000
"""Parts times values, and patterns times characters, of one check in the event loop: 0.1 s at 0.4 µs each. A pattern
that was made to be slow takes up to 5 µs a character."""
_PATTERN_BYTES = 1 << 16
"""Of a compiled pattern; the slowest of twice that size take twice as long."""
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_FOREIGN = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary", "$schema")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Schema:
    """A schema that is ready for messages. Raises ValueError as `checked_schema`."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._size = _checked_size(schema)
        self._validator = _compile(schema)

    def is_too_much(self, document: object, size_bytes: int) -> bool:
        """Whether checking a document, read from `size_bytes`, would hold up everybody else."""
        parts, patterns = self._size
        if parts * size_bytes + patterns * size_bytes <= _WORK:  # nothing has more values than bytes
            return False
        return parts * _values_in(document) + patterns * size_bytes > _WORK

    def wrong(self, document: object) -> str | None:
        """What is wrong with a message first and where, or None."""
        fault = self.fault(document)
        return None if fault is None else f"{fault[0] or 'the message'}: {fault[1]}"

    def fault(self, document: object) -> tuple[str, str] | None:
        """The same as the JSON pointer of the place and what is wrong there."""
        try:
            # Not iter_errors: that finds all of them before it gives the first, in seconds and gigabytes.
            self._validator.validate(document)
        except jsonschema_rs.ValidationError as error:
            return "".join(f"/{part}" for part in error.instance_path), error.message
        except ValueError:
            return "", "it holds what is not JSON, such as bytes or a time"
        return None


def checked_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """The schema itself. Raises ValueError with what is wrong and where."""
    if schema is not None:
        Schema(schema)
    return schema


def _compile(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=1 << 20),
            offline=True,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(f"not a JSON Schema: {str(error).splitlines()[0][:200]}") from error


class _Size(NamedTuple):
    """Of a schema, or a part of it: what values are checked against, and what texts are."""

    parts: int
    patterns: int


def _checked_size(schema: dict[str, Any]) -> _Size:
    try:
        size_bytes = len(orjson.dumps(schema))
    except TypeError as error:  # orjson gives up on what nests deeper than 254
        raise ValueError(f"not JSON, or nested too deep: {error}") from error
    if size_bytes > SCHEMA_LIMIT_BYTES:
        raise ValueError(f"larger than {SCHEMA_LIMIT_BYTES} bytes")
    size = _size(schema, schema, "", 0, {}, ("#",))
    if size.parts > _PARTS:
        raise ValueError(f"more than {_PARTS} parts, with every $ref written out")
    return size


def _size(root: Any, node: Any, path: str, depth: int, sizes: dict[str, _Size], within: tuple[str, ...]) -> _Size:
    """Of all below `node`, references followed. `within`: the references that led here."""
    if depth > _DEPTH:
        raise ValueError(f"{path[:100]}: nested deeper than {_DEPTH}")
    if isinstance(node, list):
        found = [_size(root, item, f"{path}/{i}", depth + 1, sizes, within) for i, item in enumerate(node)]
        return _Size(1 + sum(max(1, each.parts) for each in found), sum(each.patterns for each in found))
    if not isinstance(node, Mapping):
        return _Size(0, 0)
    parts, patterns = 1, 0
    for key, value in node.items():
        if key in _FOREIGN and isinstance(value, str) and not (key == "$schema" and value == _DIALECT):
            raise ValueError(f"{path}/{key}: is not taken here; {_DIALECT} without $id is")
        if key == "$ref" and isinstance(value, str):
            below = _referred(root, value, f"{path}/$ref", sizes, within)
        else:
            below = _size(root, value, f"{path}/{key}", depth + 1, sizes, within)
        parts, patterns = parts + below.parts, patterns + below.patterns
        if key == "pattern" and isinstance(value, str):
            patterns += 1
        elif key == "patternProperties" and isinstance(value, Mapping):
            patterns += len(value)
    if any(key in node for key in _UNEVALUATED):
        # To know what is left over, all beside it is gone through again; nested, these are powers.
        parts, patterns = 3 * parts, 3 * patterns
    return _Size(parts, patterns)


def _referred(root: Any, ref: str, path: str, sizes: dict[str, _Size], within: tuple[str, ...]) -> _Size:
    if ref in within:
        raise ValueError(f"{path}: {ref[:80]} leads back to itself")
    if ref not in sizes:
        if not ref.startswith("#/") or "%" in ref:
            raise ValueError(f"{path}: only a place in this schema, such as #/$defs/name")
        node = root
        for part in ref[2:].split("/"):
            if not isinstance(node, Mapping) or (key := part.replace("~1", "/").replace("~0", "~")) not in node:
                raise ValueError(f"{path}: there is no {ref[:80]}")
            node = node[key]
        if len(within) > _DEPTH:
            raise ValueError(f"{path}: references lead on more than {_DEPTH} times")
        sizes[ref] = _size(root, node, ref, 0, sizes, (*within, ref))
    return sizes[ref]


def _values_in(document: object) -> int:
    """How many values and names a document holds; layer by layer, since it may nest a thousand deep."""
    count, layer = 0, [document]
    while layer:
        count += len(layer)
        below: list[object] = []
        for value in layer:
            if isinstance(value, dict):
                count += len(value)
                below += value.values()
            elif isinstance(value, list):
                below += value
        layer = below
    return count
