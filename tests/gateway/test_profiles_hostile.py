"""Profiles and payloads that would hold up the event loop, or say two things at once."""

from time import perf_counter
from typing import Any

import cbor2
import orjson
import pytest

from gateway.channels import TELEMETRY, TELEMETRY_BINARY, TELEMETRY_CBOR
from gateway.decode import DEFAULT_LIMITS, Undecodable
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile
from gateway.profiles.schema import Schema, checked_schema

NOW_MS = 1_790_000_000_000

ENOUGH_S = 0.5
"""Far above what these take (some 0.03 s at most), far below what they took without bounds (1 to 24 s)."""


def profile(**telemetry: Any) -> CompiledProfile:
    return CompiledProfile(Profile.model_validate({"name": "pump", "telemetry": telemetry}))


def refusal(compiled: CompiledProfile, payload: object, channel: str = TELEMETRY) -> str:
    """The reason for which a payload is refused, within the time that a message may take."""
    raw = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    began = perf_counter()
    with pytest.raises(Undecodable) as caught:
        read(compiled, raw, channel)
    assert perf_counter() - began < ENOUGH_S
    return caught.value.reason


def read(compiled: CompiledProfile, raw: bytes, channel: str = TELEMETRY) -> dict[str, object]:
    fit, _ = compiled.read(
        channel,
        None,
        raw,
        device_id="d",
        now_ms=NOW_MS,
        limits=DEFAULT_LIMITS,
        stamp=iter(range(NOW_MS, NOW_MS + 300)).__next__,
    )
    return {reading.metric: reading.value for reading in fit}


# ---- mapping

MANY = range(256)


@pytest.mark.parametrize(
    ("telemetry", "payload"),
    [
        ({"mapping": [{"from": "/*", "metric": f"m{i}_{{n}}"} for i in MANY]}, [1] * 32_000),
        ({"mapping": [{"from": "/*/x", "metric": f"m{i}_{{n}}"} for i in MANY]}, [{}] * 21_000),
        ({"mapping": [{"from": f"/a{i}", "metric": f"m{i}"} for i in MANY], "each": ""}, [{}] * 21_000),
        ({"mapping": [{"from": f"/a{i}/*", "metric": f"m{i}_{{n}}"} for i in MANY], "each": ""}, [{}] * 21_000),
        ({"mapping": [{"from": "/*/x", "metric": f"m{i}_{{n}}"} for i in MANY], "each": ""}, [[0] * 120] * 250),
    ],
    ids=["values of items", "items without values", "documents", "documents without arrays", "arrays in documents"],
)
def test_rules_times_items_of_one_message_are_bounded(telemetry: dict[str, Any], payload: object) -> None:
    assert refusal(profile(**telemetry), payload) == "too_many_values"


def test_a_sparse_array_of_many_items_and_rules_is_read() -> None:
    compiled = profile(mapping=[{"from": f"/*/k{i}", "metric": f"k{i}_{{n}}"} for i in range(40)])
    assert len(read(compiled, orjson.dumps([{f"k{i % 40}": i} for i in range(200)]))) == 200


@pytest.mark.parametrize("text", ["1_000", "٣", " 5 ", "0x10", "", "1.", "--1", "9" * 41])
def test_text_that_only_python_calls_a_number_is_none(text: str) -> None:
    compiled = profile(mapping=[{"from": "/a", "metric": "a", "type": "number"}])
    assert refusal(compiled, {"a": text}) == "mapping_failed"


@pytest.mark.parametrize(("text", "value"), [("5", 5), ("-5", -5), ("+21.50", 21.5), ("1e3", 1000.0), ("007", 7)])
def test_text_that_is_a_number_is_read_as_one(text: str, value: float) -> None:
    compiled = profile(mapping=[{"from": "/a", "metric": "a", "type": "number"}])
    assert read(compiled, orjson.dumps({"a": text})) == {"a": value}


def test_a_pointer_to_an_item_has_no_leading_zeros() -> None:
    compiled = profile(
        mapping=[
            {"from": "/a/01", "metric": "wrong"},
            {"from": "/a/1", "metric": "right"},
            {"from": "/0", "metric": "b"},
        ]
    )
    assert read(compiled, orjson.dumps({"a": [1, 2], "0": 3})) == {"right": 2, "b": 3}


