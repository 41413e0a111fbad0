"""The gate every outgoing message passes: one list of checks, each with a verdict and a reason.

    switch → owner → consent → window → capability → compliance → repeat

The first check that does not allow decides; those before it are kept as evidence too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from compliance.review import review
from shops.models import ChannelAccount

from conversations import policy, switch
from conversations.channels import registry
from conversations.models import Delivery, SendDecision, Ticket

Outcome = SendDecision.Outcome
Origin = Delivery.Origin


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the checks look at, loaded once for a batch."""

    delivery: Delivery
    ticket: Ticket
    text: str
    allowance: policy.Allowance
    newer_customer_message: bool
    already_said: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """One check's verdict. `rule`, `start` and `end` (code points) point at the evidence.

    `findings` names all rules that fired; `masked` is the text to send instead, if any.
    """

    name: str
    outcome: str = Outcome.ALLOW
    reason: str = ""
    rule: str = ""
    start: int | None = None
    end: int | None = None
    findings: tuple[str, ...] = ()
    masked: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's verdict: the deciding check, all checks that ran, and the text to send."""

    deciding: Check
    checks: tuple[Check, ...]
    text: str

    @property
    def outcome(self) -> str:
        """`allow`, `hold` or `cancel`."""
        return self.deciding.outcome


def decide(facts: Facts) -> Decision:
    """Run the checks in order until one does not allow."""
    ran: list[Check] = []
    text = facts.text
    for check in CHECKS:
        verdict = check(facts)
        ran.append(verdict)
        if verdict.outcome != Outcome.ALLOW:
            return Decision(deciding=verdict, checks=tuple(ran), text=text)
        text = text if verdict.masked is None else verdict.masked
    return Decision(deciding=Check("gate"), checks=tuple(ran), text=text)


def _switch(facts: Facts) -> Check:
    """The off switch silences what is automatic; people may still answer."""
    account = facts.delivery.conversation.account
    paused = switch.paused(facts.delivery.conversation, at=facts.at)
    if paused and facts.delivery.origin != Origin.PERSON:
        return Check("switch", Outcome.CANCEL, f"{paused}_paused")
    if account.state != ChannelAccount.State.CONNECTED:
        return Check("switch", Outcome.HOLD, f"account_{account.state}")
    return Check("switch")


def _owner(facts: Facts) -> Check:
    return OWNERS[facts.delivery.origin](facts)


def _answer_may(facts: Facts) -> Check:
    if facts.ticket.status != Ticket.Status.BOT:
        return Check("owner", Outcome.CANCEL, f"ticket_{facts.ticket.status}")
    if facts.newer_customer_message:
        return Check("owner", Outcome.CANCEL, "newer_message")
    return Check("owner")


def _notice_may(facts: Facts) -> Check:
    return Check("owner")


def _person_may(facts: Facts) -> Check:
    writer = facts.delivery.message.written_by_id
    if facts.ticket.status == Ticket.Status.HELD and facts.ticket.holder_id == writer:
        return Check("owner")
    return Check("owner", Outcome.CANCEL, "not_holder")


def _campaign_may(facts: Facts) -> Check:
    if facts.ticket.status in (Ticket.Status.WAITING, Ticket.Status.HELD):
        return Check("owner", Outcome.CANCEL, f"ticket_{facts.ticket.status}")
    return Check("owner")


OWNERS: Mapping[str, Callable[[Facts], Check]] = {
    Origin.ANSWER: _answer_may,
    Origin.NOTICE: _notice_may,
    Origin.PERSON: _person_may,
    Origin.CAMPAIGN: _campaign_may,
}


def _consent(facts: Facts) -> Check:
    customer = facts.delivery.conversation.customer
    if customer.blocked_at:
        return Check("consent", Outcome.CANCEL, "customer_blocked")
    if customer.opted_out_at and facts.delivery.origin == Origin.CAMPAIGN:
        return Check("consent", Outcome.CANCEL, "opted_out")
    return Check("consent")


def _window(facts: Facts) -> Check:
    if facts.allowance.refusal:
        return Check("window", Outcome.HOLD, facts.allowance.refusal)
    return Check("window")


def _capability(facts: Facts) -> Check:
    account = facts.delivery.conversation.account
    capability = registry.channel(account.channel).capability
    if not facts.text.strip():
        return Check("capability", Outcome.HOLD, "empty_text")
    if len(facts.text) > capability.max_text_length:
        return Check("capability", Outcome.HOLD, "text_too_long")
    return Check("capability")


def _compliance(facts: Facts) -> Check:
    conversation = facts.delivery.conversation
    verdict = review(
        facts.text,
        shop=conversation.shop,
        channel=conversation.account.channel,
        direction="outgoing",
        industry=conversation.shop.industry or None,
        at=facts.at,
    )
    worst = max(verdict.findings, key=lambda f: _WEIGHT[f.severity], default=None)
    if worst is None:
        return Check("compliance")
    return Check(
        "compliance",
        Outcome.HOLD if verdict.decision == "block" else Outcome.ALLOW,
        verdict.decision,
        rule=worst.rule,
        start=worst.start,
        end=worst.end,
        findings=tuple(sorted({f.rule for f in verdict.findings})),
        masked=verdict.masked if verdict.decision == "mask" else None,
    )


_WEIGHT = {"pass": 0, "warn": 1, "mask": 2, "block": 3}


def _repeat(facts: Facts) -> Check:
    if facts.delivery.origin == Origin.ANSWER and facts.already_said:
        return Check("repeat", Outcome.HOLD, "said_before")
    return Check("repeat")


CHECKS: tuple[Callable[[Facts], Check], ...] = (
    _switch,
    _owner,
    _consent,
    _window,
    _capability,
    _compliance,
    _repeat,
)
