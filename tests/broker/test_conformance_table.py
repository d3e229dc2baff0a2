"""docs/conformance.md: every statement of MQTT 3.1.1 and 5.0 is there, and what it says of code and tests holds."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "docs" / "conformance.md"
SOURCES = [ROOT / "broker" / "topics.py", *sorted((ROOT / "broker").glob("packets/*.py"))]
SOURCES += sorted((ROOT / "broker").glob("native/*.py"))
TESTS = [path for path in sorted((ROOT / "tests" / "broker").rglob("test_*.py")) if path != Path(__file__)]

TAG = re.compile(r"((?:\d\.\d(?:\.\d)?: )?)((?:\[MQTT-[\d.]+-\d+\](?:,?\s+|\sand\s)?)+)")
"""Tags of one version, one after the other: of 5.0 unless "3.1.1: " stands before them."""

# How many statements each section has, as numbered in the two standards (OASIS, 29 October 2014 and 7 March 2019).
STATEMENTS = {
    "3.1.1": {
        "1.5.3": 3, "2.2.2": 2, "2.3.1": 7,
        "3.1.0": 2, "3.1.2": 24, "3.1.3": 11, "3.1.4": 5, "3.2.0": 1, "3.2.2": 6,
        "3.3.1": 12, "3.3.2": 3, "3.3.4": 1, "3.3.5": 2, "3.6.1": 1,
        "3.8.1": 1, "3.8.3": 4, "3.8.4": 6, "3.9.3": 2, "3.10.1": 1, "3.10.3": 2, "3.10.4": 6,
        "3.12.4": 1, "3.14.1": 1, "3.14.4": 3,
        "4.1.0": 2, "4.3.1": 1, "4.3.2": 2, "4.3.3": 2, "4.4.0": 1, "4.5.0": 2, "4.6.0": 6,
        "4.7.1": 3, "4.7.2": 1, "4.7.3": 4, "4.8.0": 2, "6.0.0": 4, "7.0.0": 2, "7.1.1": 1, "7.1.2": 1,
    },
    "5.0": {
        "1.5.4": 3, "1.5.5": 1, "1.5.7": 1, "2.1.3": 1, "2.2.1": 5, "2.2.2": 1,
        "3.1.0": 2, "3.1.2": 30, "3.1.3": 12, "3.1.4": 6, "3.2.0": 2, "3.2.2": 22,
        "3.3.1": 13, "3.3.2": 20, "3.3.4": 10,
        "3.4.2": 3, "3.5.2": 3, "3.6.1": 1, "3.6.2": 3, "3.7.2": 3,
        "3.8.1": 1, "3.8.3": 5, "3.8.4": 8, "3.9.2": 2, "3.9.3": 2,
        "3.10.1": 1, "3.10.3": 2, "3.10.4": 6, "3.11.2": 2, "3.11.3": 2,
        "3.12.4": 1, "3.14.0": 1, "3.14.1": 1, "3.14.2": 4, "3.14.4": 3, "3.15.1": 1, "3.15.2": 3,
        "4.1.0": 2, "4.2": 1, "4.3.1": 1, "4.3.2": 5, "4.3.3": 13, "4.4.0": 2, "4.5.0": 2, "4.6.0": 6,
        "4.7.0": 1, "4.7.1": 2, "4.7.2": 1, "4.7.3": 4, "4.8.2": 6, "4.9.0": 3,
        "4.12.0": 7, "4.12.1": 2, "4.13.1": 1, "4.13.2": 1, "6.0.0": 4,
    },
}  # fmt: skip
FIRST = {("5.0", "2.2.1"): 2}
"""Where a section's numbers do not begin with 1."""


class Row(NamedTuple):
    """One statement. `like` is the tag of the same demand in 5.0; `shown_by` is a reason when there is no `file`."""

    tag: str
    demand: str
    like: str
    file: str
    shown_by: str


@cache
def rows(version: str) -> dict[str, Row]:
    """The table under the heading of a version, by tag."""
    text = TABLE.read_text().partition(f"\n## MQTT {version}\n")[2].partition("\n## ")[0]
    found: dict[str, Row] = {}
    for line in text.splitlines():
        if line.startswith("| MQTT-"):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            row = Row(*cells) if version == "3.1.1" else Row(cells[0], cells[1], "", *cells[2:])
            assert row.tag not in found, f"{row.tag} is there twice"
            found[row.tag] = row
    return found


