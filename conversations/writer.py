"""Many events, one insert: what arrives while a commit is on its way goes into the next one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from uuid import UUID

import psycopg
import structlog
from django.db import connection

log = structlog.get_logger(__name__)

BATCH = 256
# Two commits may be on their way at once: one gathers while the other waits for the disk.
WRITERS = 2
QUEUE = 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """One event to keep; the fields are the table's columns."""

    id: UUID
    shop_id: UUID | None
    app_id: UUID
    account_id: UUID | None
    channel: str
    event_id: str
    event: str
    lane: UUID
    body: bytes
    received_at: datetime


_TYPES = {
    "id": "uuid",
    "shop_id": "uuid",
    "app_id": "uuid",
    "account_id": "uuid",
    "lane": "uuid",
    "body": "bytea",
    "received_at": "timestamptz",
}
_COLUMNS = [field.name for field in fields(Row)]
_ARRAYS = ", ".join(f"%b::{_TYPES.get(name, 'text')}[]" for name in _COLUMNS)
_INSERT = (
    f"INSERT INTO conversations_rawevent ({', '.join(_COLUMNS)}, state, attempts, error)"  # noqa: S608  only our own column names
    f" SELECT *, 'pending', 0, '' FROM unnest({_ARRAYS})"
    " ON CONFLICT (app_id, event_id) DO NOTHING"
)


class Unavailable(Exception):
    """The event could not be kept now; the platform should deliver it again."""


class Writer:
    """Commits rows in batches; `keep` returns once the row, or its earlier copy, is committed."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[Row, asyncio.Future[None]]] = asyncio.Queue(QUEUE)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin writing; call inside the running loop."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(WRITERS)]

    async def stop(self) -> None:
        """Finish what was accepted, then stop."""
        await self._queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def keep(self, row: Row) -> None:
        """Commit `row`; a redelivery changes nothing. Raises Unavailable."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((row, done))
        except asyncio.QueueFull:
            raise Unavailable("queue_full") from None
        await done

    async def _run(self) -> None:
        database: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        while True:
            batch = [await self._queue.get()]
            while len(batch) < BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                database = await _usable(database)
                await _insert(database, [row for row, _ in batch])
            except (psycopg.Error, OSError) as error:
                log.warning("events_not_kept", count=len(batch), error=type(error).__name__)
                _end(batch, Unavailable("database"))
            else:
                _end(batch, None)
            finally:
                for _ in batch:
                    self._queue.task_done()


async def _usable(
    database: psycopg.AsyncConnection[tuple[object, ...]] | None,
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    if database is None or database.closed or database.broken:
        params = connection.get_connection_params()
        params = {k: v for k, v in params.items() if k in _CONNECT}
        return await psycopg.AsyncConnection.connect(
            **params, autocommit=True, prepare_threshold=1
        )
    return database


_CONNECT = frozenset({"dbname", "user", "password", "host", "port", "sslmode"})


async def _insert(
    database: psycopg.AsyncConnection[tuple[object, ...]], rows: Sequence[Row]
) -> None:
    columns = [[getattr(row, name) for row in rows] for name in _COLUMNS]
    await database.execute(_INSERT, columns)


def _end(batch: Sequence[tuple[Row, asyncio.Future[None]]], error: Exception | None) -> None:
    for _row, done in batch:
        if done.done():
            continue  # the platform hung up while we were writing
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
