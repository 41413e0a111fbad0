"""The rows of a conversation and the constraints that keep them true; no behaviour lives here."""

from conversations.models.deliveries import Delivery, SendDecision
from conversations.models.events import Lease, RawEvent
from conversations.models.people import Consent, Customer, Identity
from conversations.models.talk import Conversation, Message, MessageBody, Turn
from conversations.models.tickets import Ticket, TicketEvent

__all__ = [
    "Consent",
    "Conversation",
    "Customer",
    "Delivery",
    "Identity",
    "Lease",
    "Message",
    "MessageBody",
    "RawEvent",
    "SendDecision",
    "Ticket",
    "TicketEvent",
    "Turn",
]
