"""People's passwords: what is accepted, and argon2 in threads, a few at a time.

One hash takes 64 MiB and some 50 ms of a core. More than two at once would take the cores from everything else, and
a long queue would let strangers delay everybody: it is bounded, and who comes when it is full is told to come later.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from fleet.errors import Invalid, TooManyAttempts

T = TypeVar("T")

LENGTH_LIMIT = 1_024
_THREADS = 2
_WAITING_LIMIT = 64
_RETRY_S = 2.0


class Passwords:
    """Hashes and checks."""

    def __init__(self, *, min_length: int) -> None:
        self._min_length = min_length
        self._hash = PasswordHash((Argon2Hasher(),))
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="passwords")
        self._waiting = 0
        self._decoy: str | None = None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def check_new(self, username: str, password: str) -> None:
        """Raises Invalid for a password that may not be set."""
        if len(password) < self._min_length:
            raise Invalid("password", f"must have at least {self._min_length} characters")
        if len(password) > LENGTH_LIMIT:
            raise Invalid("password", f"must have at most {LENGTH_LIMIT} characters")
        if password.casefold() == username.casefold():
            raise Invalid("password", "must not be the user name")

    async def hash(self, password: str) -> str:
        """Raises TooManyAttempts."""
        return str(await self._run(self._hash.hash, password))

    async def verify(self, password: str, password_hash: str | None) -> tuple[bool, str | None]:
        """(whether it fits, a better hash to store if there is one). None for a hash takes as long as a real one."""
        if len(password) > LENGTH_LIMIT:
            return False, None
        if password_hash is None:
            if self._decoy is None:
                self._decoy = await self.hash("nobody has this password")
            await self._run(self._hash.verify, password, self._decoy)
            return False, None
        fits, better = await self._run(self._hash.verify_and_update, password, password_hash)
        return bool(fits), better

    async def _run(self, function: Callable[..., T], *arguments: str) -> T:
        if self._waiting >= _WAITING_LIMIT:
            raise TooManyAttempts(_RETRY_S)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        finally:
            self._waiting -= 1
