"""Damaged packets through the codec alone: a packet, nothing yet, or MalformedPacket; what is read can be written."""

from collections.abc import Callable
from random import Random

from broker.packets import Connect, MalformedPacket, Packet, decode, encode
from tests.fuzz.grammar import Grammar
from tests.fuzz.packets import LEVELS

STEP = 500  # examples between two signs of progress


def run(*, examples: int, seed: int, progress: Callable[[int], None] = lambda count: None) -> list[str]:
    """What went wrong, with the bytes that did it; at most ten."""
    grammar, rng = Grammar(seed), Random(f"codec {seed}")
    faults: list[str] = []
    for number in range(1, examples + 1):
        wire = grammar.packet(rng)
        for protocol in LEVELS:
            try:
                _check(wire, protocol)
            except Exception as error:
                faults.append(f"level {protocol}, {wire.hex()}: {error!r}")
        if len(faults) >= 10:
            break
        if number % STEP == 0:
            progress(STEP)
    return faults


def _check(wire: bytes, protocol: int) -> None:
    try:
        found = decode(wire, protocol=protocol)
    except MalformedPacket:
        return
    if found is None:
        return
    packet, end = found
    level = packet.protocol if isinstance(packet, Connect) else protocol
    again = encode(packet, level)
    assert decode(again, protocol=level) == (packet, len(again)), "not the same after writing and reading it"
    assert all(_is_incomplete(wire[:have], protocol) for have in {0, 1, end // 2, end - 1}), "read from a prefix"


def _is_incomplete(wire: bytes, protocol: int) -> bool:
    found: tuple[Packet, int] | None = decode(wire, protocol=protocol)
    return found is None
