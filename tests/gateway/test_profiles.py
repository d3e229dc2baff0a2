"""Profiles: what documents are taken, and what they make of payloads."""

import struct
from itertools import pairwise
from typing import Any

import cbor2
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.channels import TELEMETRY, TELEMETRY_BINARY, TELEMETRY_CBOR, TELEMETRY_SENML
from gateway.decode import DEFAULT_LIMITS, Undecodable
from gateway.profiles.compiled import CompiledProfile
from gateway.profiles.document import Profile
from gateway.profiles.schema import checked_schema

NOW_MS = 1_790_000_000_000
NOW_S = NOW_MS // 1000


def profile(**telemetry: Any) -> CompiledProfile:
    return CompiledProfile(Profile.model_validate({"name": "pump", "telemetry": telemetry}))


def read(
    compiled: CompiledProfile, payload: object, channel: str = TELEMETRY, content_type: str | None = None
) -> tuple[list[tuple[str, int, object]], list[tuple[str, str]]]:
    """What is stored as (metric, ms from now, value), and what is not as (metric, reason)."""
    raw = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    fit, unfit = compiled.read(
        channel,
        content_type,
        raw,
        device_id="d",
        now_ms=NOW_MS,
        limits=DEFAULT_LIMITS,
        stamp=iter(range(NOW_MS, NOW_MS + 9)).__next__,
    )
    return (
        [(one.metric, one.ts_ms - NOW_MS, one.value) for one in fit],
        [(one.metric, str(reason)) for one, reason, _ in unfit],
    )


def refusal(compiled: CompiledProfile, payload: object, channel: str = TELEMETRY) -> tuple[str, str]:
    with pytest.raises(Undecodable) as caught:
        read(compiled, payload, channel)
    return str(caught.value.reason), caught.value.detail


def is_read_or_refused_in_one_line(compiled: CompiledProfile, payload: bytes, channel: str) -> bool:
    try:
        read(compiled, payload, channel)
    except Undecodable as refused:
        return refused.detail.isprintable()
    return True


# ---- metrics


def test_a_metric_that_is_not_as_declared_is_refused_alone() -> None:
    compiled = profile(
        metrics={"t": {"type": "number", "min": -40, "max": 85}, "on": {"type": "boolean"}, "n": {"max": 3}},
        unknown_metrics="refuse",
    )
    assert read(compiled, {"t": 20.5, "on": True, "n": 3}) == ([("t", 0, 20.5), ("on", 0, True), ("n", 0, 3)], [])
    assert read(compiled, {"t": 85.5, "on": 1, "x": 1, "n": "a"}) == (
        [],
        [("t", "out_of_range"), ("on", "wrong_type"), ("x", "unknown_metric"), ("n", "wrong_type")],
    )
    assert read(compiled, {"t": -41, "on": False}) == ([("on", 0, False)], [("t", "out_of_range")])


def test_senml_and_cbor_are_checked_too() -> None:
    compiled = profile(metrics={"t": {"max": 30}}, unknown_metrics="refuse")
    assert read(compiled, [{"n": "t", "v": 31}], TELEMETRY_SENML)[1] == [("t", "out_of_range")]
    assert read(compiled, cbor2.dumps({"t": 29}), TELEMETRY_CBOR)[0] == [("t", 0, 29)]


@pytest.mark.parametrize(
    ("telemetry", "reads"),
    [
        ({}, False),
        ({"metrics": {"t": {"unit": "Cel"}}}, False),
        ({"metrics": {"t": {"min": 0}}}, True),
        ({"unknown_metrics": "refuse"}, True),
        ({"schema": {"type": "object"}}, True),
    ],
)
def test_a_profile_that_declares_nothing_to_check_reads_nothing(telemetry: dict[str, Any], reads: bool) -> None:
    assert profile(**telemetry).reads is reads


# ---- mapping


def test_a_foreign_document_becomes_readings() -> None:
    compiled = profile(
        mapping=[
            {"from": "/data/temp", "metric": "temperature", "scale": 0.1, "offset": -40},
            {"from": "/data/open", "metric": "open", "type": "boolean"},
            {"from": "/a~1b/m~0n/1", "metric": "second"},
            {"from": "/cells/*/mv", "metric": "cell_{n}", "scale": 0.001},
            {"from": "/data/fw", "metric": "firmware", "type": "text"},
        ],
        time={"from": "/at", "unit": "s"},
    )
    document = {
        "at": NOW_S - 5,
        "id": 2**63,
        "data": {"temp": "653", "open": 1, "fw": 3},
        "a/b": {"m~n": [7, 8]},
        "cells": [{"mv": 3301}, {}, {"mv": 3299}],
    }
    assert read(compiled, document)[0] == [
        ("temperature", -5000, 25.3),
        ("open", -5000, True),
        ("second", -5000, 8),
        ("cell_0", -5000, 3.301),
        ("cell_2", -5000, 3.299),
        ("firmware", -5000, "3"),
    ]
    assert read(compiled, cbor2.dumps({"data": {"temp": 10}}), TELEMETRY_CBOR)[0] == [("temperature", 0, -39.0)]


