"""Who owns a conversation: a table of moves, one writer, a verb a move.

         hand_over                claim
BOT ───────────────▶ WAITING ───────────────▶ HELD
 │ ▲                    ▲          release       │
 │ └─── return_to_bot ──┴────────────────────────┤
 │  claim, phone_took_over ─────────────────────▶│
 └──────────── resolve, from any open state ─────┘──▶ RESOLVED
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import Max, Q, QuerySet
from shops.models import Shop

from conversations import ledger
from conversations.models import Conversation, Delivery, Message, Ticket, TicketEvent, Turn

Status = Ticket.Status
Actor = TicketEvent.Actor


@dataclass(frozen=True, slots=True)
class Move:
    """From which states a move may start, and where it leads."""

    name: str
    sources: frozenset[str]
    target: str


HAND_OVER = Move("hand_over", frozenset({Status.BOT}), Status.WAITING)
CLAIM = Move("claim", frozenset({Status.BOT, Status.WAITING}), Status.HELD)
PHONE = Move("phone_took_over", frozenset({Status.BOT, Status.WAITING}), Status.HELD)
RELEASE = Move("release", frozenset({Status.HELD}), Status.WAITING)
RETURN = Move("return_to_bot", frozenset({Status.WAITING, Status.HELD}), Status.BOT)
RESOLVE = Move("resolve", frozenset({Status.BOT, Status.WAITING, Status.HELD}), Status.RESOLVED)
MOVES = (HAND_OVER, CLAIM, PHONE, RELEASE, RETURN, RESOLVE)


@dataclass(frozen=True, slots=True)
class Cause:
    """Who moves a ticket, why and when; becomes the ticket's event."""

    actor: str
    at: datetime
    by: User | None = None
    reason: str = ""


class Refused(Exception):
    """A move that the ticket's state or the rules do not allow; `code` says why.

    Codes: `lost_race` (someone else moved it first), `not_holder`, `result_needed`,
    `result_not_told`.
    """

    def __init__(self, code: str, ticket: Ticket) -> None:
        super().__init__(code)
        self.code = code
        self.ticket = ticket


def open_for(*, conversations: Iterable[Conversation], at: datetime) -> dict[UUID, Ticket]:
    """The open ticket of each conversation, opened for those that have none; by conversation.

    A ticket opened for a customer who was served before says which one it reopens.
    """
    by_id = {conversation.pk: conversation for conversation in conversations}
    found = current(conversations=by_id.values())
    missing = [conversation for pk, conversation in by_id.items() if pk not in found]
    if missing:
        last = _last_resolved(missing)
        opened = [
            Ticket(
                shop_id=c.shop_id,
                conversation=c,
                opened_at=at,
                status_since=at,
                reopens_id=last.get(c.pk),
            )
            for c in missing
        ]
        Ticket.objects.bulk_create(opened, ignore_conflicts=True)
        found |= current(conversations=missing)
        new = {t.pk for t in opened}
        TicketEvent.objects.bulk_create(
            _event(t, move="open", source="", cause=Cause(Actor.CUSTOMER, at))
            for t in found.values()
            if t.pk in new
        )
    return found


def _open(conversations: Iterable[UUID]) -> Iterable[Ticket]:
    return Ticket.objects.filter(conversation__in=list(conversations)).exclude(
        status=Status.RESOLVED
    )


def _last_resolved(conversations: list[Conversation]) -> dict[UUID, UUID]:
    rows = (
        Ticket.objects.filter(conversation__in=conversations, status=Status.RESOLVED)
        .order_by("conversation", "-resolved_at")
        .distinct("conversation")
        .values_list("conversation_id", "pk")
    )
    return dict(rows)


def current(*, conversations: Iterable[Conversation]) -> dict[UUID, Ticket]:
    """The open ticket of each conversation that has one; by conversation."""
    by_id = {conversation.pk: conversation for conversation in conversations}
    found = {ticket.conversation_id: ticket for ticket in _open(by_id)}
    for ticket in found.values():
        ticket.conversation = by_id[ticket.conversation_id]
    return found


def hand_over(*, ticket: Ticket, reason: str, at: datetime) -> bool:
    """BOT → WAITING by the bot itself; False when someone else already owns the ticket.

    Queued answers are cancelled: from here on a person speaks.
    """
    with transaction.atomic():
        try:
            _move(ticket, HAND_OVER, Cause(Actor.BOT, at, reason=reason))
        except Refused:
            return False
        ledger.cancel_queued(ticket=ticket, reason=reason, at=at, origins=[Delivery.Origin.ANSWER])
    return True


def claim(*, ticket: Ticket, by: User, at: datetime) -> Ticket:
    """BOT or WAITING → HELD by `by`; what the bot had queued is cancelled.

    When this returns, nothing the bot wrote is on its way any more: a message already handed
    to the platform is waited for (at most `ledger.IN_FLIGHT_LIMIT_SECONDS`), and shows as
    sent. Claiming what one holds already changes nothing. Raises Refused("lost_race").
    """
    with transaction.atomic():
        current = Ticket.objects.get(pk=ticket.pk)
        if current.status == Status.HELD and current.holder_id == by.pk:
            return current
        _move(ticket, CLAIM, Cause(Actor.PERSON, at, by), holder=by)
        ledger.cancel_queued(ticket=ticket, reason="taken_over", at=at)
        ledger.wait_until_landed(ticket=ticket)
    return ticket


def phone_took_over(*, ticket: Ticket, at: datetime) -> bool:
    """BOT or WAITING → HELD by the account's phone; False when a person holds it already."""
    with transaction.atomic():
        try:
            _move(ticket, PHONE, Cause(Actor.PHONE, at, reason="phone"), by_phone=True)
        except Refused:
            return False
        ledger.cancel_queued(ticket=ticket, reason="taken_over", at=at)
    return True


