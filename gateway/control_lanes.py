"""The control lane: every uplink that is not telemetry, one at a time and in order per device, many devices at once.

A device's messages always go to the same worker. Each worker's queue is bounded, in messages and (over all) in
bytes; what finds no room is answered "busy" at once and may be sent again. Nothing is dropped in silence.
"""

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Awaitable, Callable

from gateway.link import Outcome, Uplink
from gateway.refusals import busy, internal_error, shutting_down

logger = logging.getLogger(__name__)

Answer = Callable[[Outcome], None]


class ControlLanes:
    """`handle` takes one uplink over and returns its outcome after its commit; it may raise, which is our fault."""

    def __init__(
        self,
        handle: Callable[[Uplink], Awaitable[Outcome]],
        *,
        workers: int = 8,
        queue_limit: int = 500,
        limit_bytes: int = 32 << 20,
    ) -> None:
        self.queued = 0
        self.queued_bytes = 0
        self.busy = 0
        """How many were answered so."""
        self._handle = handle
        self._limit_bytes = limit_bytes
        self._queues: list[asyncio.Queue[tuple[Uplink, Answer]]] = [asyncio.Queue(queue_limit) for _ in range(workers)]
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._work(queue), name=f"control-{number}")
            for number, queue in enumerate(self._queues)
        ]

    async def stop(self, limit_s: float = 5.0) -> None:
        """Finish what is queued within `limit_s`; the rest is answered that the gateway is stopping."""
        self._stopping = True
        if self._tasks:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await asyncio.gather(*(queue.join() for queue in self._queues))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for queue in self._queues:
            while not queue.empty():
                uplink, answer = queue.get_nowait()
                self._left(uplink)
                answer(shutting_down())

    def put(self, uplink: Uplink, answer: Answer) -> None:
        """Queue an uplink; `answer` is called once, perhaps before this returns."""
        if self._stopping:
            answer(shutting_down())
            return
        queue = self._queues[zlib.crc32(uplink.device_id.encode()) % len(self._queues)]
        if queue.full() or self.queued_bytes + len(uplink.payload) > self._limit_bytes:
            self.busy += 1
            answer(busy())
            return
        queue.put_nowait((uplink, answer))
        self.queued += 1
        self.queued_bytes += len(uplink.payload)

    async def _work(self, queue: asyncio.Queue[tuple[Uplink, Answer]]) -> None:
        while True:
            uplink, answer = await queue.get()
            outcome = shutting_down()  # for one that is cancelled: it may not have been committed
            try:
                outcome = await self._handle(uplink)
            except Exception:
                logger.exception("%s: handling a message on %s failed", uplink.device_id, uplink.channel)
                outcome = internal_error()
            finally:
                self._left(uplink)
                queue.task_done()
                try:
                    answer(outcome)
                except Exception:
                    logger.exception("%s: answering a message on %s failed", uplink.device_id, uplink.channel)

    def _left(self, uplink: Uplink) -> None:
        self.queued -= 1
        self.queued_bytes -= len(uplink.payload)
