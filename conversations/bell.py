"""The bell: tells the workers that something is due, once, however many events came."""

import threading
import time
from datetime import timedelta

import redis
import structlog
from celery import current_app
from django.conf import settings
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)

KEY = "yuxin:bell"
# If the worker that should clear the bell died, it can be rung again after this.
LASTS = timedelta(seconds=1)
BROKER_TIMEOUT_SECONDS = 0.5
# While the broker is away nobody waits for it: the sweep finds the work when it is back.
REST_SECONDS = 1.0

_client = redis.Redis.from_url(
    settings.REDIS_URL,
    socket_timeout=BROKER_TIMEOUT_SECONDS,
    socket_connect_timeout=BROKER_TIMEOUT_SECONDS,
)


class Breaker:
    """Closed while calls succeed; open for a rest after one failed."""

    def __init__(self, *, rest: float) -> None:
        self._rest = rest
        self._until = 0.0
        self._lock = threading.Lock()

    def is_open(self) -> bool:
        """Whether calls should be left out now."""
        return time.monotonic() < self._until

    def trip(self) -> None:
        """Start a rest."""
        with self._lock:
            self._until = time.monotonic() + self._rest


breaker = Breaker(rest=REST_SECONDS)


def ring(*, after: timedelta = timedelta()) -> bool:
    """Have the due work drained, now or `after` a while; True if this call made it happen.

    False when a drain is coming anyway, or when the broker is away: ringing never raises, and
    what is due stays due.
    """
    if breaker.is_open():
        return False
    try:
        return _ring(after)
    except (redis.RedisError, OperationalError, OSError) as error:
        breaker.trip()
        log.warning("bell_not_rung", error=type(error).__name__)
        return False


def _ring(after: timedelta) -> bool:
    seconds = after.total_seconds()
    slot = "" if seconds <= 0 else f":{int((time.time() + seconds) * 10)}"
    if not _client.set(KEY + slot, 1, nx=True, px=LASTS + max(after, timedelta())):
        return False
    current_app.send_task(
        "conversations.tasks.drain", countdown=seconds or None, retry=False, ignore_result=True
    )
    return True


def clear() -> None:
    """Called by a drain before it looks for work: from now on a ring means another drain."""
    try:
        _client.delete(KEY)
    except redis.RedisError as error:
        log.warning("bell_not_cleared", error=type(error).__name__)
