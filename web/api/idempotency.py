"""Idempotency-Key: a create that is sent again is answered again, not done again.

Answers are kept in memory, the newest `limit` of the last `keep_s` seconds, in this process only: a restart or
another node forgets them. Repeats that arrive while the first is at work wait for its answer.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from web.api.problem import Problem

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer, ready to be sent any number of times."""

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    digest: bytes
    answer: "asyncio.Future[Answer]"
    at: float


class Replays:
    """Answers by key. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float], *, limit: int = 1000, keep_s: float = 3600.0) -> None:
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._clock = clock
        self._limit = limit
        self._keep_s = keep_s

    async def once(self, key: Key, digest: bytes, act: Callable[[], Awaitable[Answer]]) -> Answer:
        """What `act` answered the first time. Raises Problem 422 when the key was used with another body."""
        self._forget_old()
        known = self._entries.get(key)
        if known is not None:
            if known.digest != digest:
                raise Problem(422, "this Idempotency-Key was used with another body")
            return await asyncio.shield(known.answer)
        entry = _Entry(digest=digest, answer=asyncio.get_running_loop().create_future(), at=self._clock())
        self._entries[key] = entry
        try:
            answer = await act()
        except BaseException as error:
            # A failure is not kept: the client may try the same again. Those who wait for it now get it as well.
            self._entries.pop(key, None)
            if isinstance(error, Exception):
                entry.answer.set_exception(error)
                entry.answer.exception()  # taken note of, so that nobody waiting is no complaint
            else:
                entry.answer.set_exception(Problem(503, "the first request with this key was cut off; send it again"))
                entry.answer.exception()
            raise
        entry.answer.set_result(answer)
        return answer

    def _forget_old(self) -> None:
        horizon = self._clock() - self._keep_s
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if len(self._entries) < self._limit and entry.at > horizon:
                return
            del self._entries[key]
