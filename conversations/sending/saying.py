"""A person's words join the path here; from now on they go through the same gate."""

from datetime import datetime

from django.contrib.auth.models import User
from django.db import transaction

from conversations import ledger
from conversations.models import Conversation, Delivery, Ticket


class NotHolder(Exception):
    """Only the holder of a ticket speaks; claim it first."""

    code = "not_holder"


def say(*, ticket: Ticket, text: str, by: User, at: datetime) -> Delivery:
    """Queue `text` as the holder's reply and return its delivery.

    Raises NotHolder when `by` does not hold the ticket (now, not when the page was drawn), and
    ValueError("empty_text") for text without a visible character.
    """
    if not text.strip():
        raise ValueError("empty_text")
    with transaction.atomic():
        locked = ledger.locked_tickets(ids=[ticket.pk])[ticket.pk]
        if locked.status != Ticket.Status.HELD or locked.holder_id != by.pk:
            raise NotHolder
        conversation = Conversation.objects.get(pk=ticket.conversation_id)
        [delivery] = ledger.enqueue(
            drafts=[
                ledger.Draft(
                    conversation=conversation,
                    ticket=locked,
                    origin=Delivery.Origin.PERSON,
                    text=text.strip(),
                    by=by,
                )
            ],
            at=at,
        )
    return delivery
