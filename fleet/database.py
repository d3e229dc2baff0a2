"""The fleet's database: where it is, how it is migrated, opened, used in transactions and closed.

One database is open a process at a time. Migrations are Tortoise's own; on SQLite they rebuild tables by dropping
them, so they run on a connection of their own without foreign keys, after a backup, and are checked afterwards.
"""

import asyncio
import logging
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.backends.base.config_generator import expand_db_url
from tortoise.context import TortoiseContext
from tortoise.exceptions import BaseORMException, DBConnectionError
from tortoise.migrations.executor import MigrationExecutor, MigrationTarget
from tortoise.transactions import in_transaction

from fleet.errors import DatabaseTrouble, SetupError

logger = logging.getLogger(__name__)

APP = "fleet"
MIGRATIONS = "fleet.migrations"
_POSTGRES_POOL = 8  # connections: commands, presence and the API at once, and three nodes fit into the usual 100
_BACKUPS_KEPT = 5
_PARAMETERS = 5_000  # values a statement; both databases take 32,766, and parsing grows faster than that
#: Full, I/O error, cannot open, read-only, busy: what a disk or another process does.
_SQLITE_WORLD = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
    }
)
#: Classes of SQLSTATE: connection exceptions, insufficient resources, operator intervention, system errors.
_POSTGRES_WORLD = ("08", "53", "57P", "58")
#: What asyncpg raises of its own on a connection that broke under it.
_POSTGRES_LOST = ("InterfaceError", "InternalClientError")
_MIGRATION_LOCK = 0x6D6F6F72  # pg_advisory_lock key: nodes that start together migrate one after the other

#: What the transaction at work in this context is to do right before its commit.
_last_steps: ContextVar[list[Callable[[], Awaitable[None]]] | None] = ContextVar("last_steps", default=None)


def trouble(error: BaseException) -> DatabaseTrouble | None:
    """What the world did to the database, if that is what `error` says: then it may go by itself."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in _SQLITE_WORLD:
            return DatabaseTrouble(str(cause), full=cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL)
        if isinstance(cause, DBConnectionError | ConnectionError | TimeoutError):
            return DatabaseTrouble("it does not answer", full=False)
        state = str(getattr(cause, "sqlstate", None) or "")
        if state.startswith(_POSTGRES_WORLD):
            return DatabaseTrouble(str(cause), full=state == "53100")
        if type(cause).__module__.startswith("asyncpg") and type(cause).__name__ in _POSTGRES_LOST:
            return DatabaseTrouble("it does not answer", full=False)
        cause = cause.__cause__ or cause.__context__
    return None


def log_failure(log: logging.Logger, error: Exception, message: str, *values: object) -> None:
    """Trouble of the database's is one line; anything else is a fault of ours, with its traceback."""
    if (why := trouble(error)) is not None:
        log.error(f"{message}: %s", *values, why)
    else:
        log.error(message, *values, exc_info=error)


def tortoise_config(url: str, *, migrating: bool = False) -> dict[str, Any]:
    """What Tortoise wants to know. Raises SetupError for a URL of no known kind."""
    scheme = url.partition("://")[0]
    if scheme in ("postgres", "postgresql"):
        connection = expand_db_url(f"asyncpg{url[len(scheme) :]}")
        connection["credentials"].update({"minsize": 1, "maxsize": _POSTGRES_POOL})
        # While the server is away it logs a traceback a second; whoever needs a connection says so in a line.
        logging.getLogger("asyncpg.pool").setLevel(logging.CRITICAL)
    elif scheme == "sqlite":
        connection = expand_db_url(url)
        connection["credentials"]["foreign_keys"] = "OFF" if migrating else "ON"
        connection["credentials"]["busy_timeout"] = 5_000
    else:
        raise SetupError(f"database URL: {scheme!r} is none of sqlite, postgres")
    # Named after its kind: Tortoise caches statements by the connection's name, also those of the other dialect.
    name = "sqlite" if scheme == "sqlite" else "postgres"
    return {
        "connections": {name: connection},
        "apps": {APP: {"models": ["fleet.models"], "default_connection": name, "migrations": MIGRATIONS}},
        "use_tz": True,
        "timezone": "UTC",
    }


