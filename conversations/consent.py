"""Who agreed to be written to first, and who said stop; read by the bot and by the gate."""

from datetime import datetime

from conversations.models import Consent, Customer, Message


def withdraw(*, customer: Customer, source: str, message: Message | None, at: datetime) -> None:
    """Record that the customer wants no more contact they did not ask for; idempotent."""
    _state(customer=customer, given=False, source=source, message=message, at=at)
    Customer.objects.filter(pk=customer.pk, opted_out_at=None).update(opted_out_at=at)
    customer.opted_out_at = customer.opted_out_at or at


def give(
    *,
    customer: Customer,
    source: str,
    message: Message | None = None,
    at: datetime,
    expires_at: datetime | None = None,
) -> None:
    """Record the customer's own agreement, which also ends an earlier opt-out."""
    _state(customer=customer, given=True, source=source, message=message, at=at, until=expires_at)
    Customer.objects.filter(pk=customer.pk).update(opted_out_at=None)
    customer.opted_out_at = None


def _state(
    *,
    customer: Customer,
    given: bool,
    source: str,
    message: Message | None,
    at: datetime,
    until: datetime | None = None,
) -> None:
    Consent.objects.create(
        shop_id=customer.shop_id,
        customer=customer,
        kind=Consent.Kind.CONTACT,
        given=given,
        source=source,
        message=message,
        at=at,
        expires_at=until,
    )
