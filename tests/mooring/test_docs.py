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
