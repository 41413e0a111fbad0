"""Step 2: choose a reply or hand over, for all conversations of a batch at once."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction

from conversations import consent, cues, handover, leases, ledger, policy, replies, switch, tickets
from conversations.cues import Cue
from conversations.models import Conversation, Delivery, Message, Ticket, Turn
from templates_lib import matching

READABLE = (Message.Kind.TEXT, Message.Kind.EMOJI)
# Turns that need neither an answer nor a person.
SILENT = frozenset({"sticker", "opted_out"})
MAX_ANSWERS = policy.HOUSE["max_answers_an_hour"]
# Cues that a person must see at once, in the order they win.
FOR_PEOPLE = ((Cue.COMPLAINT, "complaint"), (Cue.ABUSE, "abuse"), (Cue.HUMAN, "asked_for_person"))
CATEGORIES = (
    (Cue.SUGGESTION, Ticket.Category.SUGGESTION),
    (Cue.PURCHASE, Ticket.Category.PRE_SALE),
)


@dataclass(slots=True)
class Open:
    """A turn that is ripe: its messages and, step by step, what is known about them."""

    conversation: Conversation
    ticket: Ticket
    messages: list[Message]
    history: tuple[str, ...] = ()
    cues: frozenset[Cue] = field(default_factory=frozenset)
    for_people: str = ""
    match: matching.Match | None = None

    @property
    def text(self) -> str:
        """The customer's words of this turn, one line a message."""
        return "\n".join(m.text or "" for m in self.messages if m.text).strip()


def answer(*, leased: leases.Leased, at: datetime) -> None:
    """Decide every ripe turn in the leased lanes: a queued reply, a hand-over, or silence.

    Matching runs outside any transaction; the decisions are written in one, under the lease.
    """
    ripe = _ripe(leased.lanes, at=at)
    turns = [o for o in ripe if o.ticket.status == Ticket.Status.BOT and o.messages]
    for turn in turns:
        turn.cues = frozenset(cues.read(turn.text))
        turn.for_people = _reason_for_people(turn, at=at)
    _match([t for t in turns if t.text and not t.for_people])
    with transaction.atomic():
        leases.prove(leased)
        decisions = Decisions(ripe, at=at)
        for one in ripe:
            decisions.decide(one)
        decisions.write()
        _settle(leased, at=at)


def give_up(*, leased: leases.Leased, at: datetime) -> None:
    """Hand the ripe turns of these lanes to people: answering them has failed by our fault."""
    with transaction.atomic():
        leases.prove(leased)
        for one in _ripe(leased.lanes, at=at):
            handover.hand_over(
                conversation=one.conversation, ticket=one.ticket, reason="our_fault", at=at
            )
        _settle(leased, at=at)


def _settle(leased: leases.Leased, *, at: datetime) -> None:
    Conversation.objects.filter(lane__in=leased.lanes, answer_due_at__lte=at).update(
        answer_due_at=None, turn_began_at=None
    )


def _ripe(lanes: Sequence[UUID], *, at: datetime) -> list[Open]:
    conversations = list(
        Conversation.objects.filter(lane__in=lanes, answer_due_at__lte=at)
        .select_related("account", "customer", "shop", "last_incoming")
        .order_by("pk")
    )
    if not conversations:
        return []
    open_tickets = tickets.current(conversations=conversations)
    unanswered = _unanswered(conversations)
    histories = _histories(conversations, at=at)
    return [
        Open(
            conversation=c,
            ticket=open_tickets[c.pk],
            messages=unanswered[c.pk],
            history=histories[c.pk],
        )
        for c in conversations
        if c.pk in open_tickets
    ]


def _unanswered(conversations: Collection[Conversation]) -> dict[UUID, list[Message]]:
    found: dict[UUID, list[Message]] = defaultdict(list)
    rows = (
        Message.objects.filter(
            conversation__in=conversations,
            author=Message.Author.CUSTOMER,
            turn__isnull=True,
            ticket__status=Ticket.Status.BOT,
        )
        .select_related("body")
        .order_by("sent_at", "id")
    )
    for message in rows:
        found[message.conversation_id].append(message)
    return found


def _histories(
    conversations: Collection[Conversation], *, at: datetime
) -> dict[UUID, tuple[str, ...]]:
    """What each customer said shortly before, oldest first, to explain an elliptic question."""
    since = at - timedelta(minutes=policy.HOUSE["history_minutes"])
    said: dict[UUID, list[str]] = defaultdict(list)
    rows = (
        Message.objects.filter(
            conversation__in=conversations,
            author=Message.Author.CUSTOMER,
            turn__isnull=False,
            sent_at__gte=since,
        )
        .select_related("body")
        .order_by("sent_at", "id")
    )
    for message in rows:
        if message.text:
            said[message.conversation_id].append(message.text)
    keep = policy.HOUSE["history_messages"]
    return {c.pk: tuple(said[c.pk][-keep:]) for c in conversations}


def _match(turns: Collection[Open]) -> None:
    by_shop: dict[UUID, list[Open]] = defaultdict(list)
    for turn in turns:
        by_shop[turn.conversation.shop_id].append(turn)
    for group in by_shop.values():
        found = matching.match(
            [matching.Query(text=t.text, history=t.history) for t in group],
            shop=group[0].conversation.shop,
        )
        for turn, match in zip(group, found, strict=True):
            turn.match = match