def test_two_values_of_one_metric_for_one_time_are_refused() -> None:
    mapping = profile(mapping=[{"from": "/a/*", "metric": "m_{n}"}, {"from": "/b", "metric": "m_0"}])
    assert refusal(mapping, {"a": [1], "b": 2}) == "duplicate_key"
    fields = [{"type": "u8", "metric": "m_0"}, {"repeat": 2, "fields": [{"type": "u8", "metric": "m_{n}"}]}]
    assert refusal(profile(binary={"fields": fields}), bytes(3), TELEMETRY_BINARY) == "duplicate_key"


# ---- schema

SLOW_TEXT = "abba" * 16_000


def _nested(levels: int, start: dict[str, Any], *, doubled: bool = False) -> dict[str, Any]:
    schema = start
    for _ in range(levels):
        inner = {"anyOf": [schema, schema]} if doubled else {"allOf": [schema]}
        schema = {**inner, "unevaluatedProperties": {"type": "number"}}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        _nested(8, {"type": "object"}),
        _nested(5, {"properties": {"a": True}}, doubled=True),
        {"enum": list(range(1001))},
        {"required": [f"k{i}" for i in range(1001)]},
    ],
    ids=["gone through again and again", "the same in pairs", "long enum", "long required"],
)
def test_a_schema_that_multiplies_work_is_not_taken(schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="more than 1000 parts"):
        checked_schema(schema)


def test_unevaluated_properties_are_taken_where_they_are_not_nested_deep() -> None:
    base = {"$defs": {"base": {"properties": {"a": {"type": "number"}}}}}
    compiled = profile(schema={**base, "allOf": [{"$ref": "#/$defs/base"}], "unevaluatedProperties": False})
    assert read(compiled, b'{"a": 1}') == {"a": 1}
    assert refusal(compiled, {"a": 1, "b": 2}) == "schema_violation"


def test_the_first_thing_wrong_is_told_without_looking_for_the_others() -> None:
    # To find all of them took 0.7 s and 160 MiB here; with a hundred alternatives 15 s and 1.5 GiB.
    compiled = profile(schema={"items": {"anyOf": [{"const": i} for i in range(10)]}})
    assert refusal(compiled, [10] * 10_000) == "schema_violation"


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        ({"items": {"not": {"anyOf": [{"const": i} for i in range(900)]}}}, [1000] * 13_000),
        ({"contains": {"anyOf": [{"const": i} for i in range(900)]}}, [1000] * 13_000),
        ({"additionalProperties": {"not": {"enum": list(range(900))}}}, {f"k{i}": 1000 for i in range(4000)}),
        ({"allOf": [{"not": {"pattern": f"[ab]*a[ab]{{{300 + i}}}c"}} for i in range(50)]}, SLOW_TEXT),
        ({"patternProperties": {f"^(a+)+{i}$": True for i in range(100)}}, {f"aaaaaaaaa{i}": 1 for i in range(3000)}),
    ],
    ids=["every item", "any item", "every member", "slow patterns", "patterns of names"],
)
def test_a_message_that_is_too_much_for_its_schema_is_refused_unchecked(
    schema: dict[str, Any], payload: object
) -> None:
    compiled = profile(schema=schema)
    assert refusal(compiled, payload) == "too_large"
    assert refusal(compiled, cbor2.dumps(payload), TELEMETRY_CBOR) == "too_large"


def test_a_schema_of_a_hundred_parts_checks_a_message_of_two_thousand_values() -> None:
    properties = {f"k{i}": {"type": "number", "minimum": -1, "maximum": 1} for i in range(45)}
    schema = Schema({"items": {"type": "object", "properties": properties, "additionalProperties": False}})
    document = [{f"k{i}": 0.123 for i in range(45)} for _ in range(20)]
    assert not schema.is_too_much(document, len(orjson.dumps(document)))
    assert schema.wrong(document) is None


def test_a_pattern_that_is_huge_when_it_is_compiled_is_not_taken() -> None:
    with pytest.raises(ValueError, match="not a JSON Schema"):
        checked_schema({"pattern": "[ab]*a[ab]{2000}c"})
    checked_schema({"pattern": r"^\p{L}+ [0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$"})
