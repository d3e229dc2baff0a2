"""Run by test_native_store_trouble.py: stores as fast as it can and prints what it did once that is said to be safe.

Per batch of numbers: each is put as a delivery, the even ones of the batch before are deleted, and the session's record
says the last number. "+n" was put, "-n" deleted.
"""

import asyncio
import random
import sys
from pathlib import Path

from broker.errors import PersistenceError
from broker.native.store import Store

CLIENT = "client"


def record_of(number: int) -> bytes:
    """What is stored for a number: up to 6 KB, each byte of it known."""
    return b"%d;" % number * (1 + number * 7919 % 800)


async def main(directory: str, first: int) -> None:
    store = Store(Path(directory))
    try:
        store.open()
    except PersistenceError as error:
        sys.exit(str(error))
    chance = random.Random(first)
    before = range(0)
    while True:
        numbers = range(first, first + chance.choice((1, 3, 20, 300)))
        deleted = [number for number in before if number % 2 == 0]
        for number in numbers:
            store.put_delivery(CLIENT, number, record_of(number))
        for number in deleted:
            store.delete_delivery(CLIENT, number)
        store.put_session(CLIENT, b"%d" % numbers[-1])

        def safe(numbers: range = numbers, deleted: list[int] = deleted) -> None:
            sys.stdout.write("".join([f"+{n}\n" for n in numbers] + [f"-{n}\n" for n in deleted]))
            sys.stdout.flush()

        store.when_safe(safe)
        before, first = numbers, numbers.stop
        while store.pending_bytes > 1_000_000:  # noqa: ASYNC110 # what is waited for is the store's
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