def _reason_for_people(one: Open, *, at: datetime) -> str:
    if switch.paused(one.conversation, at=at):
        return "bot_paused"
    if any(m.kind not in READABLE for m in one.messages):
        return "unreadable_media"
    return next((reason for cue, reason in FOR_PEOPLE if cue in one.cues), "")


class Decisions:
    """What was decided for a batch, written together at the end."""

    def __init__(self, ripe: Sequence[Open], *, at: datetime) -> None:
        self.at = at
        self.ripe = ripe
        self.turns: list[Turn] = []
        self.messages: list[Message] = []
        self.drafts: list[ledger.Draft] = []
        self.handovers: list[tuple[Open, Turn]] = []
        self.replies = replies.prepare(
            templates=[
                one.match.candidates[0].template_id
                for one in ripe
                if one.match and one.match.candidates
            ],
            conversations=[one.conversation.pk for one in ripe],
            at=at,
        )

    def decide(self, one: Open) -> None:
        """Settle one turn by the state of its ticket."""
        status = one.ticket.status
        if status == Ticket.Status.WAITING:
            self._tell_when_people_are_back(one)
        elif status == Ticket.Status.BOT and one.messages:
            self._turn(one)
        elif status == Ticket.Status.BOT and one.conversation.entered_at:
            handover.tell(
                conversation=one.conversation, ticket=one.ticket, kind="welcome", at=self.at
            )

    def _tell_when_people_are_back(self, one: Open) -> None:
        if not handover.on_duty(conversation=one.conversation, at=self.at):
            handover.tell(
                conversation=one.conversation, ticket=one.ticket, kind="away", at=self.at
            )

    def _turn(self, one: Open) -> None:
        self._heed(one)
        reason = one.for_people or self._reason_not_to_answer(one)
        if reason in SILENT:
            self._record(one, outcome=Turn.Outcome.SILENT, reason=reason)
        elif reason:
            turn = self._record(one, outcome=Turn.Outcome.HANDED_OVER, reason=reason)
            self.handovers.append((one, turn))
        else:
            self._reply(one)

    def _heed(self, one: Open) -> None:
        """Act on what the messages ask for besides an answer."""
        if Cue.OPT_OUT in one.cues:
            consent.withdraw(
                customer=one.conversation.customer,
                source="message",
                message=one.messages[-1],
                at=self.at,
            )
            handover.tell(
                conversation=one.conversation, ticket=one.ticket, kind="opted_out", at=self.at
            )
        category = next((c for cue, c in CATEGORIES if cue in one.cues), "")
        if category and not one.ticket.category:
            tickets.classify(tickets=[one.ticket], category=category)

    def _reason_not_to_answer(self, one: Open) -> str:
        if not one.text:
            return "sticker"
        confident = (
            one.match is not None
            and one.match.candidates
            and one.match.confidence >= one.conversation.shop.answer_threshold
        )
        if not confident and Cue.OPT_OUT in one.cues:
            return "opted_out"
        if one.match is None or not one.match.candidates:
            return "no_match"
        if not confident:
            return "low_confidence"
        if self.replies.answers_of_the_last_hour(one.conversation.pk) >= MAX_ANSWERS:
            return "too_many_answers"
        return ""

    def _reply(self, one: Open) -> None:
        best = one.match.candidates[0] if one.match else None
        reply = best and self.replies.for_(
            template_id=best.template_id, conversation=one.conversation
        )
        if reply is None:
            turn = self._record(one, outcome=Turn.Outcome.HANDED_OVER, reason="no_reply_text")
            self.handovers.append((one, turn))
            return
        reason = "matched_then_people" if reply.hands_over else "matched"
        turn = self._record(one, outcome=Turn.Outcome.ANSWERED, reason=reason)
        turn.template_id, turn.template_version = reply.template_id, reply.version
        self.drafts.append(
            ledger.Draft(
                conversation=one.conversation,
                ticket=one.ticket,
                origin=Delivery.Origin.ANSWER,
                text=handover.labelled(reply.text, shop=one.conversation.shop),
                turn=turn,
            )
        )

    def _record(self, one: Open, *, outcome: str, reason: str) -> Turn:
        match = one.match
        turn = Turn(
            shop_id=one.conversation.shop_id,
            conversation=one.conversation,
            ticket=one.ticket,
            outcome=outcome,
            reason=reason,
            cues=sorted(one.cues),
            candidates=[_shown(c) for c in match.candidates] if match else [],
            confidence=match.confidence if match else None,
            ambiguity=match.ambiguity if match else None,
            threshold=one.conversation.shop.answer_threshold,
            at=self.at,
        )
        self.turns.append(turn)
        for message in one.messages:
            message.turn = turn
            self.messages.append(message)
        return turn

    def write(self) -> None:
        """Write turns, then replies, then the hand-overs that follow from them."""
        Turn.objects.bulk_create(self.turns)
        Message.objects.bulk_update(self.messages, ["turn"])
        ledger.enqueue(drafts=self.drafts, at=self.at)
        for one, turn in self.handovers:
            handover.hand_over(
                conversation=one.conversation,
                ticket=one.ticket,
                reason=turn.reason,
                turn=turn,
                at=self.at,
            )


def _shown(candidate: matching.Candidate) -> dict[str, str | float]:
    return {
        "template": str(candidate.template_id),
        "key": candidate.key,
        "score": round(candidate.score, 4),
        "evidence": candidate.evidence,
    }
