"""The broker and the canary, each in a process of its own, spoken to in lines."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GIVING_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""glibc keeps what is freed in holes between what is not, 10 MB of it one time and none the next; so it does less."""
FAULTS_SHOWN = 10


class Child:
    """A module of this package in a process of its own, spoken to in lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
            env=os.environ | GIVING_BACK,
        )

    async def line(self) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    def tell(self, command: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")

    def hang_up(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def end(self) -> int:
        """Its exit code; it has 20 s to come to it."""
        assert self._process is not None
        self.hang_up()
        try:
            return await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()


class Target(Child):
    """tests.fuzz.target. `faults` are told once of each kind, with the sessions that were under way: where to look."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("tests.fuzz.target", *arguments)
        self.ports: dict[str, int] = {}
        self.faults: list[str] = []
        self.under_way: set[str] = set()
        self._kinds: Counter[str] = Counter()
        self.dead = False
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Target":
        await self.start()
        self._listening = asyncio.create_task(self._listen(), name="listening to the target")
        self.ports = (await self._answer()).get("ports", {})
        if not self.ports:
            raise RuntimeError("the broker did not start; its words are on standard error")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.tell("stop")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                await self._listening  # type: ignore[misc]
        code = await self.end()
        if code:
            self.faults.append(f"the broker's process ended with {code}")

    async def measure(self, *, quiet: bool = True) -> dict[str, Any]:
        """How the target is once it has come to rest."""
        self.tell("measure")
        answer: dict[str, Any] = (await self._answer()).get("measured", {})
        if quiet and not answer.get("quiet"):
            metrics = answer.get("metrics", {})
            self.faults.append(
                f"not quiet 20 s after the last client: {metrics.get('connections_now')} connections,"
                f" {metrics.get('sessions')} sessions"
            )
        return answer

    async def last_words(self) -> list[str]:
        """What was wrong at the end."""
        if self._answers.empty():
            return ["the broker did not stop"]
        last = self._answers.get_nowait()
        if "stopped" not in last:
            return ["the broker did not stop"]
        tasks = last["tasks"]
        return [f"tasks left after stop(): {tasks}"] if tasks else []

    async def _listen(self) -> None:
        while line := await self.line():
            answer = json.loads(line)
            if "fault" not in answer:
                self._answers.put_nowait(answer)
                continue
            kind = re.sub(r"\d+", "", answer["fault"].strip().splitlines()[-1])
            self._kinds[kind] += 1
            if self._kinds[kind] == 1 and len(self._kinds) <= FAULTS_SHOWN:
                self.faults.append(f"{answer['fault']}\n(sessions under way: {' '.join(sorted(self.under_way))})")
        self.dead = True
        self._answers.put_nowait({})  # nobody need wait any more

    async def _answer(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            return await self._answers.get()


class Canary(Child):
    """tests.fuzz.canary."""

    def __init__(self, port: int) -> None:
        super().__init__("tests.fuzz.canary", str(port))

    async def __aenter__(self) -> "Canary":
        await self.start()
        assert (await self.line()).strip() == b"ready"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def stop(self) -> dict[str, Any]:
        self.hang_up()
        line = await self.line()
        return (
            json.loads(line) if line else {"lost": -1, "ended": "it died", "unacknowledged": 0, "again": 0, "sent": 0}
        )
