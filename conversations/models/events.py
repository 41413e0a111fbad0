"""What platforms pushed, kept exactly as it came, and the leases under which it is worked on."""

from uuid import UUID, uuid5

from django.db import models
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7


def lane_of(*, app_id: UUID, account_open_id: str, customer_open_id: str) -> UUID:
    """The lane of one customer on one account: a stable id known before any row exists.

    Everything in a lane is worked on by one worker at a time, which keeps replies in order.
    Events that concern no customer get the account's (or the app's) own lane: pass "".
    """
    return uuid5(app_id, f"{account_open_id}\n{customer_open_id}")


class RawEvent(models.Model):
    """One webhook body, encrypted; `event_id` outlives the body so a redelivery stays known.

    Written by the gateway in raw SQL. Shop and account are null while nobody has connected the
    account. Foreign keys carry no database constraint: their checks would cost the intake more
    than the insert itself, and a shop's rows are erased by shop id.
    """

    class State(models.TextChoices):
        PENDING = "pending", _("Pending")
        DONE = "done", _("Done")
        KEPT = "kept", _("Kept, not understood")
        FAILED = "failed", _("Failed")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    shop = models.ForeignKey(
        "shops.Shop", models.DO_NOTHING, null=True, db_constraint=False, db_index=False
    )
    app = models.ForeignKey(
        "shops.PlatformApp", models.DO_NOTHING, db_constraint=False, db_index=False
    )
    account = models.ForeignKey(
        "shops.ChannelAccount", models.DO_NOTHING, null=True, db_constraint=False, db_index=False
    )
    channel = models.CharField(_("channel"), max_length=32)
    event_id = models.CharField(_("event id"), max_length=128)
    event = models.CharField(_("event"), max_length=64)
    lane = models.UUIDField(_("lane"))
    body = models.BinaryField(_("body"), null=True)
    received_at = models.DateTimeField(_("received at"))
    state = models.CharField(
        _("state"), max_length=8, choices=State.choices, default=State.PENDING
    )
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    error = models.CharField(_("error"), max_length=200, blank=True, default="")
    handled_at = models.DateTimeField(_("handled at"), null=True)

    class Meta:
        verbose_name = _("platform event")
        verbose_name_plural = _("platform events")
        constraints = [
            models.UniqueConstraint(fields=["app", "event_id"], name="one_copy_of_each_event")
        ]
        indexes = [
            models.Index(
                fields=["lane", "id"], name="pending_events", condition=models.Q(state="pending")
            ),
            models.Index(fields=["shop", "-received_at"], name="events_of_a_shop"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.id}"


class Lease(models.Model):
    """The right to work on a lane until a moment; a worker that lost it finds another token."""

    lane = models.UUIDField(primary_key=True)
    token = models.UUIDField()
    until = models.DateTimeField()

    class Meta:
        verbose_name = _("lease")
        verbose_name_plural = _("leases")

    def __str__(self) -> str:
        return f"{self.lane} until {self.until:%H:%M:%S}"
