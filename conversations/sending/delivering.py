"""On the wire: started deliveries are sent at the same time, and each ending is written down."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

import structlog
from django.conf import settings
from django.db import transaction
from shops.models import ChannelAccount

from conversations import handover, leases, ledger, policy
from conversations.channels import registry
from conversations.channels.base import ChannelError, Credentials, Outgoing
from conversations.models import Delivery
from conversations.sending.passing import Judged, Passed, next_round

log = structlog.get_logger(__name__)

SENDERS = 64
MAX_ATTEMPTS = policy.HOUSE["max_send_attempts"]
# A started delivery whose thread only now gets to run is not sent: its takeover may be over.
START_WITHIN_SECONDS = 2.0
State = Delivery.State


@dataclass(frozen=True, slots=True)
class Ending:
    """What became of one delivery: the platform's id, or the error."""

    passed: Passed
    ref: str = ""
    error: ChannelError | None = None


def deliver(*, leased: leases.Leased, at: datetime) -> int:
    """Send all that is due in the leased lanes, in order per conversation; returns how many.

    No transaction is open while the platform is called. What the gate held back, and what
    failed for good or ended unknown, is handed over to people.
    """
    sent, began = 0, time.monotonic()
    _recover(leased=leased, at=at)
    while True:
        now = at + timedelta(seconds=time.monotonic() - began)
        this = next_round(leased=leased, at=now)
        _hand_over_unanswered(this.stopped, at=now)
        if not this.judged:
            return sent
        endings = _put_on_the_wire(this.passed)
        _write_endings(endings, at=at + timedelta(seconds=time.monotonic() - began))
        sent += len(endings)


def _put_on_the_wire(passed: Iterable[Passed]) -> list[Ending]:
    started = time.monotonic()
    credentials = [(one, _credentials(one.delivery)) for one in passed]
    return list(_senders().map(lambda pair: _send(*pair, started=started), credentials))


@cache
def _senders() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=SENDERS, thread_name_prefix="send")


def _credentials(delivery: Delivery) -> Credentials:
    account = delivery.conversation.account
    app = account.app
    return Credentials(
        client_key=app.client_key,
        client_secret=app.client_secret,
        open_id=account.open_id,
        access_token=account.access_token,
        base_url=settings.PLATFORM_HOSTS[app.environment][app.platform],
    )


def _send(passed: Passed, credentials: Credentials, *, started: float) -> Ending:
    if time.monotonic() - started > START_WITHIN_SECONDS:
        late = ChannelError("not started in time", action="retry", code="late")
        return Ending(passed, error=late)
    conversation = passed.delivery.conversation
    outgoing = Outgoing(
        to_open_id=conversation.identity.open_id,
        conversation_ref=conversation.platform_ref,
        reply_to_ref=passed.reply_to,
        scene=passed.scene,
        kind="text",
        text=passed.text,
        media_ref=None,
    )
    try:
        ref = registry.channel(conversation.account.channel).send(
            outgoing, credentials=credentials
        )
    except ChannelError as error:
        return Ending(passed, error=error)
    return Ending(passed, ref=ref)


def _write_endings(endings: list[Ending], *, at: datetime) -> None:
    """Note every ending first; what follows from it may wait for locks, and comes after."""
    with transaction.atomic():
        for ending in sorted(endings, key=lambda e: e.passed.delivery.pk):
            _write(ending, at=at)
    for ending in endings:
        _follow_up(ending, at=at)


def _write(ending: Ending, *, at: datetime) -> None:
    delivery, error = ending.passed.delivery, ending.error
    if error is None:
        ledger.finish_sent(delivery=delivery, ref=ending.ref, at=at)
    elif error.may_have_arrived:
        ledger.finish(delivery=delivery, state=State.UNKNOWN, reason=error.code, at=at)
    elif error.action == "retry" and delivery.attempts + 1 < MAX_ATTEMPTS:
        wait = ledger.backoff(attempts=delivery.attempts + 1, retry_after=error.retry_after)
        ledger.try_again(delivery=delivery, reason=error.code, not_before=at + wait)
    else:
        ledger.finish(delivery=delivery, state=State.FAILED, reason=error.code, at=at)


def _follow_up(ending: Ending, *, at: datetime) -> None:
    delivery, error = ending.passed.delivery, ending.error
    if error is None:
        if delivery.turn and delivery.turn.reason == "matched_then_people":
            _hand_over(delivery, reason="template_asks", at=at)
        return
    log.warning(
        "delivery_not_sent", delivery=str(delivery.pk), code=error.code, action=error.action
    )
    _heed_account(delivery, error)
    if error.may_have_arrived:
        _hand_over(delivery, reason="delivery_unknown", at=at)
    elif error.action != "retry" or delivery.attempts + 1 >= MAX_ATTEMPTS:
        _hand_over(delivery, reason="send_failed", at=at)


def _heed_account(delivery: Delivery, error: ChannelError) -> None:
    """An error that concerns the whole account stops its sends until someone mends it."""
    state = {
        "reauthorise": ChannelAccount.State.REAUTHORISE,
        "stop": ChannelAccount.State.BANNED,
    }.get(error.action)
    if state:
        ChannelAccount.objects.filter(
            pk=delivery.conversation.account_id, state=ChannelAccount.State.CONNECTED
        ).update(state=state, state_reason=error.code)


def _hand_over_unanswered(stopped: Iterable[Judged], *, at: datetime) -> None:
    """An answer the gate did not let through leaves a customer waiting: a person goes on."""
    for one in stopped:
        deciding = one.decision.deciding
        if one.delivery.origin == Delivery.Origin.ANSWER and deciding.name != "owner":
            reason = "bot_paused" if deciding.name == "switch" else "gate_refused"
            _hand_over(one.delivery, reason=reason, at=at)


def _hand_over(delivery: Delivery, *, reason: str, at: datetime) -> None:
    handover.hand_over(
        conversation=delivery.conversation,
        ticket=delivery.ticket,
        reason=reason,
        turn=delivery.turn,
        at=at,
    )


def _recover(*, leased: leases.Leased, at: datetime) -> None:
    """What a dead worker left on the wire is unknown: a person looks, it is never sent again.

    Runs after receiving, so an echo that came meanwhile has already settled it as sent.
    """
    with transaction.atomic():
        leases.prove(leased)
        lost = [
            delivery
            for delivery in ledger.abandoned(
                lanes=leased.lanes, before=at - leases.ABANDONED_AFTER
            )
            if ledger.finish(delivery=delivery, state=State.UNKNOWN, reason="worker_lost", at=at)
        ]
    for delivery in lost:
        _hand_over(delivery, reason="delivery_unknown", at=at)
