"""The ledger: what is to be sent and what became of it. Nothing else writes deliveries.

    intent → sending → sent | unknown | failed
    intent → cancelled | held
    unknown → sent, when the platform echoes the message after all

Only a delivery in `sending` may be on the wire, and `start` is the only way into that state.
"""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q

from conversations.models import Conversation, Delivery, Message, MessageBody, Ticket, Turn

# An HTTP call ends within PLATFORM_TIMEOUT_SECONDS (5); a takeover waits no longer than this.
IN_FLIGHT_LIMIT_SECONDS = 6.0
IN_FLIGHT_POLL_SECONDS = 0.02

State = Delivery.State
Origin = Delivery.Origin


@dataclass(frozen=True, slots=True)
class Draft:
    """An outgoing message before it has a row: words, origin and what it answers."""

    conversation: Conversation
    ticket: Ticket
    origin: str
    text: str
    turn: Turn | None = None
    notice: str = ""
    by: User | None = None


def enqueue(*, drafts: Iterable[Draft], at: datetime) -> list[Delivery]:
    """Write each draft as a message with a delivery in `intent`, in the caller's transaction.

    A notice that the ticket already had is left out silently (one of a kind a ticket).
    """
    deliveries, messages, bodies = [], [], []
    for draft in _without_repeated_notices(list(drafts)):
        message = _message(draft=draft, at=at)
        messages.append(message)
        bodies.append(MessageBody(shop_id=message.shop_id, message=message, text=draft.text))
        deliveries.append(_delivery(draft=draft, message=message, at=at))
    Message.objects.bulk_create(messages)
    MessageBody.objects.bulk_create(bodies)
    return Delivery.objects.bulk_create(deliveries)


def _message(*, draft: Draft, at: datetime) -> Message:
    return Message(
        shop_id=draft.conversation.shop_id,
        conversation=draft.conversation,
        account_id=draft.conversation.account_id,
        ticket=draft.ticket,
        author=Message.Author.PERSON if draft.by else Message.Author.BOT,
        written_by=draft.by,
        sent_at=at,
        stored_at=at,
    )


def _delivery(*, draft: Draft, message: Message, at: datetime) -> Delivery:
    return Delivery(
        shop_id=draft.conversation.shop_id,
        conversation=draft.conversation,
        ticket=draft.ticket,
        message=message,
        turn=draft.turn,
        origin=draft.origin,
        notice=draft.notice,
        not_before=at,
        created_at=at,
    )


def _without_repeated_notices(drafts: list[Draft]) -> list[Draft]:
    tickets = {draft.ticket.pk for draft in drafts if draft.notice}
    if not tickets:
        return drafts
    given = set(
        Delivery.objects.filter(ticket__in=tickets, origin=Origin.NOTICE).values_list(
            "ticket_id", "notice"
        )
    )
    return [d for d in drafts if not d.notice or (d.ticket.pk, d.notice) not in given]


def start(
    *, ids: Collection[UUID], token: UUID, scenes: dict[UUID, str], at: datetime
) -> set[UUID]:
    """Move intents, given with their scenes, to `sending`; returns those that really moved.

    The caller holds the tickets' row locks, so a takeover either came before (and cancelled
    these) or waits until they are finished.
    """
    started = set()
    for pk in sorted(scenes):
        moved = Delivery.objects.filter(pk=pk, state=State.INTENT).update(
            state=State.SENDING,
            sending_at=at,
            token=token,
            scene=scenes[pk],
            attempts=F("attempts") + 1,
        )
        if moved:
            started.add(pk)
    return started


def finish_sent(*, delivery: Delivery, ref: str, at: datetime) -> bool:
    """Record that the platform took the message under `ref`; False if that was known already."""
    moved = Delivery.objects.filter(
        pk=delivery.pk, state__in=(State.SENDING, State.UNKNOWN)
    ).update(state=State.SENT, reason="", finished_at=at)
    if moved:
        Message.objects.filter(pk=delivery.message_id).update(ref=ref, sent_at=at)
    return bool(moved)


def finish(*, delivery: Delivery, state: str, reason: str, at: datetime) -> bool:
    """End a delivery on the wire as `unknown` or `failed`; False if it had ended already."""
    return bool(
        Delivery.objects.filter(pk=delivery.pk, state=State.SENDING).update(
            state=state, reason=reason, finished_at=at
        )
    )


