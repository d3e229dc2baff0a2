"""The query language: what it says, what it refuses and where, and that the databases understand it as Python does."""

import itertools
import random
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.clock import EPOCH
from fleet.errors import Invalid
from fleet.models import DeviceRow
from fleet.query import QueryError, Term, parse, text_of
from fleet.query.leaves import LEAVES_LIMIT, Leaf, leaves
from fleet.query.terms import And, Compare, Field, Has, Literal, Not, OneOf, Operator, Or
from fleet.query.versions import KEY_LIMIT, version_key
from fleet.views import DeviceStatus
from tests.fleet.conftest import ANNA, Rig
from tests.fleet.query_model import Facts, matches

A, B, C = (Compare(Field("name"), Operator.EQUAL, Literal(each, False)) for each in "abc")


@pytest.mark.parametrize(
    ("query", "term"),
    [
        ("name = a", A),
        ('name="a"', Compare(Field("name"), Operator.EQUAL, Literal("a"))),
        ("name = a or name = b and name = c", Or((A, And((B, C))))),
        ("(name = a OR name = b) AND name = c", And((Or((A, B)), C))),
        ("not name = a and name = b", And((Not(A), B))),
        ("NOT (name = a and name = b)", Not(And((A, B)))),
        ('profile in (pump, "a fan")', OneOf(Field("profile"), (Literal("pump", False), Literal("a fan")))),
        ("id not in (x)", Not(OneOf(Field("id"), (Literal("x", False),)))),
        ("has tag", Has(Field("tag"))),
        ('has attributes."two words"', Has(Field("attributes", "two words"))),
        ("tags.site ~ A*", None),
        ("firmware<2.1.0-rc1", Compare(Field("firmware"), Operator.LESS, Literal("2.1.0-rc1", False))),
        (r'name = "say \"a\\b\""', Compare(Field("name"), Operator.EQUAL, Literal('say "a\\b"'))),
    ],
)
def test_a_query_is_understood(query: str, term: Term | None) -> None:
    if term is None:
        with pytest.raises(QueryError, match="column 14: '\\*' has to be in quotes"):
            parse(query)
    else:
        assert parse(query) == term


@pytest.mark.parametrize(
    ("query", "column", "detail"),
    [
        ("", 1, "a field was expected, not the end"),
        ("nome = a", 1, "no field 'nome'"),
        ("name", 5, "was expected, not the end"),
        ("name = ", 8, "a value was expected, not the end"),
        ("name = a b", 10, '"and", "or" or the end'),
        ("name = a and", 13, "a field was expected"),
        ("(name = a", 10, '")" was expected'),
        ("name = a)", 9, "the end was expected"),
        ('name = "a', 8, "does not end"),
        ('name = "a\x00"', 8, "control character"),
        ("name = a; DROP TABLE device", 9, "has to be in quotes"),
        ("name = a' or '1'='1", 9, "has to be in quotes"),
        ("name = not", 8, "has to be in quotes"),
        ("name < b", 8, "name is compared with"),
        ("name in ()", 10, "a value was expected"),
        ("name.x = 1", 1, "name has no keys"),
        ("tags = x", 1, "tags wants a key"),
        ("status = offlin", 10, "status is one of"),
        ("firmware < golden", 12, "no version"),
        ("last_seen < soon", 13, "an age such as"),
        ("last_seen < 2026-11-20T12:00:00", 13, "an age such as"),
        ("last_seen < 999999w", 13, "an age such as"),
        ("last_seen = 2h", 13, "last_seen is compared with"),
        ("disabled = maybe", 12, "true or false"),
        ('attributes.floor < "3"', 20, "wants a number"),
        ("name = " + "a" * 129, 8, "at most 128"),
        (" " * 2001, 2001, "at most 2,000"),
        ("(" * 17 + "name = a" + ")" * 17, 18, "deeper than 16"),
        ("not " * 17 + "name = a", 69, "deeper than 16"),
        (" or ".join(["id = a"] * 51), 501, "more than 50 comparisons"),
        (f"id in ({', '.join(['a'] * 101)})", 4, "more than 100 values"),
    ],
)
def test_what_means_nothing_is_refused_with_its_column(query: str, column: int, detail: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(query)
    assert detail in caught.value.detail
    assert caught.value.column == column


_words = st.from_regex(r"[A-Za-z0-9_.:+-]{1,20}", fullmatch=True).filter(
    lambda word: word.lower() not in ("and", "or", "not", "in", "has")
)
_texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
_literals = st.one_of(_words.map(lambda word: Literal(word, False)), _texts.map(Literal))
_keys = st.one_of(st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5})?", fullmatch=True), _texts.filter(bool))
_fields = st.one_of(
    st.sampled_from([Field("id"), Field("name"), Field("profile"), Field("tag")]),
    st.builds(Field, st.sampled_from(["tags", "attributes"]), _keys),
)
_operators = st.sampled_from([Operator.EQUAL, Operator.UNEQUAL, Operator.LIKE])
_leaves = st.one_of(
    st.builds(Compare, _fields, _operators, _literals),
    st.builds(OneOf, _fields, st.lists(_literals, min_size=1, max_size=3).map(tuple)),
    st.builds(Has, _fields),
)
_terms: st.SearchStrategy[Term] = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=8,
)