@pytest.mark.parametrize(
    ("unit", "value", "at_ms"),
    [
        ("s", NOW_S + 0.25, 250),
        ("ms", NOW_MS, 0),
        ("us", NOW_MS * 1000 + 7, 0),
        ("ns", NOW_MS * 1_000_000 + 7, 0),
        ("iso8601", "2026-09-21T14:13:20Z", 0),
        ("iso8601", "2026-09-21T14:13:20.5", 500),
    ],
)
def test_times_come_in_many_units(unit: str, value: object, at_ms: int) -> None:
    compiled = profile(each="/rows", mapping=[{"from": "/v", "metric": "v"}], time={"from": "/t", "unit": unit})
    assert read(compiled, {"rows": [{"v": 1, "t": value}, {"v": 2}]})[0] == [("v", at_ms, 1), ("v", 0, 2)]


@pytest.mark.parametrize(
    ("document", "reason", "place"),
    [
        ({}, "mapping_failed", "/v"),
        ({"v": None}, "mapping_failed", "/v"),
        ({"v": [1]}, "mapping_failed", "/v"),
        ({"v": "x"}, "mapping_failed", "/v"),
        ({"v": "nan"}, "not_a_number", "/v"),
        ({"v": 2**60}, "number_out_of_range", "/v"),
        ({"v": 1, "t": "soon"}, "bad_timestamp", "/t"),
        ({"v": 1, "t": 1e300}, "bad_timestamp", "time"),
        ({"v": 1, "t": 5}, "bad_timestamp", "time"),
        (b'{"v":1,"v":2}', "duplicate_key", "v"),
        ([], "mapping_failed", "/v"),
    ],
)
def test_a_document_that_cannot_be_mapped_is_refused_with_its_place(document: object, reason: str, place: str) -> None:
    compiled = profile(
        mapping=[{"from": "/v", "metric": "v", "type": "number", "required": True}], time={"from": "/t", "unit": "ms"}
    )
    found, detail = refusal(compiled, document)
    assert found == reason
    assert place in detail


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_document_is_mapped_or_refused(document: Any) -> None:
    compiled = profile(mapping=[{"from": "/*/0", "metric": "m{n}"}, {"from": "", "metric": "all"}])
    assert is_read_or_refused_in_one_line(compiled, orjson.dumps(document), TELEMETRY)


# ---- binary

_STRUCT = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q"}


