"""The clock and the bell's other end: thin tasks that lease what is due and walk it through."""

from datetime import timedelta

import structlog
from celery import shared_task
from django.utils import timezone

from conversations import answering, bell, deadlines, leases, receiving, sending
from conversations.leases import Leased, LeaseLost
from conversations.models import Conversation

log = structlog.get_logger(__name__)

BATCH = 32


@shared_task(name="conversations.tasks.drain")
def drain() -> int:
    """Work until nothing is due; returns how many lanes were walked through."""
    bell.clear()
    lanes = 0
    while leased := leases.take(limit=BATCH, at=timezone.now()):
        if len(leased.lanes) == BATCH:
            bell.ring()  # there is more: let another thread begin
        walk(leased)
        lanes += len(leased.lanes)
    _ring_when_ripe()
    return lanes


@shared_task(name="conversations.tasks.sweep", expires=1)
def sweep() -> int:
    """Each second: whatever a lost bell, a dead worker or the passing of time has left due."""
    deadlines.pass_by(at=timezone.now())
    return drain()


def walk(leased: Leased) -> None:
    """Receive, answer and send for leased lanes; a lane that fails does not stop the others."""
    with leases.kept(leased) as resting:
        try:
            _steps(leased)
        except LeaseLost:
            log.warning("lease_lost", lanes=len(leased.lanes))
        except Exception:
            log.exception("batch_failed", lanes=len(leased.lanes))
            for lane in leased.lanes:
                if not _alone(Leased(token=leased.token, lanes=(lane,))):
                    resting.add(lane)


def _steps(leased: Leased) -> None:
    receiving.receive(leased=leased, at=timezone.now())
    answering.answer(leased=leased, at=timezone.now())
    sending.deliver(leased=leased, at=timezone.now())


def _alone(leased: Leased) -> bool:
    """Walk one lane of a batch that failed; a fault of its own brings a person in."""
    try:
        _steps(leased)
    except LeaseLost:
        log.warning("lease_lost", lanes=1)
    except Exception as error:
        log.exception("lane_failed", lane=str(leased.lanes[0]))
        receiving.set_aside(leased=leased, error=type(error).__name__, at=timezone.now())
        answering.give_up(leased=leased, at=timezone.now())
        return False
    return True


def _ring_when_ripe() -> None:
    """Merging has put turns off by less than a second; come back when the next one is ripe."""
    due = (
        Conversation.objects.filter(answer_due_at__isnull=False)
        .order_by("answer_due_at")
        .values_list("answer_due_at", flat=True)
        .first()
    )
    if due:
        bell.ring(after=max(due - timezone.now(), timedelta(milliseconds=20)))