@given(_terms)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_as_the_same(term: Term) -> None:
    assert parse(text_of(term)) == term


@given(
    st.one_of(
        st.text(max_size=80),
        st.lists(
            st.sampled_from(
                [
                    "name",
                    "=",
                    "(",
                    ")",
                    "not",
                    "in",
                    ",",
                    '"',
                    "a",
                    "<",
                    "last_seen",
                    "2h",
                    "tags.",
                    "has",
                    "\\",
                    "'",
                    "--",
                    "and",
                ]
            )
        ).map(" ".join),
    )
)
@settings(max_examples=400, deadline=None)
def test_whatever_text_is_a_query_or_the_declared_error(text: str) -> None:
    column = _fault_column(text)
    assert column is None or 1 <= column <= len(text) + 1


def _fault_column(text: str) -> int | None:
    try:
        parse(text)
    except QueryError as error:
        return error.column
    return None


def test_versions_sort_as_versions() -> None:
    ordered = ["0.9", "1.9", "1.10", "2.0-alpha", "2.0-alpha.1", "2.0-alpha.2", "2.0-alpha.10"]
    ordered += ["2.0-beta", "2.0-rc1", "2.0", "2.0.1", "2.1", "10.0", "20260101"]
    keys = [version_key(each) for each in ordered]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert len({version_key(each) for each in ("2", "2.0", "v2.0.0", "02.0+build7", " 2.0 ")}) == 1


@pytest.mark.parametrize("text", ["", "golden", "9" * 19, "v", "-1", "²"])
def test_what_is_no_version_has_no_key(text: str) -> None:
    assert version_key(text) == ""


@given(st.text(max_size=128))
@settings(max_examples=200, deadline=None)
def test_a_key_is_digits_of_bounded_length(version: str) -> None:
    key = version_key("1." + version)
    assert len(key) <= KEY_LIMIT
    assert key == "" or (key.isascii() and key.isdigit())


def test_attributes_are_found_by_their_leaves() -> None:
    found = leaves({"site": {"floor": 3, "hot": True, "no": None}, "roles": ["a", "b", "a"], "long": "x" * 129})
    assert found == [
        Leaf("site.floor", "", 3.0),
        Leaf("site.hot", "true", None),
        Leaf("roles", "a", None),
        Leaf("roles", "b", None),
    ]
    assert len(leaves({str(n): n for n in range(1000)})) == LEAVES_LIMIT
    assert leaves({"a": "\0", "b\0": 1}) == []


_QUERIES = """
status = offline and tags.site = "A" and firmware < 2.1.0 and not (profile in ("pump", "fan")) and last_seen < 2h
status = offline
status != online
tags.site = A
tags.site ~ "A*"
not has tags.site
tags."100%" = x
tags.a_b = x
tag = outdoor or tag ~ "out?oor"
tag ~ "[a*"
tag ~ "100%*"
tag ~ "a_b*"
has tag and not has profile
firmware < 2.1
not firmware < 2.1
firmware >= 2.0-rc1 and firmware <= 2.0.0
firmware = 2.0
firmware ~ "2.*"
has firmware
last_seen < 2h
last_seen >= 2h
last_seen > "2026-11-20T11:30:00Z"
not has last_seen
disabled = true
disabled != true and status = offline
attributes.floor = 3
attributes.floor != 3
attributes.floor > 2.5
attributes.floor = "3"
attributes.roles = a and attributes.roles = b
attributes.site.hot = true
has attributes.site.hot
attributes."odd key" ~ "*'*"
attributes.floor in (1, "3", 4)
name ~ "d1*" or id in (d3, d5)
name ~ "D1*"
name = "'; DROP TABLE device; --"
""".strip().splitlines()