@given(st.data(), st.sampled_from(["big", "little"]))
def test_binary_reads_what_struct_packs(data: st.DataObject, order: str) -> None:
    types = data.draw(st.lists(st.sampled_from([*_STRUCT, "f32", "f64"]), min_size=1, max_size=20))
    sent: list[int | float] = []
    for type_ in types:
        if type_[0] == "f":
            sent.append(data.draw(st.floats(width=32 if type_ == "f32" else 64, allow_nan=False, allow_infinity=False)))
        else:
            bits = min(int(type_[1:]), 53)
            low, high = (0, 2**bits - 1) if type_[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            sent.append(data.draw(st.integers(low, high)))
    codes = "".join({"f32": "f", "f64": "d", **_STRUCT}[type_] for type_ in types)
    payload = struct.pack((">" if order == "big" else "<") + codes, *sent)
    fields = [{"type": type_, "metric": f"m{place}"} for place, type_ in enumerate(types)]
    found, _ = read(profile(binary={"byte_order": order, "fields": fields}), payload, TELEMETRY_BINARY)
    assert [value for _, _, value in found] == sent
    assert refusal(profile(binary={"fields": fields}), payload + b"\0", TELEMETRY_BINARY)[0] == "binary_mismatch"
    assert refusal(profile(binary={"fields": fields}), payload[:-1], TELEMETRY_BINARY)[0] == "binary_mismatch"


@given(st.integers(0, 2**24 - 1), st.integers(-(2**39), 2**39 - 1))
def test_odd_sizes_and_bits_are_read_exactly(unsigned: int, signed: int) -> None:
    compiled = profile(
        binary={
            "byte_order": "little",
            "fields": [
                {"type": "u24", "bits": [
                    {"low": 0, "metric": "flag", "type": "boolean"},
                    {"low": 1, "count": 11, "metric": "low"},
                    {"low": 12, "count": 12, "metric": "high", "signed": True},
                ]},
                {"type": "i40", "byte_order": "big", "metric": "signed"},
            ],
        }
    )  # fmt: skip
    payload = unsigned.to_bytes(3, "little") + signed.to_bytes(5, "big", signed=True)
    high = unsigned >> 12
    assert read(compiled, payload, TELEMETRY_BINARY)[0] == [
        ("flag", 0, bool(unsigned & 1)),
        ("low", 0, unsigned >> 1 & 0x7FF),
        ("high", 0, high - 4096 if high >= 2048 else high),
        ("signed", 0, signed),
    ]


LOGGER = {
    "fields": [
        {"type": "u8", "const": 2},
        {"skip": 1},
        {"type": "bool", "metric": "door"},
        {"repeat": 2, "fields": [{"type": "u16", "metric": "cell_{n}", "scale": 0.001}]},
        {"repeat": "rest", "fields": [{"type": "u32", "time": "s"}, {"type": "i16", "metric": "t", "scale": 0.01}]},
    ]
}


def test_constants_groups_and_times_of_their_own() -> None:
    head = struct.pack(">BxBHH", 2, 1, 3301, 3299)
    rows = struct.pack(">IhIh", NOW_S - 60, 2153, NOW_S, -5)
    compiled = profile(binary=LOGGER)
    assert read(compiled, head + rows, TELEMETRY_BINARY)[0] == [
        ("door", 0, True),
        ("cell_0", 0, 3.301),
        ("cell_1", 0, 3.299),
        ("t", -60_000, 21.53),
        ("t", 0, -0.05),
    ]
    assert len(read(compiled, head, TELEMETRY, "application/octet-stream; v=1")[0]) == 3
    assert refusal(compiled, head + rows[:-1], TELEMETRY_BINARY)[0] == "binary_mismatch"
    assert refusal(compiled, b"\3" + head[1:], TELEMETRY_BINARY) == ("binary_mismatch", "byte 0: 3, the layout has 2")
    assert refusal(compiled, head + b"\0" * 6, TELEMETRY_BINARY)[0] == "bad_timestamp"
    assert refusal(compiled, head + rows * 200, TELEMETRY_BINARY)[0] == "too_many_values"


@pytest.mark.parametrize(
    ("type_", "payload", "reason"),
    [
        ("f32", struct.pack(">f", float("nan")), "not_a_number"),
        ("f64", struct.pack(">d", float("inf")), "number_out_of_range"),
        ("f16", struct.pack(">e", float("-inf")), "number_out_of_range"),
        ("u64", b"\xff" * 8, "number_out_of_range"),
    ],
)
def test_numbers_that_no_store_keeps_are_refused(type_: str, payload: bytes, reason: str) -> None:
    assert refusal(profile(binary={"fields": [{"type": type_, "metric": "m"}]}), payload, TELEMETRY_BINARY)[0] == reason


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    fields = [{"type": "f64", "time": "ns"}, {"type": "f32", "metric": "f", "scale": 1e300, "offset": 1}]
    for binary in (LOGGER, {"fields": [{"repeat": "rest", "fields": fields}]}):
        assert is_read_or_refused_in_one_line(profile(binary=binary), payload, TELEMETRY_BINARY)


def test_bytes_without_a_layout_are_refused() -> None:
    assert refusal(profile(unknown_metrics="refuse"), b"{}", TELEMETRY_BINARY)[0] == "unsupported_content_type"


# ---- schema


def test_a_message_must_satisfy_the_schema() -> None:
    compiled = profile(schema={"properties": {"t": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"maximum": 50}}})
    assert read(compiled, {"t": 50})[0] == [("t", 0, 50)]
    reason, detail = refusal(compiled, {"t": 51})
    assert reason == "schema_violation"
    assert detail.startswith("/t: 51 is greater than")
    assert refusal(compiled, cbor2.dumps({"t": 51}), TELEMETRY_CBOR)[0] == "schema_violation"


@pytest.mark.parametrize("payload", [cbor2.dumps({"a": b"x"}), cbor2.dumps({b"a": 1})])
def test_what_is_not_json_does_not_satisfy_a_schema(payload: bytes) -> None:
    assert (
        refusal(profile(schema={"additionalProperties": {"type": "number"}}), payload, TELEMETRY_CBOR)[0]
        == "schema_violation"
    )


def test_a_deep_message_is_refused_and_a_long_one_is_cut_in_the_detail() -> None:
    compiled = profile(schema={"additionalProperties": {"maxLength": 5}})
    assert len(refusal(compiled, {"a": "b" * 60_000})[1]) <= 200
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    assert refusal(compiled, {"a": deep})[0] in ("schema_violation", "too_deep")
    with pytest.raises(Undecodable):
        read(compiled, b"[" * 30_000 + b"]" * 30_000)


def _doubling() -> dict[str, Any]:
    names = "abcdefghijkl"
    defs: dict[str, Any] = {
        one: {"allOf": [{"$ref": f"#/$defs/{two}"}, {"$ref": f"#/$defs/{two}"}]} for one, two in pairwise(names)
    }
    return {"$ref": "#/$defs/a", "$defs": {**defs, "l": {}}}


