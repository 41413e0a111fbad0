"""The platform's windows and quotas: may we send now, with which scene, and what is left."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Q

from conversations.models import Conversation, Delivery

RULES: Mapping[str, Any] = tomllib.loads(
    (Path(__file__).parent / "rules.toml").read_text(encoding="utf-8")
)
HOUSE: Mapping[str, Any] = RULES["house"]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may still be sent into a conversation.

    `refusal` is "" when sending is allowed, else `no_window`, `window_closed` or
    `quota_used_up`; `left` counts messages; `reply_to` is the platform's id to quote.
    """

    refusal: str
    scene: str = ""
    reply_to: str = ""
    left: int = 0
    until: datetime | None = None


_USES_QUOTA = (Delivery.State.SENDING, Delivery.State.SENT, Delivery.State.UNKNOWN)


def used(*, conversations: Collection[UUID]) -> dict[UUID, dict[str, int]]:
    """Messages each conversation has used since its window opened: {id: {reply, enter}}.

    An unknown one counts as used: the platform may have taken it.
    """
    counted = Q(deliveries__state__in=_USES_QUOTA)
    rows = (
        Conversation.objects.filter(pk__in=conversations)
        .values("pk")
        .annotate(
            reply=Count(
                "deliveries",
                filter=counted & Q(deliveries__sending_at__gte=F("last_incoming__sent_at")),
            ),
            enter=Count(
                "deliveries",
                filter=counted
                & Q(deliveries__sending_at__gte=F("entered_at"))
                & Q(deliveries__scene=RULES["channels"]["douyin_dm"]["enter"]["scene"]),
            ),
        )
    )
    return {row["pk"]: {"reply": row["reply"], "enter": row["enter"]} for row in rows}


def allowance(
    *, conversation: Conversation, used: Mapping[str, int], origin: str, at: datetime
) -> Allowance:
    """What `origin` may send now; the bot leaves the last messages of a quota to people.

    `conversation.last_incoming` must be loaded. `used` is this conversation's entry of `used`.
    """
    rules = RULES["channels"].get(conversation.account.channel, {})
    reply, enter = rules.get("reply"), rules.get("enter")
    incoming = conversation.last_incoming
    if reply and incoming and incoming.ref:
        opened, ref = incoming.sent_at, incoming.ref
        return _within(reply, opened=opened, ref=ref, used=used["reply"], origin=origin, at=at)
    if enter and conversation.entered_at and conversation.entered_ref:
        opened, ref = conversation.entered_at, conversation.entered_ref
        return _within(enter, opened=opened, ref=ref, used=used["enter"], origin=origin, at=at)
    return Allowance(refusal="no_window")


def _within(
    rule: Mapping[str, Any], *, opened: datetime, ref: str, used: int, origin: str, at: datetime
) -> Allowance:
    until = opened + timedelta(seconds=rule["window_seconds"])
    reserve = 0 if origin == Delivery.Origin.PERSON else rule["reserve_for_people"]
    left = max(rule["quota"] - reserve - used, 0)
    refusal = "window_closed" if at >= until else "" if left else "quota_used_up"
    return Allowance(refusal=refusal, scene=rule["scene"], reply_to=ref, left=left, until=until)
