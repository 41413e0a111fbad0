"""What happens when nothing happens: a phone falls silent, a conversation is over."""

from datetime import datetime, timedelta

from shops.models import Shop

from conversations import handover, policy, tickets
from conversations.models import Ticket

BATCH = 100


def pass_by(*, at: datetime) -> None:
    """Make every move that time alone makes due at `at`; safe to call from many workers."""
    _quiet_phones(at=at)
    _idle(at=at)


def _quiet_phones(*, at: datetime) -> None:
    """A phone that took over and fell silent gives the ticket back, as its shop has chosen.

    To the queue when the customer spoke last and people are on duty, else to the bot, which
    answers what is open.
    """
    for shop in Shop.objects.filter(ticket__held_by_phone=True).distinct():
        before = at - timedelta(minutes=shop.phone_silence_minutes)
        for ticket in tickets.quiet_phones(shop=shop, before=before)[:BATCH]:
            _give_back(ticket, at=at)


def _give_back(ticket: Ticket, *, at: datetime) -> None:
    conversation = ticket.conversation
    customer_spoke_last = conversation.last_incoming_at == conversation.last_message_at
    try:
        if customer_spoke_last and handover.on_duty(conversation=conversation, at=at):
            tickets.release(ticket=ticket, by=None, reason="phone_silent", at=at)
        else:
            tickets.return_to_bot(ticket=ticket, by=None, reason="phone_silent", at=at)
    except tickets.Refused:
        return  # somebody claimed it in this moment


def _idle(*, at: datetime) -> None:
    """The bot's tickets in which nothing was said for long are done."""
    before = at - timedelta(hours=policy.HOUSE["idle_hours"])
    idle = Ticket.objects.filter(
        status=Ticket.Status.BOT, status_since__lte=before, conversation__answer_due_at=None
    ).exclude(conversation__last_message_at__gt=before)
    for ticket in idle.exclude(category=Ticket.Category.COMPLAINT)[:BATCH]:
        try:
            tickets.resolve(ticket=ticket, by=None, at=at)
        except tickets.Refused:
            continue  # it moved on in this moment