def _nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "nope"}, "not a JSON Schema"),
        ({"pattern": "(a{1000}){1000}"}, "not a JSON Schema"),
        ({"$ref": "http://127.0.0.1/x"}, "only a place in this schema"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$ref": "#/$defs/a"}, "there is no"),
        ({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "leads back to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "leads back to itself"),
        ({"$dynamicRef": "#x"}, "is not taken here"),
        ({"$id": "http://127.0.0.1/x"}, "is not taken here"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "is not taken here"),
        (_doubling(), "more than 1000 parts"),
        (_nested(30), "nested deeper"),
        (_nested(400), "nested too deep"),
        ({"enum": ["x" * 20_000]}, "larger than"),
    ],
)
def test_a_hostile_schema_is_not_taken(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        checked_schema(schema)


def test_a_pattern_runs_in_linear_time() -> None:
    compiled = profile(schema={"properties": {"a": {"pattern": "^(a+)+$"}}})
    assert refusal(compiled, {"a": "a" * 60_000 + "b"})[0] == "schema_violation"


# ---- documents


@pytest.mark.parametrize(
    ("telemetry", "path"),
    [
        ({"metrics": {"t": {"min": 2, "max": 1}}}, ("metrics", "t")),
        ({"metrics": {"t": {"type": "text", "max": 1}}}, ("metrics", "t")),
        ({"metrics": {"t": {"type": "color"}}}, ("metrics", "t", "type")),
        ({"schema": {"type": "nope"}}, ("schema",)),
        ({"mapping": [{"from": "a", "metric": "a"}]}, ("mapping", 0, "from")),
        ({"mapping": [{"from": "/~2", "metric": "a"}]}, ("mapping", 0, "from")),
        ({"mapping": [{"from": "/*/*", "metric": "a{n}"}]}, ("mapping", 0, "from")),
        ({"mapping": [{"from": "/*", "metric": "a"}]}, ("mapping", 0)),
        ({"mapping": [{"from": "/a", "metric": "a", "scale": True}]}, ("mapping", 0, "scale")),
        ({"mapping": [{"from": "/a", "metric": "a"}] * 2}, ()),
        ({"time": {"from": "/a"}}, ()),
        ({"binary": {"fields": []}}, ("binary", "fields")),
        ({"binary": {"fields": [{"type": "u8"}]}}, ("binary",)),
        ({"binary": {"fields": [{"type": "u8", "const": 256}]}}, ("binary", "fields", 0)),
        ({"binary": {"fields": [{"type": "f32", "bits": [{"low": 0, "metric": "a"}]}]}}, ("binary", "fields", 0)),
        ({"binary": {"fields": [{"type": "u8", "bits": [{"low": 8, "metric": "a"}]}]}}, ("binary", "fields", 0)),
        ({"binary": {"fields": [{"type": "u8", "metric": "a", "time": "s"}]}}, ("binary", "fields", 0)),
        ({"binary": {"fields": [{"repeat": 2, "fields": [{"type": "u8", "metric": "a"}]}]}}, ("binary", "fields", 0)),
        ({"binary": {"fields": [{"type": "u8", "metric": "a"}, {"type": "u8", "metric": "a"}]}}, ("binary",)),
        ({"bianry": {}}, ("bianry",)),
    ],
)
def test_what_is_wrong_with_a_document_is_said_with_its_path(telemetry: dict[str, Any], path: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        Profile.model_validate({"name": "p", "telemetry": telemetry})
    (error,) = caught.value.errors()
    assert error["loc"][: len(path) + 1] == ("telemetry", *path)


def test_a_field_of_a_layout_is_judged_as_what_it_is_meant_to_be() -> None:
    fields = [{"type": "u99"}, {"skip": 0}, {"repeat": 0, "fields": [{"skip": 1}]}, {"repeat": 1, "fields": [{}]}, 7]
    with pytest.raises(ValidationError) as caught:
        Profile.model_validate({"name": "p", "telemetry": {"binary": {"fields": fields}}})
    assert [error["loc"][3:] for error in caught.value.errors()] == [
        (0, "field", "type"),
        (1, "skip", "skip"),
        (2, "repeat"),
        (3, "repeat", "fields", 0, "field", "type"),
        (4, "field"),
    ]


def test_a_document_comes_back_as_it_was_written() -> None:
    document = Profile.model_validate(
        {"name": "p", "telemetry": {"binary": LOGGER, "schema": {}, "mapping": [{"from": "/a", "metric": "a"}]}}
    ).json_document()
    assert document["telemetry"]["mapping"][0]["from"] == "/a"
    assert Profile.model_validate(document).json_document() == document