def resolved(version: str) -> list[tuple[Row, str]]:
    """All rows, each with the version whose tag stands in the code: a row of 3.1.1 may stand on one of 5.0."""
    found = []
    for row in rows(version).values():
        if row.file == "as there":
            other = rows("5.0")[row.like]
            shown_by = other.shown_by if row.shown_by == "as there" else row.shown_by
            found.append((row._replace(tag=other.tag, file=other.file, shown_by=shown_by), "5.0"))
        else:
            found.append((row, version))
    return found


@cache
def tags(path: Path) -> frozenset[tuple[str, str]]:
    """Version and tag of all that a file mentions."""
    found = set()
    for prefix, group in TAG.findall(path.read_text()):
        version = prefix.removesuffix(": ") or "5.0"
        found |= {(version, tag) for tag in re.findall(r"\[(MQTT-[\d.]+-\d+)\]", group)}
    return frozenset(found)


@cache
def functions(path: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


@pytest.mark.parametrize("version", STATEMENTS)
def test_every_statement_is_there_once_and_in_order(version: str) -> None:
    expected = []
    for section, count in STATEMENTS[version].items():
        first = FIRST.get((version, section), 1)
        expected += [f"MQTT-{section}-{number}" for number in range(first, first + count)]
    assert list(rows(version)) == expected


@pytest.mark.parametrize("version", STATEMENTS)
def test_every_statement_has_a_place_and_a_test_or_a_reason(version: str) -> None:
    missing = []
    for row, _ in resolved(version):
        if row.file == "–":
            complete = bool(row.shown_by) and "::" not in row.shown_by
        else:
            complete = row.file.endswith(".py") and "::test_" in row.shown_by
        if not complete:
            missing.append(row.tag)
    assert not missing


@pytest.mark.parametrize("version", STATEMENTS)
def test_named_file_has_the_tag_in_a_comment(version: str) -> None:
    missing = []
    for row, tagged in resolved(version):
        if row.file.endswith(".py") and (tagged, row.tag) not in tags(ROOT / "broker" / row.file):
            missing.append(f"{row.file}: {tagged} [{row.tag}]")
    assert not missing


@pytest.mark.parametrize("version", STATEMENTS)
def test_named_test_exists(version: str) -> None:
    missing = []
    for row, _ in resolved(version):
        for named in re.findall(r"\S+::\w+", row.shown_by):
            name, _, function = named.partition("::")
            path = ROOT / "tests" / "broker" / name
            if not path.exists() or function not in functions(path):
                missing.append(f"{row.tag}: {named}")
    assert not missing


@pytest.mark.parametrize("version", STATEMENTS)
def test_named_test_is_in_a_file_that_speaks_of_the_statement(version: str) -> None:
    """By its tag, or by that of the same demand in the other version."""
    older: dict[str, set[str]] = {}
    for row in rows("3.1.1").values():
        older.setdefault(row.like, set()).add(row.tag)
    missing = []
    for (row, tagged), asked in zip(resolved(version), rows(version).values(), strict=True):
        if "::" not in row.shown_by:
            continue
        said = tags(ROOT / "tests" / "broker" / row.shown_by.partition("::")[0])
        known_as = {(tagged, row.tag), (version, asked.tag), *(("3.1.1", tag) for tag in older.get(row.tag, ()))}
        if not known_as & said:
            missing.append(f"{asked.tag}: {row.shown_by}")
    assert not missing


def test_every_tag_in_code_and_tests_is_one_of_its_standard() -> None:
    known = {version: set(rows(version)) for version in STATEMENTS}
    unknown = [
        f"{path.relative_to(ROOT)}: {version} [{tag}]"
        for path in [*SOURCES, *TESTS]
        for version, tag in sorted(tags(path))
        if tag not in known.get(version, ())
    ]
    assert not unknown


def test_every_tag_in_the_code_is_a_row_that_binds_us() -> None:
    """A tag at a line that enforces it, and "binds the client" in the table, cannot both be right."""
    wrong = [
        f"{path.relative_to(ROOT)}: {version} [{tag}]"
        for path in SOURCES
        for version, tag in sorted(tags(path))
        if tag in rows(version) and rows(version)[tag].file == "–"
    ]
    assert not wrong
