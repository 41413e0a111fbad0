"""What became of each customer message, as a program may ask: answered, handed over, or not yet."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shops.models import Shop

from conversations.models import Delivery, Message, Turn

PAGE = 500


@dataclass(frozen=True, slots=True)
class Sending:
    """A reply to the turn and how far it got."""

    id: UUID
    origin: str
    state: str
    message_ref: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One customer message and what was made of it.

    `outcome` is the turn's (answered, handed_over, silent), handed_over for messages that
    reached a ticket in people's hands, or pending. `last_in_turn` marks the message whose turn
    ends with it; a message without a turn is its own.
    """

    message_ref: str
    stored_at: datetime
    turn: UUID | None
    last_in_turn: bool
    outcome: str
    ticket_status: str
    deliveries: tuple[Sending, ...]


def since(*, shop: Shop, at: datetime, after: UUID | None) -> tuple[list[Outcome], UUID | None]:
    """Up to PAGE outcomes of messages stored since `at`, oldest first, and where to go on.

    `after` is the second value of the page before; None begins at the start and, as second
    value, says that there is no more.
    """
    rows = (
        Message.objects.filter(shop=shop, author=Message.Author.CUSTOMER, stored_at__gte=at)
        .select_related("ticket", "turn")
        .order_by("id")
    )
    messages = list(rows.filter(id__gt=after)[:PAGE] if after else rows[:PAGE])
    sendings = _sendings([m.turn_id for m in messages if m.turn_id])
    last = _last_of(messages)
    found = [
        Outcome(
            message_ref=m.ref or "",
            stored_at=m.stored_at,
            turn=m.turn_id,
            last_in_turn=m.turn_id is None or last[m.turn_id] == m.pk,
            outcome=_outcome(m),
            ticket_status=m.ticket.status if m.ticket else "",
            deliveries=tuple(sendings[m.turn_id]) if m.turn_id else (),
        )
        for m in messages
    ]
    return found, messages[-1].pk if len(messages) == PAGE else None


def _outcome(message: Message) -> str:
    if message.turn:
        return message.turn.outcome
    if message.ticket and message.ticket.status != "bot":
        return Turn.Outcome.HANDED_OVER
    return "pending"


def _last_of(messages: Sequence[Message]) -> dict[UUID, UUID]:
    """The last message of each turn, by turn, over the whole conversation and not the page."""
    rows = (
        Message.objects.filter(turn__in={m.turn_id for m in messages if m.turn_id})
        .order_by("turn", "-sent_at", "-id")
        .distinct("turn")
        .values_list("turn_id", "pk")
    )
    return dict(rows)


def _sendings(turns: Sequence[UUID]) -> dict[UUID, list[Sending]]:
    """Deliveries by turn: the answer, and the notices of the ticket that were written with it."""
    found: dict[UUID, list[Sending]] = defaultdict(list)
    rows = Delivery.objects.filter(turn__in=set(turns)).select_related("message")
    for d in rows.order_by("created_at", "id"):
        found[d.turn_id].append(Sending(d.pk, d.origin, d.state, d.message.ref))
    return found
