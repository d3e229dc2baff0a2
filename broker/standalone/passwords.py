"""Passwords against argon2id hashes: in two threads, a bounded number waiting, and each right one hashed only once.

One hash takes 64 MiB and some 100 ms of a core. What has been found right is remembered as an HMAC with a key that only
this process has, so a thousand clients that come back after a break in the network cost a thousand HMACs.
"""

import asyncio
import base64
import hmac
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pwdlib.hashers.argon2 import Argon2Hasher

LENGTH_LIMIT = 1_024
_THREADS = 2
_WAITING_LIMIT = 200
"""About what two threads get done before a waiting client's time to connect (10 s) is over."""
_HASH = re.compile(
    r"\$argon2id\$v=19\$m=([1-9]\d{0,6}),t=([1-9]\d?),p=([1-9]\d?)\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)
_DIGEST_DIGITS = (22, 32, 43, 86)  # of 16, 24, 32 and 64 bytes
_MEMORY_LIMIT_KIB = 1024 * 1024
_NOBODYS = "$argon2id$v=19$m=65536,t=3,p=4$" + "A" * 22 + "$" + "A" * 43


class Busy(Exception):
    """Too many passwords wait to be checked."""


def hash_password(password: str) -> str:
    """The stored form, with a salt of its own. Takes some 100 ms."""
    return str(Argon2Hasher().hash(password))


def fault_of_hash(text: str) -> str | None:
    """What is wrong with a stored hash, in words and without a word of it; None when nothing is."""
    found = _HASH.fullmatch(text)
    if found is None:
        return "is no argon2id hash; `python -m broker hash-password` makes one"
    if len(found[4]) % 4 == 1 or len(found[5]) not in _DIGEST_DIGITS:
        return "is an argon2id hash that was cut off"
    if int(found[1]) > _MEMORY_LIMIT_KIB:
        return "would take over 1 GiB of memory at every login"
    return None


class PasswordChecker:
    """Verifies; made once, used by all connections."""

    def __init__(self) -> None:
        self._hasher = Argon2Hasher()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="passwords")
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}
        """By user name: the HMAC of the stored hash and the password that fitted it. One a user, hence bounded."""
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._shapes: list[str] = []

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def replace(self, hashes: Sequence[tuple[str, str]]) -> None:
        """These are the users and their hashes now: who is not among them is forgotten."""
        names = {name for name, _ in hashes}
        self._right = {name: mark for name, mark in self._right.items() if name in names}
        self._shapes = sorted({stored for _, stored in hashes})

    def mark(self, username: str, password: bytes, stored: str | None) -> bytes:
        """Names one guess at one user; it is nothing without this process's key. None: a user without a hash."""
        stored = stored or self._decoy(username)
        return hmac.digest(self._key, b"\0".join((username.encode(), stored.encode(), password)), "sha256")

    def is_known(self, username: str, mark: bytes) -> bool:
        """Whether just this password was found right before. The other way round it says nothing."""
        return hmac.compare_digest(self._right.get(username, b""), mark)

    def is_running(self, mark: bytes) -> bool:
        """Whether just this guess is being checked now."""
        return mark in self._running

    async def check(self, username: str, password: bytes, stored: str | None, mark: bytes) -> bool:
        """Whether the password fits; a user without a hash takes as long as one with. Raises Busy."""
        running = self._running.get(mark)
        if running is None:
            if len(self._running) >= _WAITING_LIMIT:
                raise Busy
            loop = asyncio.get_running_loop()
            text = stored or self._decoy(username)
            running = loop.run_in_executor(self._threads, self._hasher.verify, password, text)
            self._running[mark] = running
            running.add_done_callback(lambda _: self._running.pop(mark, None))
        # shielded: others may wait for the same, and a client that hangs up must not undo its try
        fits = await asyncio.shield(running) and stored is not None
        if fits:
            self._right[username] = mark
        return fits

    def _decoy(self, username: str) -> str:
        """A hash like those there are, which no password fits, and always the same for a name."""
        derived = hmac.digest(self._key, b"decoy\0" + username.encode(), "sha512")
        like = self._shapes[int.from_bytes(derived[:8], "big") % len(self._shapes)] if self._shapes else _NOBODYS
        *head, salt, digest = like.split("$")
        return "$".join((*head, _base64_like(derived[8:24], salt), _base64_like(derived[24:], digest)))


def _base64_like(derived: bytes, text: str) -> str:
    """Other bytes, as many as `text` stands for."""
    length = len(text) * 3 // 4
    filled = (derived * (length // len(derived) + 1))[:length]
    return base64.b64encode(filled).decode().rstrip("=")
