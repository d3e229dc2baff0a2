"""What the docs say of the code is held against the code."""

import re
from pathlib import Path

from fleet.machines.campaign import CAMPAIGN
from fleet.machines.command import COMMAND
from fleet.machines.job import JOB
from fleet.machines.machine import mermaid
from gateway.refusals import Refusal

ROOT = Path(__file__).parents[2]


def test_every_reason_for_a_refusal_is_explained() -> None:
    page = (ROOT / "docs" / "topics.md").read_text()
    assert not [reason for reason in Refusal if f"`{reason}`" not in page]


def test_state_diagrams_are_those_of_the_tables() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    assert all(mermaid(machine) in page for machine in (COMMAND, JOB, CAMPAIGN)), "run `make docs`"


def test_every_link_and_picture_in_the_docs_exists() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_bound_on_the_way_has_a_metric_that_exists_and_a_test_that_fills_it() -> None:
    page = (ROOT / "docs" / "limits.md").read_text()
    rows = re.findall(r"^\|(.*)\|(.*)\| (?:`(\w+)`)? ?\| `(test_\w+)` \|$", page, re.MULTILINE)
    assert len(rows) > 12
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    metrics = (ROOT / "web" / "metrics.py").read_text()
    for what, _, metric, test in rows:
        assert f"def {test}(" in tests, (what, test)
        assert not metric or metric in metrics, (what, metric)


def test_every_test_that_the_threat_model_names_is_there() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text()
    named = re.findall(r"`(?:tests/)?([\w/]+/test_\w+\.py)(?:::(test_\w+))?`", page)
    assert len(named) > 70
    for file, test in named:
        text = (ROOT / "tests" / file).read_text()
        assert not test or f"def {test}(" in text, (file, test)
