"""The words of an answer: a template's variant, filled in, that this ticket has not heard yet."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Count

from conversations import handover
from conversations.models import Conversation, Delivery, Message
from templates_lib import rendering
from templates_lib.models import ReplyTemplate


@dataclass(frozen=True, slots=True)
class Reply:
    """A rendered answer and the template version it came from."""

    template_id: UUID
    version: int
    text: str
    hands_over: bool


def prepare(
    *, templates: Iterable[UUID], conversations: Collection[UUID], at: datetime
) -> "Replies":
    """Load in a fixed number of queries what choosing replies for a batch needs."""
    rows = ReplyTemplate.objects.filter(pk__in=set(templates)).prefetch_related("variants")
    return Replies(
        templates={row.pk: row for row in rows},
        said=_said(conversations, at=at),
        counts=_answers_of_the_last_hour(conversations, at=at),
        at=at,
    )


def _said(conversations: Collection[UUID], *, at: datetime) -> dict[UUID, set[str]]:
    said: dict[UUID, set[str]] = defaultdict(set)
    rows = Message.objects.filter(
        conversation__in=conversations,
        author=Message.Author.BOT,
        sent_at__gte=at - timedelta(hours=1),
        delivery__origin=Delivery.Origin.ANSWER,
    ).select_related("body")
    for message in rows:
        said[message.conversation_id].add(message.text or "")
    return said


def _answers_of_the_last_hour(conversations: Collection[UUID], *, at: datetime) -> dict[UUID, int]:
    rows = (
        Delivery.objects.filter(
            conversation__in=conversations,
            origin=Delivery.Origin.ANSWER,
            created_at__gte=at - timedelta(hours=1),
        )
        .values("conversation")
        .annotate(count=Count("pk"))
    )
    return {row["conversation"]: row["count"] for row in rows}


class Replies:
    """Answers for one batch of conversations."""

    def __init__(
        self,
        *,
        templates: dict[UUID, ReplyTemplate],
        said: dict[UUID, set[str]],
        counts: dict[UUID, int],
        at: datetime,
    ) -> None:
        self._templates = templates
        self._said = said
        self._counts = counts
        self._at = at

    def answers_of_the_last_hour(self, conversation: UUID) -> int:
        """How many answers the bot gave there within the last hour."""
        return self._counts.get(conversation, 0)

    def for_(self, *, template_id: UUID, conversation: Conversation) -> Reply | None:
        """The template's answer, in words not yet used there if it has any left.

        None when the template or all its variants are gone since the match.
        """
        template = self._templates.get(template_id)
        if template is None:
            return None
        texts = self._rendered(template, conversation)
        if not texts:
            return None
        heard = self._said[conversation.pk]
        shop = conversation.shop
        fresh = [t for t in texts if handover.labelled(t, shop=shop) not in heard]
        return Reply(
            template_id=template.pk,
            version=template.version,
            text=(fresh or texts)[0],
            hands_over=template.hands_over,
        )

    def _rendered(self, template: ReplyTemplate, conversation: Conversation) -> list[str]:
        """All variants filled in, beginning with the one this customer would get first."""
        variants = list(template.variants.all())
        if not variants:
            return []
        values = handover.values_for(conversation=conversation, at=self._at)
        start = conversation.pk.int % len(variants)
        ordered = variants[start:] + variants[:start]
        return [rendering.render(v.text, values=values) for v in ordered]
