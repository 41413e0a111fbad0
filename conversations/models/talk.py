"""A conversation of one customer with one account: its messages, and the turns the bot answers."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from shops.models import ChannelAccount, ShopOwned
from shops.secrets import EncryptedJSONField, EncryptedTextField

from conversations.models.people import Customer, Identity


class Conversation(ShopOwned):
    """All that one identity and one account ever said to each other."""

    account = models.ForeignKey(ChannelAccount, models.PROTECT, related_name="conversations")
    customer = models.ForeignKey(Customer, models.PROTECT, related_name="conversations")
    identity = models.OneToOneField(Identity, models.PROTECT, related_name="conversation")
    lane = models.UUIDField(_("lane"), unique=True, editable=False)
    platform_ref = models.CharField(_("platform's id"), max_length=255, blank=True, default="")
    last_message_at = models.DateTimeField(_("last message"), null=True)
    last_incoming = models.ForeignKey(
        "conversations.Message", models.SET_NULL, null=True, related_name="+"
    )
    last_incoming_at = models.DateTimeField(_("last customer message"), null=True)
    entered_ref = models.CharField(_("entry's id"), max_length=255, blank=True, default="")
    entered_at = models.DateTimeField(_("entered at"), null=True)
    turn_began_at = models.DateTimeField(_("unanswered since"), null=True)
    answer_due_at = models.DateTimeField(_("answer due at"), null=True)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    paused_until = models.DateTimeField(_("paused until"), null=True, blank=True)
    paused_by = models.ForeignKey("auth.User", models.SET_NULL, null=True, related_name="+")
    pause_reason = models.CharField(_("pause reason"), max_length=200, blank=True, default="")

    class Meta:
        verbose_name = _("conversation")
        verbose_name_plural = _("conversations")
        indexes = [
            models.Index(fields=["shop", "-last_message_at"], name="conversations_by_activity"),
            models.Index(
                fields=["answer_due_at"],
                name="answers_due",
                condition=Q(answer_due_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return str(self.customer)


class Turn(ShopOwned):
    """Messages of one customer answered together, and why they were answered as they were."""

    class Outcome(models.TextChoices):
        ANSWERED = "answered", _("Answered")
        HANDED_OVER = "handed_over", _("Handed over")
        SILENT = "silent", _("No answer needed")

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="turns")
    ticket = models.ForeignKey("conversations.Ticket", models.CASCADE, related_name="turns")
    outcome = models.CharField(_("outcome"), max_length=12, choices=Outcome.choices)
    reason = models.CharField(_("reason"), max_length=32)
    cues = models.JSONField(_("cues"), default=list)
    candidates = models.JSONField(
        _("candidates"), default=list, help_text=_("Ranked: template, score, evidence.")
    )
    confidence = models.FloatField(_("confidence"), null=True)
    ambiguity = models.FloatField(_("ambiguity"), null=True)
    threshold = models.FloatField(_("threshold"), null=True)
    template = models.ForeignKey(
        "templates_lib.ReplyTemplate", models.SET_NULL, null=True, related_name="turns"
    )
    template_version = models.PositiveIntegerField(_("template version"), null=True)
    at = models.DateTimeField(_("decided at"))

    class Meta:
        verbose_name = _("turn")
        verbose_name_plural = _("turns")
        indexes = [models.Index(fields=["shop", "-at"], name="turns_of_a_shop")]

    def __str__(self) -> str:
        return f"{self.outcome} ({self.reason})"


class Message(ShopOwned):
    """One thing said by either side; its words are in `body`, which can be erased alone."""

    class Author(models.TextChoices):
        CUSTOMER = "customer", _("Customer")
        BOT = "bot", _("Bot")
        PERSON = "person", _("Agent")
        PHONE = "phone", _("Person in the Douyin app")
        PLATFORM = "platform", _("Platform's automatic reply")
        OTHER_APP = "other_app", _("Another application")

    class Kind(models.TextChoices):
        TEXT = "text", _("Text")
        IMAGE = "image", _("Image")
        EMOJI = "emoji", _("Sticker")
        VIDEO = "video", _("Video")
        CARD = "card", _("Card")
        USER_IMAGE = "user_image", _("Customer's image")
        USER_VIDEO = "user_video", _("Customer's video")
        OTHER = "other", _("Other")

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    account = models.ForeignKey(ChannelAccount, models.PROTECT, related_name="+")
    ticket = models.ForeignKey(
        "conversations.Ticket", models.SET_NULL, null=True, related_name="messages"
    )
    turn = models.ForeignKey(Turn, models.SET_NULL, null=True, related_name="messages")
    author = models.CharField(_("author"), max_length=12, choices=Author.choices)
    written_by = models.ForeignKey("auth.User", models.SET_NULL, null=True, related_name="+")
    kind = models.CharField(_("kind"), max_length=12, choices=Kind.choices, default=Kind.TEXT)
    ref = models.CharField(
        _("platform's id"), max_length=255, null=True, help_text=_("Empty until it was sent.")
    )
    sent_at = models.DateTimeField(_("sent at"))
    stored_at = models.DateTimeField(_("stored at"))
    recalled_at = models.DateTimeField(_("recalled at"), null=True)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        constraints = [
            models.UniqueConstraint(
                fields=["account", "ref"], name="one_copy", condition=Q(ref__isnull=False)
            ),
            models.CheckConstraint(
                name="only_customers_messages_make_a_turn",
                condition=Q(turn__isnull=True) | Q(author="customer"),
            ),
        ]
        indexes = [
            models.Index(fields=["conversation", "sent_at", "id"], name="messages_in_order"),
            models.Index(
                fields=["conversation"],
                name="messages_unanswered",
                condition=Q(author="customer", turn__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.author} {self.kind} {self.pk}"

    @property
    def text(self) -> str | None:
        """The words, or None once they were erased; "" when the message carries none."""
        body: MessageBody | None = getattr(self, "body", None)
        return body.text if body else None


class MessageBody(ShopOwned):
    """The words of a message, encrypted; deleting this row erases them and keeps the evidence."""

    message = models.OneToOneField(Message, models.CASCADE, related_name="body")
    text = EncryptedTextField(_("text"), blank=True, default="")
    extra = EncryptedJSONField(_("other content"), null=True, blank=True)

    class Meta:
        verbose_name = _("message body")
        verbose_name_plural = _("message bodies")

    def __str__(self) -> str:
        return str(self.pk)
