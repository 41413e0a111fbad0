"""A ticket: one stretch of service, owned by the bot, a queue or one person at a time."""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _
from shops.models import ShopOwned, Team
from shops.secrets import EncryptedTextField

from conversations.models.talk import Conversation


class Ticket(ShopOwned):
    """Who answers a conversation now. `status` is written by `conversations.tickets` alone."""

    class Status(models.TextChoices):
        BOT = "bot", _("Bot answers")
        WAITING = "waiting", _("Waiting for a person")
        HELD = "held", _("With a person")
        RESOLVED = "resolved", _("Resolved")

    class Category(models.TextChoices):
        NONE = "", _("Not classified")
        PRE_SALE = "pre_sale", _("Pre-sale")
        AFTER_SALE = "after_sale", _("After-sale")
        TECHNICAL = "technical", _("Technical")
        COMPLAINT = "complaint", _("Complaint")
        SUGGESTION = "suggestion", _("Suggestion")

    class Priority(models.IntegerChoices):
        URGENT = 1, _("Urgent")
        HIGH = 2, _("High")
        NORMAL = 3, _("Normal")
        LOW = 4, _("Low")

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="tickets")
    status = models.CharField(
        _("state"), max_length=8, choices=Status.choices, default=Status.BOT, editable=False
    )
    holder = models.ForeignKey(
        "auth.User", models.PROTECT, null=True, related_name="held_tickets", editable=False
    )
    held_by_phone = models.BooleanField(_("held by the phone"), default=False, editable=False)
    reason = models.CharField(_("reason"), max_length=32, blank=True, default="", editable=False)
    category = models.CharField(
        _("category"), max_length=12, choices=Category.choices, blank=True, default=Category.NONE
    )
    priority = models.PositiveSmallIntegerField(
        _("priority"), choices=Priority.choices, default=Priority.NORMAL
    )
    team = models.ForeignKey(Team, models.SET_NULL, null=True, blank=True, verbose_name=_("team"))
    opened_at = models.DateTimeField(_("opened at"))
    status_since = models.DateTimeField(_("in this state since"))
    first_answer_due_at = models.DateTimeField(_("person's first answer due"), null=True)
    snoozed_until = models.DateTimeField(_("snoozed until"), null=True, blank=True)
    resolved_at = models.DateTimeField(_("resolved at"), null=True, editable=False)
    result = EncryptedTextField(_("result"), blank=True, default="")
    result_told_at = models.DateTimeField(_("result told at"), null=True, editable=False)
    rating = models.PositiveSmallIntegerField(_("rating"), null=True, editable=False)
    reopens = models.ForeignKey(
        "self", models.SET_NULL, null=True, related_name="reopened_by", verbose_name=_("reopens")
    )

    class Meta:
        verbose_name = _("ticket")
        verbose_name_plural = _("tickets")
        constraints = [
            models.UniqueConstraint(
                fields=["conversation"], name="one_open_ticket", condition=~Q(status="resolved")
            ),
            models.CheckConstraint(
                name="a_holder_exactly_while_held",
                condition=Q(status="held", holder__isnull=False, held_by_phone=False)
                | Q(status="held", holder__isnull=True, held_by_phone=True)
                | (~Q(status="held") & Q(holder__isnull=True, held_by_phone=False)),
            ),
            models.CheckConstraint(
                name="resolved_at_exactly_when_resolved",
                condition=Q(status="resolved", resolved_at__isnull=False)
                | (~Q(status="resolved") & Q(resolved_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="a_complaint_ends_with_a_result_told",
                condition=~Q(status="resolved", category="complaint")
                | Q(result_told_at__isnull=False),
            ),
            models.CheckConstraint(
                name="rating_one_to_five",
                condition=Q(rating__isnull=True) | Q(rating__range=(1, 5)),
            ),
            models.CheckConstraint(
                name="reopens_another", condition=Q(reopens__isnull=True) | ~Q(reopens=F("id"))
            ),
        ]
        indexes = [
            models.Index(fields=["shop", "status", "status_since"], name="tickets_by_state"),
        ]

    def __str__(self) -> str:
        return f"{self.get_status_display()} · {self.opened_at:%m-%d %H:%M}"


class TicketEvent(ShopOwned):
    """One move of a ticket, written in the transaction that made it."""

    class Actor(models.TextChoices):
        BOT = "bot", _("Bot")
        PERSON = "person", _("Person")
        PHONE = "phone", _("Person in the Douyin app")
        CUSTOMER = "customer", _("Customer")
        CLOCK = "clock", _("Clock")

    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="events")
    move = models.CharField(_("move"), max_length=20)
    from_status = models.CharField(_("from"), max_length=8, blank=True, default="")
    to_status = models.CharField(_("to"), max_length=8, choices=Ticket.Status.choices)
    actor = models.CharField(_("actor"), max_length=8, choices=Actor.choices)
    by = models.ForeignKey("auth.User", models.PROTECT, null=True, related_name="+")
    reason = models.CharField(_("reason"), max_length=32, blank=True, default="")
    at = models.DateTimeField(_("at"))

    class Meta:
        verbose_name = _("ticket event")
        verbose_name_plural = _("ticket events")
        ordering = ["at", "id"]
        constraints = [
            models.CheckConstraint(
                name="a_person_is_named",
                condition=Q(actor="person", by__isnull=False)
                | (~Q(actor="person") & Q(by__isnull=True)),
            )
        ]

    def __str__(self) -> str:
        return f"{self.move}: {self.from_status} → {self.to_status}"
