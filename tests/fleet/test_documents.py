"""Merge patches and deltas."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.documents import delta, has_news, merge_patch, same
from fleet.errors import Invalid
from fleet.limits import checked_json, checked_object, checked_text, peer_text

# RFC 7396, appendix A
RFC_7396 = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]
DELTAS = [
    ({}, {"x": 1}, {}),
    ({"a": 1}, {}, {"a": 1}),
    ({"a": 1}, {"a": 1, "b": 2}, {}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 2}}),
    ({"a": {"b": 1}}, {"a": 5}, {"a": {"b": 1}}),
    ({"a": 5}, {"a": {"b": 1}}, {"a": 5}),
    ({"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2]}),
    ({"a": {}}, {}, {}),
    ({"on": True}, {"on": 1}, {"on": True}),
    ({"n": 1}, {"n": 1.0}, {}),
]
_documents = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=12,
)
_objects = st.dictionaries(st.text(max_size=2), _documents, max_size=4)


@pytest.mark.parametrize(("target", "patch", "result"), RFC_7396)
def test_merge_patch_as_in_the_rfc(target: str, patch: str, result: str) -> None:
    assert merge_patch(json.loads(target), json.loads(patch)) == json.loads(result)


@pytest.mark.parametrize(("desired", "reported", "expected"), DELTAS)
def test_delta_holds_every_differing_desired_leaf(desired: dict, reported: dict, expected: dict) -> None:
    assert delta(desired, reported) == expected


@given(_objects, _objects)
def test_a_patch_applied_twice_is_a_patch_applied_once(target: dict, patch: dict) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@given(_objects, _objects)
def test_a_device_that_reports_its_delta_has_none_left(desired: dict, reported: dict) -> None:
    desired, reported = merge_patch({}, desired), merge_patch({}, reported)
    assert delta(desired, merge_patch(reported, delta(desired, reported))) == {}


def test_news_is_only_what_was_not_asked_before() -> None:
    assert has_news({"a": 1}, {})
    assert not has_news({"a": 1}, {"a": 1, "b": 2})
    assert has_news({"a": {"b": 2}}, {"a": {"b": 1}})
    assert not has_news({}, {"a": 1})


def test_true_is_not_one() -> None:
    assert not same(True, 1)
    assert not same([0], [False])
    assert same({"a": [1, 2.0]}, {"a": [1.0, 2]})


def test_json_is_bounded_in_size_and_depth() -> None:
    deep: object = 1
    for _ in range(9):
        deep = {"a": deep}
    with pytest.raises(Invalid, match="deeper than 8"):
        checked_json("x", deep, limit_bytes=1000)
    with pytest.raises(Invalid, match="larger than 10"):
        checked_json("x", "y" * 20, limit_bytes=10)
    with pytest.raises(Invalid, match="JSON"):
        checked_json("x", {"a": 1 << 70}, limit_bytes=100)
    with pytest.raises(Invalid, match="object"):
        checked_object("x", [1], limit_bytes=100)


@pytest.mark.parametrize("text", ["", "  ", "a\x00b", "a\nb", "\u202eevil", "x" * 129, "\ud800"])
def test_texts_that_are_refused(text: str) -> None:
    with pytest.raises(Invalid):
        checked_text("name", text)


def test_a_devices_text_is_cleaned_and_cut() -> None:
    assert peer_text("a\x00b\nc") == "a b c"
    assert peer_text("x" * 2000) == "x" * 1023 + "…"
    assert peer_text({"code": 7}) == '{"code":7}'
    assert peer_text(None) == ""