def try_again(*, delivery: Delivery, reason: str, not_before: datetime) -> bool:
    """Put a delivery that surely did not arrive back to `intent`, to be sent at `not_before`."""
    return bool(
        Delivery.objects.filter(pk=delivery.pk, state=State.SENDING).update(
            state=State.INTENT, reason=reason, not_before=not_before, sending_at=None, token=None
        )
    )


def stop(*, ids: Collection[UUID], state: str, reason: str, at: datetime) -> int:
    """Take intents off the queue as `held` or `cancelled`; returns how many there were."""
    return Delivery.objects.filter(pk__in=ids, state=State.INTENT).update(
        state=state, reason=reason, finished_at=at
    )


def cancel_queued(
    *, ticket: Ticket, reason: str, at: datetime, origins: Collection[str] | None = None
) -> int:
    """Cancel what is queued for a ticket (all origins unless named); returns how many."""
    queued = Delivery.objects.filter(ticket=ticket, state=State.INTENT)
    if origins is not None:
        queued = queued.filter(origin__in=origins)
    return queued.update(state=State.CANCELLED, reason=reason, finished_at=at)


def supersede_answers(*, conversations: Collection[UUID], at: datetime) -> int:
    """Cancel queued answers that a newer customer message made stale, and free their turns.

    The messages of such a turn become unanswered again and join the next turn.
    """
    stale = Delivery.objects.filter(
        conversation__in=conversations, origin=Origin.ANSWER, state=State.INTENT
    )
    turns = list(stale.values_list("turn_id", flat=True))
    if not turns:
        return 0
    count = stale.update(state=State.CANCELLED, reason="superseded", finished_at=at)
    Message.objects.filter(turn__in=turns).update(turn=None)
    return count


def wait_until_landed(*, ticket: Ticket) -> bool:
    """Wait until nothing the bot wrote for the ticket is on the wire; False after the limit.

    Called by a takeover inside its transaction, after it locked the ticket: nothing new can
    start, so when this returns nothing of the bot's can reach the customer any more.
    """
    deadline = time.monotonic() + IN_FLIGHT_LIMIT_SECONDS
    flying = Delivery.objects.filter(ticket=ticket, state=State.SENDING).exclude(
        origin=Origin.PERSON
    )
    while flying.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(IN_FLIGHT_POLL_SECONDS)
    return True


def confirm_echo(*, conversation: Conversation, ref: str, text: str, at: datetime) -> bool:
    """Match the platform's echo of a message whose id we never learned; True if it is ours.

    By the words of the oldest delivery that is on the wire or unknown — the case of a worker
    that died before it could note the id.
    """
    candidates = (
        Delivery.objects.filter(conversation=conversation)
        .filter(Q(state=State.SENDING) | Q(state=State.UNKNOWN))
        .select_related("message__body")
        .order_by("created_at", "id")
    )
    for delivery in candidates:
        if delivery.message.text == text:
            return finish_sent(delivery=delivery, ref=ref, at=at)
    return False


def abandoned(*, lanes: Collection[UUID], before: datetime) -> list[Delivery]:
    """Deliveries whose worker died while they were on the wire, oldest first."""
    return list(
        Delivery.objects.filter(
            conversation__lane__in=lanes, state=State.SENDING, sending_at__lte=before
        )
        .select_related("ticket", "conversation__shop", "conversation__customer")
        .order_by("sending_at", "id")
    )


def backoff(*, attempts: int, retry_after: float | None) -> timedelta:
    """How long to wait before another try: 1, 2, 4, 8 … seconds, or what the platform asks."""
    return timedelta(seconds=retry_after or min(2 ** max(attempts - 1, 0), 60))


def locked_tickets(*, ids: Collection[UUID]) -> dict[UUID, Ticket]:
    """Lock tickets in a fixed order until the transaction ends; a takeover then waits for us."""
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("tickets are locked inside a transaction")
    rows = Ticket.objects.filter(pk__in=ids).order_by("pk").select_for_update(no_key=True)
    return {ticket.pk: ticket for ticket in rows}
