"""Step 1: each platform event once, as messages in their conversation and ticket.

Runs for lanes under a lease. What was received is committed before anything is answered, so a
worker that dies afterwards leaves a question, never a hole.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F
from shops.models import ChannelAccount

from conversations import consent, customers, leases, ledger, policy, tickets
from conversations.channels import registry
from conversations.channels.base import Incoming
from conversations.events import body_of
from conversations.models import Conversation, Message, MessageBody, RawEvent, Ticket

MAX_EVENTS = 500
MAX_TRIES = 5
# Events that say something about a customer; all others are kept as they came.
SPOKEN = frozenset({"message", "echo", "phone", "platform_reply", "other_app"})
AUTHORS = {
    "message": Message.Author.CUSTOMER,
    "phone": Message.Author.PHONE,
    "platform_reply": Message.Author.PLATFORM,
    "echo": Message.Author.OTHER_APP,  # an echo that no delivery of ours explains
    "other_app": Message.Author.OTHER_APP,
}


@dataclass(frozen=True, slots=True)
class Heard:
    """One parsed event and the raw row it came from."""

    event: RawEvent
    incoming: Incoming


def receive(*, leased: leases.Leased, at: datetime) -> set[UUID]:
    """Turn the pending events of the leased lanes into messages; returns those conversations.

    All or nothing for the batch. Raises LeaseLost when another worker has gone on.
    """
    with transaction.atomic():
        leases.prove(leased)
        events = _pending(leased.lanes)
        if not events:
            return set()
        heard = [Heard(e, i) for e in events if e.account_id for i in _parse(e)]
        conversations = _conversations(heard, at=at)
        _apply(heard, conversations, at=at)
        _settle(events, {h.event.pk for h in heard if _understood(h)}, at=at)
    return {conversation.pk for conversation in conversations.values()}


def _pending(lanes: Sequence[UUID]) -> list[RawEvent]:
    return list(
        RawEvent.objects.filter(lane__in=lanes, state=RawEvent.State.PENDING)
        .select_related("account__shop")
        .order_by("received_at", "id")[:MAX_EVENTS]
    )


def _parse(event: RawEvent) -> list[Incoming]:
    channel = registry.channel(event.channel)
    return channel.parse(body_of(event), event_id=event.event_id, received_at=event.received_at)


def _settle(events: list[RawEvent], understood: set[UUID], *, at: datetime) -> None:
    ids = {event.pk for event in events}
    for state, members in (
        (RawEvent.State.DONE, ids & understood),
        (RawEvent.State.KEPT, ids - understood),
    ):
        if members:
            RawEvent.objects.filter(pk__in=members).update(state=state, handled_at=at)


def set_aside(*, leased: leases.Leased, error: str, at: datetime) -> None:
    """Count a failure against the lanes' events; after MAX_TRIES a person must look at them.

    Raised errors are often of the moment (a database that restarts), so the events stay
    pending until then.
    """
    pending = RawEvent.objects.filter(lane__in=leased.lanes, state=RawEvent.State.PENDING)
    pending.update(attempts=F("attempts") + 1, error=error[:200])
    pending.filter(attempts__gte=MAX_TRIES).update(state=RawEvent.State.FAILED, handled_at=at)


def _understood(heard: Heard) -> bool:
    return heard.incoming.event not in ("unknown", "notice")


def _conversations(heard: Iterable[Heard], *, at: datetime) -> dict[UUID, Conversation]:
    newcomers = [
        customers.Newcomer(
            lane=h.event.lane,
            account=h.event.account,
            open_id=h.incoming.customer_open_id,
            name=h.incoming.customer_name,
            conversation_ref=h.incoming.conversation_ref,
        )
        for h in heard
        if h.incoming.customer_open_id and _understood(h)
    ]
    return customers.conversations_for(newcomers=newcomers, at=at)


def _apply(heard: list[Heard], conversations: dict[UUID, Conversation], *, at: datetime) -> None:
    known = _known_refs(heard)
    open_tickets = tickets.open_for(
        conversations=[
            conversations[h.event.lane]
            for h in heard
            if h.event.lane in conversations and h.incoming.event in ("message", "enter", "phone")
        ],
        at=at,
    )
    batch = Batch(open_tickets=open_tickets, known=known, at=at)
    for h in heard:
        conversation = conversations.get(h.event.lane)
        if conversation is None:
            _about_the_account(h, at=at)
        elif h.incoming.event in SPOKEN:
            batch.speech(h, conversation)
        elif h.incoming.event == "recall":
            batch.recalls.append(h)
        else:
            batch.circumstance(h, conversation)
    batch.write(conversations.values())


def _known_refs(heard: Iterable[Heard]) -> set[tuple[UUID, str]]:
    refs: dict[UUID, set[str]] = defaultdict(set)
    for h in heard:
        if h.incoming.event in SPOKEN and h.event.account_id:
            refs[h.event.account_id].add(h.incoming.message_ref)
    return {
        (account, ref)
        for account, wanted in refs.items()
        for ref in Message.objects.filter(account=account, ref__in=wanted).values_list(
            "ref", flat=True
        )
    }


def _about_the_account(heard: Heard, *, at: datetime) -> None:
    if heard.incoming.event == "unauthorize" and heard.event.account:
        ChannelAccount.objects.filter(pk=heard.event.account_id).update(
            state=ChannelAccount.State.REVOKED, state_reason="unauthorize"
        )


class Batch:
    """Messages gathered from one batch of events, written together."""

    def __init__(
        self, *, open_tickets: dict[UUID, Ticket], known: set[tuple[UUID, str]], at: datetime
    ) -> None:
        self.tickets = open_tickets
        self.known = known
        self.at = at
        self.messages: list[Message] = []
        self.bodies: list[MessageBody] = []
        self.phones: list[Ticket] = []
        self.recalls: list[Heard] = []

    def speech(self, heard: Heard, conversation: Conversation) -> None:
        """Something was said: store it unless it is a repeat or the echo of our own words."""
        incoming = heard.incoming
        key = (conversation.account_id, incoming.message_ref)
        if not incoming.message_ref or key in self.known:
            return
        if incoming.event == "echo" and ledger.confirm_echo(
            conversation=conversation, ref=incoming.message_ref, text=incoming.text, at=self.at
        ):
            return
        self.known.add(key)
        message = self._store(incoming, conversation)
        conversation.platform_ref = incoming.conversation_ref or conversation.platform_ref
        conversation.last_message_at = max(
            conversation.last_message_at or message.sent_at, message.sent_at
        )
        if incoming.event == "message":
            self._expects_an_answer(conversation, message)
        elif incoming.event == "phone":
            self.phones.append(self.tickets[conversation.pk])

    def _store(self, incoming: Incoming, conversation: Conversation) -> Message:
        message = Message(
            shop_id=conversation.shop_id,
            conversation=conversation,
            account_id=conversation.account_id,
            ticket=self.tickets.get(conversation.pk),
            author=AUTHORS[incoming.event],
            kind=incoming.kind,
            ref=incoming.message_ref,
            sent_at=incoming.sent_at,
            stored_at=self.at,
        )
        self.messages.append(message)
        self.bodies.append(
            MessageBody(
                shop_id=message.shop_id,
                message=message,
                text=incoming.text,
                extra=dict(incoming.extra) or None,
            )
        )
        return message

    def _expects_an_answer(self, conversation: Conversation, message: Message) -> None:
        newest = conversation.last_incoming_at
        if newest is None or message.sent_at >= newest:
            conversation.last_incoming = message
            conversation.last_incoming_at = message.sent_at
        if self.tickets[conversation.pk].status in (Ticket.Status.BOT, Ticket.Status.WAITING):
            conversation.turn_began_at = conversation.turn_began_at or self.at
            conversation.answer_due_at = due_at(conversation, at=self.at)

    def circumstance(self, heard: Heard, conversation: Conversation) -> None:
        """The customer opened the conversation, or agreed to be written to."""
        incoming = heard.incoming
        if incoming.event == "enter":
            conversation.entered_ref = incoming.message_ref
            conversation.entered_at = incoming.sent_at
            conversation.platform_ref = incoming.conversation_ref or conversation.platform_ref
            conversation.answer_due_at = conversation.answer_due_at or self.at
        elif incoming.event == "authorize":
            agreed = incoming.extra.get("auth_status") == 1
            state = consent.give if agreed else consent.withdraw
            state(
                customer=conversation.customer,
                source="im_authorize",
                message=None,
                at=incoming.sent_at,
            )

    def write(self, conversations: Iterable[Conversation]) -> None:
        """Write what was gathered, in the order the constraints need."""
        Message.objects.bulk_create(self.messages)
        MessageBody.objects.bulk_create(self.bodies)
        touched = list(conversations)
        Conversation.objects.bulk_update(
            touched,
            [
                "platform_ref",
                "last_message_at",
                "last_incoming",
                "last_incoming_at",
                "entered_ref",
                "entered_at",
                "turn_began_at",
                "answer_due_at",
            ],
        )
        spoken_to = {m.conversation_id for m in self.messages if m.author == "customer"}
        ledger.supersede_answers(conversations=spoken_to, at=self.at)
        for ticket in self.phones:
            tickets.phone_took_over(ticket=ticket, at=self.at)
        for heard in self.recalls:
            Message.objects.filter(
                account=heard.event.account_id, ref=heard.incoming.message_ref, recalled_at=None
            ).update(recalled_at=heard.incoming.sent_at)


def due_at(conversation: Conversation, *, at: datetime) -> datetime:
    """When the turn is ripe: a merge delay after the newest message, bounded from its first."""
    delay = timedelta(milliseconds=conversation.shop.merge_delay_ms)
    began = conversation.turn_began_at or at
    return min(at + delay, began + delay * policy.HOUSE["merge_delays_at_most"])
