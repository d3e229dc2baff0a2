"""Run by test_journal_kill.py: journals readings as fast as it can and prints each number once it is acknowledged."""

import asyncio
import sys
import time
from pathlib import Path

from gateway.bus import Bus
from gateway.ingest import Ingest
from gateway.journal import Journal
from gateway.link import Outcome, Uplink


async def main(path: str, first: int) -> None:
    journal = Journal(Path(path), now_ms=lambda: time.time_ns() // 1_000_000)
    await journal.open()
    ingest = Ingest(journal, Bus(), now_ms=lambda: time.time_ns() // 1_000_000)
    number = first
    while True:
        batch = [
            Uplink(
                device_id=f"d{n % 7}",
                channel="telemetry",
                payload=b'{"ts": %d, "values": {"n": %d}}' % (1_700_000_000_000 + n, n),
                received_at_ms=0,
            )
            for n in range(number, number + 5)
        ]
        numbers = range(number, number + 5)
        number += 5

        def done(outcomes: list[Outcome], numbers: range = numbers) -> None:
            taken = [n for n, outcome in zip(numbers, outcomes, strict=True) if not outcome.code.is_error]
            sys.stdout.write("".join(f"{n}\n" for n in taken))
            sys.stdout.flush()

        ingest.uplinks(batch, done)
        await asyncio.sleep(0)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
