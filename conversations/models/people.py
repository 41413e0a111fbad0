"""Who writes: a customer of the shop, known by one identity on each account, and their consent."""

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from shops.models import ChannelAccount, ShopOwned
from shops.secrets import EncryptedTextField


class Customer(ShopOwned):
    """A person as the shop knows them, over all channels."""

    name = EncryptedTextField(_("name"), blank=True, default="")
    first_seen_at = models.DateTimeField(_("first seen at"), default=timezone.now)
    blocked_at = models.DateTimeField(_("blocked at"), null=True, blank=True)
    opted_out_at = models.DateTimeField(
        _("opted out at"),
        null=True,
        blank=True,
        help_text=_("Since then nothing is sent that the customer did not ask for."),
    )

    class Meta:
        verbose_name = _("customer")
        verbose_name_plural = _("customers")

    def __str__(self) -> str:
        return self.name or str(self.pk)


class Identity(ShopOwned):
    """A customer on one account: the platform's open_id, which belongs to one app."""

    customer = models.ForeignKey(Customer, models.PROTECT, related_name="identities")
    account = models.ForeignKey(ChannelAccount, models.PROTECT, related_name="identities")
    open_id = models.CharField(_("open_id"), max_length=128)

    class Meta:
        verbose_name = _("identity")
        verbose_name_plural = _("identities")
        constraints = [
            models.UniqueConstraint(fields=["account", "open_id"], name="one_identity_an_open_id")
        ]

    def __str__(self) -> str:
        return self.open_id


class Consent(ShopOwned):
    """One statement of a customer about being contacted, with the message that shows it."""

    class Kind(models.TextChoices):
        CONTACT = "contact", _("Being contacted first")

    customer = models.ForeignKey(Customer, models.PROTECT, related_name="consents")
    kind = models.CharField(_("kind"), max_length=16, choices=Kind.choices)
    given = models.BooleanField(_("given"))
    source = models.CharField(_("source"), max_length=32)
    message = models.ForeignKey("conversations.Message", models.SET_NULL, null=True, blank=True)
    at = models.DateTimeField(_("at"))
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)

    class Meta:
        verbose_name = _("consent")
        verbose_name_plural = _("consents")

    def __str__(self) -> str:
        return f"{self.kind} {'+' if self.given else '-'} {self.at:%Y-%m-%d}"
