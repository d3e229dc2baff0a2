"""One step of a state machine that is a table. No I/O, no clock.

A table maps (state, event) to the next state and the effects to carry out after it is committed. Three answers, and
no fourth: *moved*, *ignored* (a duplicate or a late report, normal with at-least-once delivery: nothing is written)
and *illegal* (the asker wants what this state does not allow). What is not in the table is illegal, so a table says
on purpose what it ignores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)
F = TypeVar("F", bound=StrEnum)


class Answer(StrEnum):
    """What became of an event."""

    MOVED = "moved"
    IGNORED = "ignored"
    ILLEGAL = "illegal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[S, F]):
    """The answer to one event: `state` is the state afterwards, the old one unless `moved`."""

    answer: Answer
    state: S
    effects: tuple[F, ...] = ()

    @property
    def moved(self) -> bool:
        return self.answer is Answer.MOVED


class Ignored:
    """A table's entry for what may come and means nothing any more."""


IGNORED = Ignored()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine(Generic[S, E, F]):
    """A named table with its first state and its final ones."""

    name: str
    initial: S
    final: frozenset[S]
    table: Mapping[tuple[S, E], tuple[S, tuple[F, ...]] | Ignored]

    def step(self, state: S, event: E) -> Step[S, F]:
        """What `event` does in `state`."""
        entry = self.table.get((state, event))
        if entry is None:
            return Step(answer=Answer.ILLEGAL, state=state)
        if isinstance(entry, Ignored):
            return Step(answer=Answer.IGNORED, state=state)
        target, effects = entry
        return Step(answer=Answer.MOVED, state=target, effects=effects)


def mermaid(machine: Machine[S, E, F]) -> str:
    """The table as a Mermaid state diagram: one arrow for all events between the same two states."""
    lines = ["stateDiagram-v2", f"    [*] --> {machine.initial}"]
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), entry in sorted(machine.table.items()):
        if not isinstance(entry, Ignored):
            arrows.setdefault((state, entry[0]), []).append(event)
    lines += [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    lines += [f"    {state} --> [*]" for state in sorted(machine.final)]
    return "\n".join(lines) + "\n"
