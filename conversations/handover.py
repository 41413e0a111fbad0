"""Bot → people: move the ticket, and tell the customer who will answer and when."""

import tomllib
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from shops.models import Shop

from conversations import ledger, tickets
from conversations.models import Conversation, Delivery, Ticket, Turn
from shops import hours
from templates_lib import library, rendering

_DEFAULTS: Mapping[str, str] = tomllib.loads(
    (Path(__file__).parent / "notices.toml").read_text(encoding="utf-8")
)
# Reasons that deserve a person before the others; everything else waits its turn.
_PRIORITY = {"complaint": Ticket.Priority.HIGH, "abuse": Ticket.Priority.HIGH}


def hand_over(
    *,
    conversation: Conversation,
    ticket: Ticket,
    reason: str,
    at: datetime,
    turn: Turn | None = None,
) -> bool:
    """Put the ticket into the queue for `reason` and tell the customer; False if not the bot's.

    The notice says that a person comes, or when people are back if nobody is on duty.
    """
    if not tickets.hand_over(ticket=ticket, reason=reason, at=at):
        return False
    if reason in _PRIORITY:
        category = Ticket.Category.COMPLAINT if reason == "complaint" else ticket.category
        tickets.classify(tickets=[ticket], category=category, priority=_PRIORITY[reason])
    kind = "handover" if on_duty(conversation=conversation, at=at) else "away"
    tell(conversation=conversation, ticket=ticket, kind=kind, at=at, turn=turn)
    return True


def on_duty(*, conversation: Conversation, at: datetime) -> bool:
    """Whether people of the shop answer at `at`."""
    return hours.is_open(shop=conversation.shop, at=at)


def tell(
    *,
    conversation: Conversation,
    ticket: Ticket,
    kind: str,
    at: datetime,
    turn: Turn | None = None,
) -> None:
    """Queue a notice; a ticket gets each kind once, however often this is called."""
    text = notice_text(conversation=conversation, kind=kind, at=at)
    if text:
        ledger.enqueue(
            drafts=[
                ledger.Draft(
                    conversation=conversation,
                    ticket=ticket,
                    origin=Delivery.Origin.NOTICE,
                    notice=kind,
                    turn=turn,
                    text=labelled(text, shop=conversation.shop),
                )
            ],
            at=at,
        )


def notice_text(*, conversation: Conversation, kind: str, at: datetime) -> str:
    """The shop's published words for a kind of notice, else the house's; "" if there are none."""
    shop = conversation.shop
    opening = hours.next_opening(shop=shop, at=at)
    values = values_for(conversation=conversation, at=at)
    variant = library.text_for(shop=shop, kind=kind, seed=str(conversation.pk))
    if variant is not None:
        return rendering.render(variant, values=values)
    default = _DEFAULTS.get("away_unknown" if kind == "away" and not opening else kind, "")
    return default.replace("{next_open}", values["next_open"] or "")


def values_for(*, conversation: Conversation, at: datetime) -> dict[str, str | None]:
    """What templates may quote about this conversation; None where it is not known."""
    opening = hours.next_opening(shop=conversation.shop, at=at)
    return {
        "customer_name": conversation.customer.name or None,
        "shop_name": conversation.shop.name,
        "next_open": _spoken(opening, at=at, shop=conversation.shop) if opening else None,
    }


def _spoken(moment: datetime, *, at: datetime, shop: Shop) -> str:
    """A moment as customers say it, in the shop's zone: 今天14:00, 明天9:00, 3月5日9:00."""
    zone = ZoneInfo(shop.timezone)
    local, today = moment.astimezone(zone), at.astimezone(zone).date()
    days = {today: "今天", today + timedelta(days=1): "明天"}
    day = days.get(local.date(), f"{local.month}月{local.day}日")
    return f"{day}{local.hour}:{local.minute:02d}"


def labelled(text: str, *, shop: Shop) -> str:
    """The bot's words with the mark that says so, as the law on generated content asks."""
    return f"{text}\n【{shop.ai_label}】"
