"""JSON Schemas (2020-12) that cannot hurt: bounded in size, without remote or circular references. No I/O, no clock.

A validator follows references by recursion and inlines what it finds, so a circle ends its process and a chain of
doublings its memory; both are counted here before anything is compiled. Patterns run on an automaton, in linear time.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jsonschema_rs
import orjson

SCHEMA_LIMIT_BYTES = 16 * 1024
_DEPTH = 24
_NODES = 1000
"""Containers with every reference written out: what a message is checked against at most."""
_FOREIGN = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary", "$schema")
_DIALECT = "https://json-schema.org/draft/2020-12/schema"

Check = Callable[[object], str | None]


def checked_schema(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """The schema itself. Raises ValueError with what is wrong and where."""
    if schema is not None:
        _compile(schema)
    return schema


def compile_schema(schema: dict[str, Any]) -> Check:
    """A function that says what is wrong with a message and where, or None. Raises ValueError as `checked_schema`."""
    validator = _compile(schema)

    def check(document: object) -> str | None:
        try:
            validator.validate(document)  # stops at the first error: all of a hostile message's would take minutes
            return None
        except jsonschema_rs.ValidationError as found:
            error = found
        except ValueError:
            return "it holds what is not JSON, such as bytes or a time"
        path = "".join(f"/{part}" for part in error.instance_path)
        return f"{path or 'the message'}: {error.message}"

    return check


def _compile(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    _check_bounds(schema)
    try:
        return jsonschema_rs.Draft202012Validator(
            schema,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=1 << 18, dfa_size_limit=1 << 20),
            offline=True,
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise ValueError(f"not a JSON Schema: {str(error).splitlines()[0][:200]}") from error


def _check_bounds(schema: dict[str, Any]) -> None:
    try:
        size_bytes = len(orjson.dumps(schema))
    except TypeError as error:  # orjson gives up on what nests deeper than 254
        raise ValueError(f"not JSON, or nested too deep: {error}") from error
    if size_bytes > SCHEMA_LIMIT_BYTES:
        raise ValueError(f"larger than {SCHEMA_LIMIT_BYTES} bytes")
    sizes: dict[str, int] = {}
    if _nodes(schema, schema, "", 0, sizes, ("#",)) > _NODES:
        raise ValueError(f"more than {_NODES} parts, with every $ref written out")


def _nodes(root: Any, node: Any, path: str, depth: int, sizes: dict[str, int], within: tuple[str, ...]) -> int:
    """How many containers are below `node`, references followed. `within`: the references that led here."""
    if depth > _DEPTH:
        raise ValueError(f"{path[:100]}: nested deeper than {_DEPTH}")
    if isinstance(node, list):
        return 1 + sum(_nodes(root, item, f"{path}/{i}", depth + 1, sizes, within) for i, item in enumerate(node))
    if not isinstance(node, Mapping):
        return 0
    count = 1
    for key, value in node.items():
        if key in _FOREIGN and isinstance(value, str) and not (key == "$schema" and value == _DIALECT):
            raise ValueError(f"{path}/{key}: is not taken here; {_DIALECT} without $id is")
        if key == "$ref" and isinstance(value, str):
            count += _referred(root, value, f"{path}/$ref", sizes, within)
        else:
            count += _nodes(root, value, f"{path}/{key}", depth + 1, sizes, within)
    return count


def _referred(root: Any, ref: str, path: str, sizes: dict[str, int], within: tuple[str, ...]) -> int:
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
        sizes[ref] = _nodes(root, node, ref, 0, sizes, (*within, ref))
    return sizes[ref]