def release(*, ticket: Ticket, by: User | None, reason: str = "", at: datetime) -> Ticket:
    """HELD → WAITING: the holder (or the clock, by=None) gives the ticket back to the queue."""
    with transaction.atomic():
        _move(ticket, RELEASE, _person_or_clock(by, reason, at))
        ledger.cancel_queued(
            ticket=ticket, reason="released", at=at, origins=[Delivery.Origin.PERSON]
        )
    return ticket


def return_to_bot(*, ticket: Ticket, by: User | None, reason: str = "", at: datetime) -> Ticket:
    """WAITING or HELD → BOT; what the customer asked meanwhile is answered by the bot."""
    with transaction.atomic():
        _move(ticket, RETURN, _person_or_clock(by, reason, at))
        ledger.cancel_queued(
            ticket=ticket, reason="returned", at=at, origins=[Delivery.Origin.PERSON]
        )
        if _left_unanswered(ticket, at=at):
            Conversation.objects.filter(pk=ticket.conversation_id).update(answer_due_at=at)
    return ticket


def _left_unanswered(ticket: Ticket, *, at: datetime) -> bool:
    """Close the turn of what a person answered; True if the customer said more since."""
    unanswered = Message.objects.filter(
        ticket=ticket, author=Message.Author.CUSTOMER, turn__isnull=True
    )
    last_word = (
        Message.objects.filter(ticket=ticket)
        .filter(Q(author=Message.Author.PHONE) | Q(delivery__origin=Delivery.Origin.PERSON))
        .filter(Q(delivery__isnull=True) | Q(delivery__state=Delivery.State.SENT))
        .aggregate(at=Max("sent_at"))["at"]
    )
    if last_word and unanswered.filter(sent_at__lte=last_word).exists():
        turn = Turn.objects.create(
            shop_id=ticket.shop_id,
            conversation_id=ticket.conversation_id,
            ticket=ticket,
            outcome=Turn.Outcome.HANDED_OVER,
            reason="answered_by_person",
            at=at,
        )
        unanswered.filter(sent_at__lte=last_word).update(turn=turn)
    return unanswered.exists()


def resolve(
    *, ticket: Ticket, by: User | None, result: str = "", told: bool = False, at: datetime
) -> Ticket:
    """Any open state → RESOLVED. `told` says that the customer was told the result.

    Raises Refused("result_needed") or Refused("result_not_told") for a complaint without a
    result, or with one the customer does not know.
    """
    current = Ticket.objects.get(pk=ticket.pk)
    if current.category == Ticket.Category.COMPLAINT:
        if not (result or current.result):
            raise Refused("result_needed", current)
        if not (told or current.result_told_at):
            raise Refused("result_not_told", current)
    with transaction.atomic():
        current.result = result or current.result
        current.result_told_at = current.result_told_at or (at if told else None)
        current.save(update_fields=["result", "result_told_at"])
        _move(ticket, RESOLVE, _person_or_clock(by, "", at))
        ledger.cancel_queued(ticket=ticket, reason="resolved", at=at)
    return ticket


def classify(*, tickets: Iterable[Ticket], category: str, priority: int | None = None) -> None:
    """File tickets under a category, and raise their priority if one is given."""
    ids = [ticket.pk for ticket in tickets]
    Ticket.objects.filter(pk__in=ids).update(category=category)
    if priority is not None:
        Ticket.objects.filter(pk__in=ids, priority__gt=priority).update(priority=priority)


def _person_or_clock(by: User | None, reason: str, at: datetime) -> Cause:
    return Cause(Actor.PERSON if by else Actor.CLOCK, at, by, reason)


def _move(
    ticket: Ticket,
    move: Move,
    cause: Cause,
    *,
    holder: User | None = None,
    by_phone: bool = False,
) -> None:
    """Write `status` and its event together, if the ticket still is where the move may start.

    The state seen is part of the UPDATE's condition, so of two movers one finds no row; it
    looks again, because the winner may have moved to a state from which it may go on.
    """
    for _attempt in range(3):
        seen = Ticket.objects.values_list("status", flat=True).get(pk=ticket.pk)
        if seen not in move.sources:
            break
        moved = Ticket.objects.filter(pk=ticket.pk, status=seen).update(
            status=move.target,
            status_since=cause.at,
            reason=cause.reason,
            holder=holder,
            held_by_phone=by_phone,
            resolved_at=cause.at if move.target == Status.RESOLVED else None,
        )
        if moved:
            ticket.refresh_from_db()
            _event(ticket, move=move.name, source=seen, cause=cause).save(force_insert=True)
            return
    ticket.refresh_from_db()
    raise Refused("lost_race", ticket)


def _event(ticket: Ticket, *, move: str, source: str, cause: Cause) -> TicketEvent:
    return TicketEvent(
        shop_id=ticket.shop_id,
        ticket=ticket,
        move=move,
        from_status=source,
        to_status=ticket.status,
        actor=cause.actor,
        by=cause.by,
        reason=cause.reason,
        at=cause.at,
    )


def quiet_phones(*, shop: Shop, before: datetime) -> QuerySet[Ticket]:
    """Tickets of a shop held by a phone that has been silent since `before`."""
    return (
        Ticket.objects.filter(
            shop=shop,
            status=Status.HELD,
            held_by_phone=True,
            status_since__lte=before,
        )
        .exclude(
            conversation__messages__author=Message.Author.PHONE,
            conversation__messages__sent_at__gt=before,
        )
        .select_related("conversation__shop", "conversation__customer")
    )
