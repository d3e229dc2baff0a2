"""Coroutines side by side until the first one ends: a connection's reader and writer, a device and its power."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def race(*named: tuple[str, Coroutine[Any, Any, T]]) -> T:
    """What the first to end returns or raises; by then the others have been cancelled and are gone."""
    tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in named]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