class Database:
    """`open()` brings the schema up to date and connects; the models work until `close()`."""

    def __init__(self, url: str) -> None:
        self._config = tortoise_config(url)
        connections: dict[str, dict[str, Any]] = self._config["connections"]
        self._name, self._connection = next(iter(connections.items()))
        self._url = url
        self._context: TortoiseContext | None = None
        self.path: Path | None = None
        """The SQLite file, if it is one."""
        if url.startswith("sqlite://"):
            file = self._connection["credentials"]["file_path"]
            self.path = None if file == ":memory:" else Path(file)

    async def open(self) -> None:
        """Migrate, then connect. Raises SetupError when the schema is newer than this program or cannot be reached."""
        await self._open(self.migrate, make=True)

    async def attach(self) -> None:
        """Connect to what is there, also while a server runs on it: nothing is made or migrated. Raises SetupError."""
        if self.path is not None and not self.path.is_file():
            raise SetupError(f"there is no fleet's database {self.path}")
        await self._open(self._require_schema, make=False)

    async def _open(self, prepare: Callable[[], Awaitable[object]], *, make: bool) -> None:
        try:
            if self.path is not None:
                if make:
                    _make_private(self.path)
                await asyncio.to_thread(_check, self.path)
            await prepare()
            context = TortoiseContext()
            with context:
                # For the whole process: whoever calls a service may be in a task that was made long before this.
                await context.init(config=self._config, _enable_global_fallback=True)
            self._context = context
            await self.client.execute_query("SELECT 1")
        except (OSError, BaseORMException, sqlite3.Error) as error:
            await self.close()
            where = f" {self.path}" if self.path is not None else ""
            raise SetupError(f"the fleet's database{where} cannot be opened: {error}") from error

    async def close(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            await context.close_connections()

    @property
    def client(self) -> BaseDBAsyncClient:
        """The connection, for the few statements that the models cannot say."""
        if self._context is None:
            raise SetupError("the fleet's database is not open")
        return self._context.db(self._name)

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to it as well."""
        return self.is_postgres

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All or nothing. On SQLite nothing else reads or writes meanwhile: keep it short, await nothing slow."""
        context = in_transaction(self._name)
        try:
            await context.__aenter__()
        except BaseException:
            # Tortoise takes its lock first; cancelled at BEGIN it would never give it back, and all would stand still.
            if hasattr(context, "token"):
                await context.__aexit__(*sys.exc_info())
            raise
        around = _last_steps.get()
        steps = [] if around is None else around
        before = len(steps)
        token = _last_steps.set(steps)
        try:
            yield
            if around is None:
                for step in steps:
                    await step()
        except BaseException:
            del steps[before:]
            await context.__aexit__(*sys.exc_info())
            raise
        finally:
            _last_steps.reset(token)
        await context.__aexit__(None, None, None)

    def before_commit(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Have the transaction that the caller is in do this last, as part of it; False where there is none.

        For what all writers have to take in turn: so it is held for the shortest time, and nothing is taken after it.
        """
        steps = _last_steps.get()
        if steps is not None:
            steps.append(step)
        return steps is not None

    async def execute(self, statement: str, values: Sequence[object]) -> list[dict[str, Any]]:
        """A statement that the models cannot say, with ? for its values; the rows that it returns."""
        if self.is_postgres:
            parts = statement.split("?")
            statement = "".join(f"{part}${n}" for n, part in enumerate(parts[:-1], 1)) + parts[-1]
        return await self.client.execute_query_dict(statement, list(values))

    async def insert(
        self, table: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, unless_same: str = ""
    ) -> set[object]:
        """Many rows by few statements; the first columns of those that were put in.

        `unless_same` names a unique column: a row whose value is there already is left out.

        Not executemany: beside a busy event loop the SQLite thread then waits for the interpreter lock at each row.
        """
        step = _PARAMETERS // len(columns)
        names = ", ".join(f'"{column}"' for column in columns)
        row_places = f"({', '.join('?' * len(columns))})"
        otherwise = f' ON CONFLICT ("{unless_same}") DO NOTHING' if unless_same else ""
        otherwise += f' RETURNING "{columns[0]}"'
        inserted: set[object] = set()
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            places = ", ".join([row_places] * len(chunk))
            found = await self.execute(
                f'INSERT INTO "{table}" ({names}) VALUES {places}{otherwise}',  # noqa: S608
                [value for row in chunk for value in row],
            )
            inserted.update(row[columns[0]] for row in found)
        return inserted

    @property
    def is_postgres(self) -> bool:
        return self._name == "postgres"

    @property
    def timestamp_type(self) -> str:
        """What to cast a time to, where a statement gives the database no other hint."""
        return "TIMESTAMPTZ" if self.is_postgres else "TEXT"

    async def migrate(self) -> list[str]:
        """Apply what is pending, after a backup of a SQLite file that holds something; returns the names applied."""
        async with TortoiseContext() as context:
            config = tortoise_config(self._url, migrating=True)
            await context.init(config=config)
            async with self._migration_lock():
                return await self._migrate(context.db(self._name), config["apps"])

    @asynccontextmanager
    async def _migration_lock(self) -> AsyncIterator[None]:
        """Nodes that start together migrate one after the other. A connection of its own: a pool gives locks back."""
        if not self.is_postgres:
            yield
            return
        import asyncpg

        credentials = self._connection["credentials"]
        keys = ("host", "port", "user", "password", "database", "ssl")
        connection = await asyncpg.connect(**{key: credentials[key] for key in keys if key in credentials})
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _MIGRATION_LOCK)
            yield
        finally:
            await connection.close()

    async def _require_schema(self) -> None:
        async with TortoiseContext() as context:
            config = tortoise_config(self._url)
            await context.init(config=config)
            executor = MigrationExecutor(context.db(self._name), config["apps"])
            await executor.plan([MigrationTarget(app_label=APP, name="__latest__")])  # which reads what there is
            known = {key.name for key in executor.loader.graph.nodes}
            applied = {key.name for key in await executor.recorder.applied_migrations() if key.app_label == APP}
        if applied != known:
            raise SetupError(
                "the fleet's database is of another version of this program: run `mooring migrate`, or update"
            )

    async def _migrate(self, client: BaseDBAsyncClient, apps: dict[str, Any]) -> list[str]:
        executor = MigrationExecutor(client, apps)
        targets = [MigrationTarget(app_label=APP, name="__latest__")]
        pending = [step.migration.name for step in await executor.plan(targets)]
        known = {key.name for key in executor.loader.graph.nodes}
        applied = {key.name for key in await executor.recorder.applied_migrations() if key.app_label == APP}
        if newer := sorted(applied - known):
            raise SetupError(f"the fleet's database is newer than this program (it has {newer[-1]}): update Mooring")
        if not pending:
            return []
        if self.path is not None and applied:
            backup = await asyncio.to_thread(_back_up, self.path, pending[0])
            logger.info("database: backed up to %s before migrating", backup)
        await executor.migrate(targets, direction="forward")
        if self.path is not None:
            _, violations = await client.execute_query("PRAGMA foreign_key_check")
            if violations:
                raise SetupError(f"migrating broke {len(violations)} references: restore the backup beside {self.path}")
        logger.info("database: applied %s", ", ".join(pending))
        return pending


def _make_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


def _check(path: Path) -> None:
    """Raises SetupError for a file that is damaged or no database: Tortoise would wait for ever to close it again."""
    try:
        with closing(sqlite3.connect(path)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, no memory, disk: nothing that a backup would mend
            raise
        verdict = str(error)
    if verdict != "ok":
        raise SetupError(f"the fleet's database {path} is damaged ({verdict.splitlines()[-1]}): restore a backup")


def _back_up(path: Path, migration: str) -> Path:
    """A copy of the file beside it, named after the migration that it was made for; the oldest ones go."""
    target = path.with_name(f"{path.name}.before-{migration}")
    _make_private(target)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    backups = sorted(path.parent.glob(f"{path.name}.before-*"), key=lambda file: file.stat().st_mtime)
    for old in backups[:-_BACKUPS_KEPT]:
        old.unlink(missing_ok=True)
    return target
