"""The ledger's rows: what is to be sent, what became of it, and the gate's verdict on it."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from shops.models import ShopOwned

from conversations.models.talk import Conversation, Message, Turn
from conversations.models.tickets import Ticket


class Delivery(ShopOwned):
    """One outgoing message on its way. `state` is written by `conversations.ledger` alone."""

    class Origin(models.TextChoices):
        ANSWER = "answer", _("Bot's answer")
        NOTICE = "notice", _("Notice")
        PERSON = "person", _("Agent's reply")
        CAMPAIGN = "campaign", _("Campaign")

    class State(models.TextChoices):
        INTENT = "intent", _("To be sent")
        SENDING = "sending", _("Being sent")
        SENT = "sent", _("Sent")
        UNKNOWN = "unknown", _("Unknown whether it arrived")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")
        HELD = "held", _("Held back")

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="deliveries")
    ticket = models.ForeignKey(Ticket, models.CASCADE, related_name="deliveries")
    message = models.OneToOneField(Message, models.CASCADE, related_name="delivery")
    turn = models.ForeignKey(Turn, models.CASCADE, null=True, related_name="deliveries")
    origin = models.CharField(_("origin"), max_length=8, choices=Origin.choices)
    notice = models.CharField(_("kind of notice"), max_length=16, blank=True, default="")
    state = models.CharField(
        _("state"), max_length=9, choices=State.choices, default=State.INTENT, editable=False
    )
    reason = models.CharField(_("reason"), max_length=64, blank=True, default="")
    scene = models.CharField(_("scene"), max_length=32, blank=True, default="")
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    not_before = models.DateTimeField(_("not before"))
    created_at = models.DateTimeField(_("created at"))
    sending_at = models.DateTimeField(_("handed to the platform at"), null=True)
    finished_at = models.DateTimeField(_("finished at"), null=True)
    token = models.UUIDField(_("lease token"), null=True, editable=False)

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        constraints = [
            models.UniqueConstraint(
                fields=["turn"], name="one_answer_a_turn", condition=Q(origin="answer")
            ),
            models.UniqueConstraint(
                fields=["ticket", "notice"],
                name="one_notice_of_a_kind_a_ticket",
                condition=Q(origin="notice"),
            ),
            models.CheckConstraint(
                name="a_notice_has_a_kind",
                condition=Q(origin="notice") & ~Q(notice="") | ~Q(origin="notice") & Q(notice=""),
            ),
            models.CheckConstraint(
                name="an_answer_has_a_turn", condition=~Q(origin="answer") | Q(turn__isnull=False)
            ),
        ]
        indexes = [
            models.Index(
                fields=["not_before"], name="deliveries_due", condition=Q(state="intent")
            ),
            models.Index(
                fields=["sending_at"], name="deliveries_in_flight", condition=Q(state="sending")
            ),
            models.Index(fields=["conversation", "created_at"], name="deliveries_in_order"),
            models.Index(fields=["ticket", "state"], name="deliveries_of_a_ticket"),
        ]

    def __str__(self) -> str:
        return f"{self.origin} {self.state} {self.pk}"


class SendDecision(ShopOwned):
    """The gate's verdict on one delivery: what decided, and every check in the order it ran."""

    class Outcome(models.TextChoices):
        ALLOW = "allow", _("May be sent")
        HOLD = "hold", _("Held back")
        CANCEL = "cancel", _("Cancelled")

    delivery = models.ForeignKey(Delivery, models.CASCADE, related_name="decisions")
    outcome = models.CharField(_("outcome"), max_length=8, choices=Outcome.choices)
    check_name = models.CharField(_("deciding check"), max_length=16, blank=True, default="")
    reason = models.CharField(_("reason"), max_length=64, blank=True, default="")
    rule = models.CharField(_("rule"), max_length=64, blank=True, default="")
    start = models.PositiveIntegerField(_("from character"), null=True)
    end = models.PositiveIntegerField(_("to character"), null=True)
    checks = models.JSONField(
        _("checks"), default=list, help_text=_("In order: check, outcome, reason, rule.")
    )
    at = models.DateTimeField(_("at"))

    class Meta:
        verbose_name = _("send decision")
        verbose_name_plural = _("send decisions")
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.outcome} {self.check_name} {self.reason}".strip()