async def test_the_database_understands_a_query_as_python_does(rig: Rig) -> None:
    chance = random.Random(5)
    now = rig.clock.utc()
    tags = ["site=A", "site:A", "site=AB", "site:B", "outdoor", "[a]", "100%=x", "100x=x", "a_b=x", "axb=x", "100%"]
    attributes: list[dict[str, object]] = [
        {"floor": 3},
        {"floor": "3"},
        {"floor": 2.5, "roles": ["a", "b"]},
        {"roles": ["a"], "site": {"hot": True}},
        {"odd key": "it's", "site": {"hot": False}},
        {},
    ]
    versions = ["", "1.9", "1.10", "2.0-rc1", "2.0", "2.0.0", "v2.1.0", "golden", "10.0"]
    devices = []
    for n in range(60):
        facts = Facts(
            id=f"d{n}",
            profile=chance.choice(["", "pump", "fan", "tank"]),
            status=chance.choice(list(DeviceStatus)).value,
            firmware=chance.choice(versions),
            disabled=chance.random() < 0.3,
            last_seen=chance.choice([EPOCH, now, now - timedelta(hours=1), now - timedelta(hours=2, seconds=1)]),
            tags=sorted(chance.sample(tags, chance.randrange(4))),
            attributes=chance.choice(attributes),
        )
        devices.append(facts)
        await rig.device(facts.id, profile=facts.profile, tags=facts.tags, attributes=facts.attributes)
        await DeviceRow.filter(id=facts.id).update(
            status=facts.status,
            disabled=facts.disabled,
            last_seen_at=facts.last_seen,
            firmware=facts.firmware,
            firmware_key=version_key(facts.firmware) if facts.firmware else None,
        )
    together = [f"{one} {word} not ({other})" for one, other in itertools.pairwise(_QUERIES) for word in ("and", "or")]
    for query in [*_QUERIES, *together]:
        term = parse(query)
        page = await rig.fleet.devices.list(query=query, limit=500)
        assert {one.id for one in page.items} == {each.id for each in devices if matches(term, each, now)}, query
        assert page.total == len(page.items)


async def test_a_changed_device_is_found_by_what_it_is_now(lite: Rig) -> None:
    await lite.device("a", attributes={"floor": 1})
    await lite.fleet.devices.update(ANNA, "a", attributes={"floor": 2})
    await lite.uplink("twin/reported", {"firmware": {"version": "1.10"}}, "a")
    for query, found in [("attributes.floor = 1", 0), ("attributes.floor = 2", 1), ("firmware > 1.9", 1)]:
        assert (await lite.fleet.devices.list(query=query)).total == found, query


async def test_a_search_looks_at_ids_names_tags_and_attributes(rig: Rig) -> None:
    await rig.device("a-1", name="Boiler 100%", tags=["Keller"], attributes={"serial": "XY-7"})
    await rig.device("b-1", name="Boiler 1000")
    for q, found in [("A-1", 1), ("boiler", 2), ("100%", 1), ("keller", 1), ("xy-7", 1), ("_", 0), ("'", 0)]:
        assert (await rig.fleet.devices.list(q=q)).total == found, q


async def test_a_wrong_query_says_where(lite: Rig) -> None:
    with pytest.raises(Invalid, match="query: column 8: a value was expected"):
        await lite.fleet.devices.list(query="name = ")


def test_the_examples_of_the_documentation_are_queries() -> None:
    text = (Path(__file__).parents[2] / "docs" / "queries.md").read_text()
    examples = [line for block in re.findall(r"```query\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(examples) >= 8
    for example in examples:
        assert parse(text_of(parse(example))) == parse(example)
