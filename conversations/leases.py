"""Who works on which customer now: a lane is leased to one worker, so that replies keep order.

A lease is a row with a token and an end by the database's clock. Every transaction that writes
for a lane first proves, by `prove`, that the token is still in force (fencing); a worker that
was paused too long finds that it is not, writes nothing, and another one has gone on.
"""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from uuid_utils.compat import uuid7

# Longer than one HTTP call to the platform may take, short enough that a killed worker's
# customers are answered within seconds.
DURATION = timedelta(seconds=10)
RENEW_EVERY_SECONDS = 3.0
# A delivery that is still `sending` after this belongs to a worker that died.
ABANDONED_AFTER = timedelta(seconds=8)

_TAKE = """
WITH due AS (
    SELECT lane FROM (
        SELECT lane, min(received_at) AS since
          FROM conversations_rawevent WHERE state = 'pending' GROUP BY lane
        UNION ALL
        SELECT lane, answer_due_at
          FROM conversations_conversation WHERE answer_due_at <= %(at)s
        UNION ALL
        SELECT c.lane, d.not_before
          FROM conversations_delivery d
          JOIN conversations_conversation c ON c.id = d.conversation_id
         WHERE d.state = 'intent' AND d.not_before <= %(at)s
        UNION ALL
        SELECT c.lane, d.sending_at
          FROM conversations_delivery d
          JOIN conversations_conversation c ON c.id = d.conversation_id
         WHERE d.state = 'sending' AND d.sending_at <= %(abandoned)s
    ) work
    WHERE NOT EXISTS (
        SELECT 1 FROM conversations_lease l WHERE l.lane = work.lane AND l.until > now()
    )
    GROUP BY lane ORDER BY min(since) LIMIT %(limit)s
)
INSERT INTO conversations_lease (lane, token, until)
SELECT lane, %(token)s, now() + %(duration)s FROM due ORDER BY lane
    ON CONFLICT (lane) DO UPDATE SET token = EXCLUDED.token, until = EXCLUDED.until
    WHERE conversations_lease.until <= now()
RETURNING lane
"""


class LeaseLost(Exception):
    """Another worker has taken over a lane; whatever was about to be written must not be."""


@dataclass(frozen=True, slots=True)
class Leased:
    """Lanes held under one token."""

    token: UUID
    lanes: tuple[UUID, ...]


def take(*, limit: int, at: datetime) -> Leased | None:
    """Lease up to `limit` lanes in which something is due at `at`, longest due first.

    Returns None when nothing is due. Lanes under another worker's lease are left out.
    """
    token = uuid7()
    with connection.cursor() as cursor:
        cursor.execute(
            _TAKE,
            {
                "at": at,
                "abandoned": at - ABANDONED_AFTER,
                "limit": limit,
                "token": token,
                "duration": DURATION,
            },
        )
        lanes = tuple(sorted(row[0] for row in cursor.fetchall()))
    return Leased(token=token, lanes=lanes) if lanes else None


def prove(leased: Leased) -> None:
    """Hold the leases until the end of the running transaction; raise LeaseLost if one is gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT lane FROM conversations_lease"
            " WHERE lane = ANY(%s) AND token = %s AND until > now() ORDER BY lane FOR SHARE",
            [list(leased.lanes), leased.token],
        )
        if len(cursor.fetchall()) != len(leased.lanes):
            raise LeaseLost


def renew(leased: Leased) -> None:
    """Start the leases' duration anew; raise LeaseLost if one is gone."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE conversations_lease SET until = now() + %s WHERE lane IN ("
            "SELECT lane FROM conversations_lease"
            " WHERE lane = ANY(%s) AND token = %s ORDER BY lane FOR UPDATE)",
            [DURATION, list(leased.lanes), leased.token],
        )
        if cursor.rowcount != len(leased.lanes):
            raise LeaseLost


def release(leased: Leased, *, but: Collection[UUID] = ()) -> None:
    """Give the lanes back, but those that rest until their lease runs out.

    Lanes that were lost are left to their new holder.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM conversations_lease WHERE lane IN ("
            "SELECT lane FROM conversations_lease"
            " WHERE lane = ANY(%s) AND token = %s ORDER BY lane FOR UPDATE)",
            [[lane for lane in leased.lanes if lane not in but], leased.token],
        )


@contextmanager
def kept(leased: Leased) -> Iterator[set[UUID]]:
    """Renew the leases in the background while the block runs, and give them back after it.

    Lanes that the block adds to the yielded set failed: they rest until their lease runs out,
    so that a fault does not spin. The thread wakes only for blocks that last.
    """
    done = threading.Event()
    resting: set[UUID] = set()

    def keep() -> None:
        try:
            while not done.wait(RENEW_EVERY_SECONDS):
                renew(leased)
        except LeaseLost:
            return  # the next `prove` in the working thread stops the work
        finally:
            connection.close()

    renewer = threading.Thread(target=keep, name="lease-renewal", daemon=True)
    renewer.start()
    try:
        yield resting
    finally:
        done.set()
        renewer.join()
        release(leased, but=resting)
