"""The audit's hash chain: what is hashed, and the walk that finds what was changed. No I/O, no clock.

Each entry carries a number, the digest of the entry before it, and its own: the SHA-256 of its other fields as a JSON
array, in the order of `Link`, without spaces and in UTF-8. `before` and `after` are hashed as the text that is stored,
`at` as UTC with microseconds. The chain has a head, the newest entry, and an anchor, the newest of those that were
dropped for being the oldest; entry anchor + 1 names the anchor's digest. An anchor is believed when the newest entry
"audit.prune" in the chain names it: who deletes the oldest entries and moves the anchor has to forge that entry too.

Whoever can write the whole database can also hash everything anew. Against that helps a head that is kept elsewhere.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import orjson

GENESIS = "0" * 64
"""What the first entry names as the digest before it."""
PRUNE = "audit.prune"
FAULTS_LIMIT = 100
"""Of the faults that are named; those beyond it are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An entry as it is hashed. `digest` is what the entry says of itself."""

    seq: int
    prev: str
    id: str
    at: str
    actor_kind: str
    actor_id: str
    actor_address: str
    action: str
    target_kind: str
    target_id: str
    before: str | None
    after: str | None
    digest: str = ""

    def computed(self) -> str:
        """The digest that its other fields give."""
        values = [getattr(self, name) for name in _HASHED]
        return hashlib.sha256(orjson.dumps(values)).hexdigest()

    def json(self) -> dict[str, Any]:
        """A line of the export: everything that is needed to check it elsewhere."""
        return asdict(self)


_HASHED = tuple(one.name for one in fields(Link) if one.name != "digest")
COLUMNS = tuple(one.name for one in fields(Link))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in the chain: an entry's number and digest. `0:000…` is the place before the first."""

    seq: int
    digest: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.digest}"


START = Mark(seq=0, digest=GENESIS)


def parse_mark(text: str) -> Mark:
    """The other way of str(Mark). Raises ValueError."""
    number, _, digest = text.strip().partition(":")
    if not (number.isascii() and number.isdigit() and len(number) <= 18) or len(digest) != 64:
        raise ValueError("a head looks like 123:64 hexadecimal digits")
    if set(digest) - set("0123456789abcdef"):
        raise ValueError("a head looks like 123:64 hexadecimal digits")
    return Mark(seq=int(number), digest=digest)


def canonical_time(at: datetime) -> str:
    """UTC with microseconds: 2026-11-20T12:00:00.000000Z."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def link_of(row: Mapping[str, Any]) -> Link:
    """A row of the table, or a line of an export. Raises ValueError for what we never wrote."""
    values: dict[str, Any] = {name: row.get(name) for name in COLUMNS}
    at = values["at"]
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    if not isinstance(at, datetime):
        raise ValueError("at is no time")
    values["at"] = canonical_time(at if at.tzinfo is not None else at.replace(tzinfo=UTC))
    if type(values["seq"]) is not int:
        raise ValueError("seq is no number")
    for name, value in values.items():
        if name != "seq" and not isinstance(value, str) and not (value is None and name in ("before", "after")):
            raise ValueError(f"{name} is no text")
    link = Link(**values)
    link.computed()  # orjson refuses texts that are no Unicode
    return link


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong, and from which entry on."""

    seq: int | None
    detail: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What a walk found. `ok` says that nothing was wrong."""

    entries: int = 0
    head: Mark = START
    anchor: Mark = START
    faults: list[Fault] = field(default_factory=list)
    faults_total: int = 0

    @property
    def ok(self) -> bool:
        return self.faults_total == 0

    def add(self, seq: int | None, detail: str) -> None:
        self.faults_total += 1
        if len(self.faults) < FAULTS_LIMIT:
            self.faults.append(Fault(seq=seq, detail=detail))

    def json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "entries": self.entries,
            "head": str(self.head),
            "anchor": str(self.anchor),
            "faults": [asdict(fault) for fault in self.faults],
            "faults_total": self.faults_total,
        }


class Walk:
    """Goes along the chain from its anchor; give it every entry in the order of the numbers, then `end`."""

    def __init__(self, anchor: Mark, *, known: Mark | None = None) -> None:
        """`known` is a head that was kept elsewhere: the chain has to lead through it."""
        self.report = Report(anchor=anchor, head=anchor)
        self._known = known
        self._known_seen = known is None or known == anchor
        self._attested: Mark | None = None

    def step(self, row: Mapping[str, Any]) -> None:
        """The next entry, as a row of the table or a line of an export."""
        report, before = self.report, self.report.head
        report.entries += 1
        seq = row.get("seq")
        if type(seq) is not int:
            report.add(None, "an entry has no number: it was not written by the server")
            return
        if seq <= before.seq:
            report.add(seq, f"comes after {before.seq}: not in order, or twice")
            return
        if seq > before.seq + 1:
            report.add(before.seq + 1, _missing(before.seq + 1, seq - 1))
        try:
            link = link_of(row)
        except (ValueError, TypeError, orjson.JSONEncodeError) as error:
            report.add(seq, f"was changed: {error}")
            report.head = Mark(seq=seq, digest=str(row.get("digest")))
            return
        if link.digest != link.computed():
            report.add(seq, "was changed: its digest is another")
        elif seq == before.seq + 1 and link.prev != before.digest:
            report.add(seq, "does not follow the entry before it: one of them was replaced")
        report.head = Mark(seq=seq, digest=link.digest)
        if self._known is not None and seq == self._known.seq:
            self._known_seen = True
            if link.digest != self._known.digest:
                report.add(seq, "is not the entry that the kept head names: the chain was written anew")
        if link.action == PRUNE:
            self._attested = _attested(link)

    def end(self, head: Mark | None = None) -> Report:
        """Nothing more comes. `head`: where the chain says that it ends."""
        report = self.report
        if head is not None and head.seq > report.head.seq:
            report.add(report.head.seq + 1, _missing(report.head.seq + 1, head.seq) + " at the end")
        elif head is not None and head != report.head:
            report.add(report.head.seq, "is not what the chain's head says")
        if report.anchor != START and self._attested != report.anchor:
            report.add(
                report.anchor.seq, "is where the chain begins, and no entry says that the older ones were dropped"
            )
        if not self._known_seen and self._known is not None:
            if self._known.seq <= report.anchor.seq:
                report.add(self._known.seq, "is the kept head, and was dropped for its age: keep newer ones")
            else:
                report.add(self._known.seq, "is the kept head, and is missing: the chain was cut off")
        return report


def pruned(through: Mark) -> dict[str, Any]:
    """What an entry "audit.prune" says: the newest entry that was dropped."""
    return {"seq": through.seq, "digest": through.digest}


def _attested(link: Link) -> Mark | None:
    try:
        said = orjson.loads(link.before or "null")
        return Mark(seq=said["seq"], digest=said["digest"])
    except (ValueError, TypeError, KeyError):
        return None


def _missing(first: int, last: int) -> str:
    return f"entry {first} is missing" if first == last else f"entries {first} to {last} are missing"
