"""Through the gate: the head of each conversation's queue is judged and, if allowed, started.

All under the tickets' row locks and the lanes' leases, in one short transaction: what leaves it
in `sending` may be put on the wire, and a takeover that comes later waits for it to land.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, OuterRef

from conversations import leases, ledger, policy
from conversations.models import (
    Conversation,
    Delivery,
    Message,
    MessageBody,
    SendDecision,
    Ticket,
)
from conversations.sending import gate

Origin = Delivery.Origin
State = Delivery.State
Outcome = gate.Outcome


@dataclass(frozen=True, slots=True)
class Judged:
    """A delivery, what the gate looked at, and its verdict."""

    delivery: Delivery
    facts: gate.Facts
    decision: gate.Decision


@dataclass(frozen=True, slots=True)
class Passed:
    """A delivery that is now `sending`, and what is to be put on the wire."""

    delivery: Delivery
    text: str
    scene: str
    reply_to: str


@dataclass(frozen=True, slots=True)
class Round:
    """What one pass through the gate did: started these, and kept those from being sent."""

    passed: list[Passed]
    stopped: list[Judged]
    judged: int


def next_round(*, leased: leases.Leased, at: datetime) -> Round:
    """Judge the head of every queue in the leased lanes and start what may be sent."""
    with transaction.atomic():
        leases.prove(leased)
        heads = _heads(leased.lanes, at=at)
        if not heads:
            return Round([], [], 0)
        tickets = ledger.locked_tickets(ids={d.ticket_id for d in heads})
        heads = _still_queued(heads)
        judged = [
            Judged(facts.delivery, facts, gate.decide(facts))
            for facts in _facts(heads, tickets, at=at)
        ]
        SendDecision.objects.bulk_create(_row(one, at=at) for one in judged)
        return _act(judged, token=leased.token, at=at)


def _heads(lanes: Sequence[UUID], *, at: datetime) -> list[Delivery]:
    """The oldest queued delivery of each conversation, unless something is on the wire there."""
    flying = Delivery.objects.filter(
        conversation=OuterRef("conversation"), state=Delivery.State.SENDING
    )
    rows = (
        Delivery.objects.filter(conversation__lane__in=lanes, state=Delivery.State.INTENT)
        .filter(~Exists(flying))
        .order_by("conversation", "created_at", "id")
        .distinct("conversation")
        .select_related("turn")
    )
    return [delivery for delivery in rows if delivery.not_before <= at]


def _still_queued(heads: list[Delivery]) -> list[Delivery]:
    """Those a takeover did not cancel while we waited for its tickets' locks."""
    queued = set(
        Delivery.objects.filter(
            pk__in=[d.pk for d in heads], state=Delivery.State.INTENT
        ).values_list("pk", flat=True)
    )
    return [delivery for delivery in heads if delivery.pk in queued]


def _facts(
    heads: list[Delivery], tickets: dict[UUID, Ticket], *, at: datetime
) -> list[gate.Facts]:
    conversations = _conversations(heads)
    bodies = {
        body.message_id: body
        for body in MessageBody.objects.filter(
            message__in=[d.message_id for d in heads]
        ).select_related("message")
    }
    used = policy.used(conversations=list(conversations))
    newest = _newest_customer_message(heads)
    said = _said_in_ticket(heads)
    for delivery in heads:
        delivery.conversation = conversations[delivery.conversation_id]
        delivery.message = bodies[delivery.message_id].message
        delivery.ticket = tickets[delivery.ticket_id]
    return [
        gate.Facts(
            delivery=d,
            ticket=d.ticket,
            text=bodies[d.message_id].text,
            allowance=policy.allowance(
                conversation=d.conversation,
                used=used[d.conversation_id],
                origin=d.origin,
                at=at,
            ),
            newer_customer_message=d.pk in newest,
            already_said=(d.ticket_id, bodies[d.message_id].text) in said,
            at=at,
        )
        for d in heads
    ]


def _conversations(heads: list[Delivery]) -> dict[UUID, Conversation]:
    rows = Conversation.objects.filter(pk__in=[d.conversation_id for d in heads]).select_related(
        "account__app", "shop", "customer", "identity", "last_incoming"
    )
    return {conversation.pk: conversation for conversation in rows}


def _newest_customer_message(heads: list[Delivery]) -> set[UUID]:
    """Answers whose conversation holds a customer message that no turn has taken up yet."""
    newer = Message.objects.filter(
        conversation=OuterRef("conversation"),
        author=Message.Author.CUSTOMER,
        turn__isnull=True,
        ticket=OuterRef("ticket"),
    )
    return set(
        Delivery.objects.filter(pk__in=[d.pk for d in heads], origin=Origin.ANSWER)
        .filter(Exists(newer))
        .values_list("pk", flat=True)
    )


def _said_in_ticket(heads: list[Delivery]) -> set[tuple[UUID, str]]:
    """Every (ticket, text) the bot has already sent as an answer in these tickets."""
    rows = Delivery.objects.filter(
        ticket__in={d.ticket_id for d in heads},
        origin=Origin.ANSWER,
        state__in=(State.SENT, State.UNKNOWN),
    ).select_related("message__body")
    return {(delivery.ticket_id, delivery.message.text or "") for delivery in rows}


def _row(one: Judged, *, at: datetime) -> SendDecision:
    deciding = one.decision.deciding
    return SendDecision(
        shop_id=one.delivery.shop_id,
        delivery=one.delivery,
        outcome=deciding.outcome,
        check_name=deciding.name,
        reason=deciding.reason,
        rule=deciding.rule,
        start=deciding.start,
        end=deciding.end,
        checks=[_evidence(check) for check in one.decision.checks],
        at=at,
    )


def _evidence(check: gate.Check) -> dict[str, object]:
    """A check without the words it looked at: evidence holds ids, rules and places only."""
    return {k: v for k, v in asdict(check).items() if k != "masked" and v not in ("", None, ())}


def _act(judged: list[Judged], *, token: UUID, at: datetime) -> Round:
    by_outcome: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_outcome[one.decision.outcome].append(one)
    allowed = by_outcome[Outcome.ALLOW]
    started = ledger.start(
        scenes={one.delivery.pk: one.facts.allowance.scene for one in allowed},
        token=token,
        at=at,
    )
    stale = [d for d in by_outcome[Outcome.CANCEL] if d.facts.newer_customer_message]
    ledger.supersede_answers(conversations=[d.delivery.conversation_id for d in stale], at=at)
    for outcome, state in ((Outcome.HOLD, State.HELD), (Outcome.CANCEL, State.CANCELLED)):
        for one in by_outcome[outcome]:
            ledger.stop(
                ids=[one.delivery.pk], state=state, reason=one.decision.deciding.reason, at=at
            )
    return Round(
        passed=[_passed(one) for one in allowed if one.delivery.pk in started],
        stopped=by_outcome[Outcome.HOLD] + by_outcome[Outcome.CANCEL],
        judged=len(judged),
    )


def _passed(one: Judged) -> Passed:
    return Passed(
        delivery=one.delivery,
        text=one.decision.text,
        scene=one.facts.allowance.scene,
        reply_to=one.facts.allowance.reply_to,
    )
