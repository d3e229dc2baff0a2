"""What can be asked for of a device's attributes: the leaves of their JSON. No I/O, no clock.

{"site": {"floor": 3}, "roles": ["a", "b"]} has site.floor = 3, roles = "a" and roles = "b".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PATH_LIMIT = 128
VALUE_LIMIT = 128
LEAVES_LIMIT = 256  # of one device, in the order of its document; the rest is kept and not found


@dataclass(frozen=True, slots=True)
class Leaf:
    """`number` is None for texts; true and false are the texts "true" and "false"."""

    path: str
    value: str
    number: float | None


def leaves(attributes: Mapping[str, Any]) -> list[Leaf]:
    """Each once. Without nulls, without texts and paths of more than 128 characters, without what holds a NUL."""
    found: dict[Leaf, None] = {}
    for leaf in _walk("", attributes):
        if len(leaf.path) <= PATH_LIMIT and len(leaf.value) <= VALUE_LIMIT and "\0" not in leaf.path + leaf.value:
            found[leaf] = None
            if len(found) == LEAVES_LIMIT:
                break
    return list(found)


def _walk(path: str, value: object) -> Iterator[Leaf]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk(path, inner)
    elif isinstance(value, bool):
        yield Leaf(path, "true" if value else "false", None)
    elif isinstance(value, int | float):
        yield Leaf(path, "", float(value))
    elif isinstance(value, str):
        yield Leaf(path, value, None)
