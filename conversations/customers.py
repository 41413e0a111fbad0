"""Who is writing: the identity, customer and conversation of each lane, made when first seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shops.models import ChannelAccount

from conversations.models import Conversation, Customer, Identity


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What an event tells about the customer of a lane."""

    lane: UUID
    account: ChannelAccount
    open_id: str
    name: str
    conversation_ref: str


def conversations_for(*, newcomers: Iterable[Newcomer], at: datetime) -> dict[UUID, Conversation]:
    """The conversation of each lane, created with its customer where there is none; by lane.

    The rows are locked, in one order, until the caller's transaction ends. The caller holds
    the lanes' leases, so nobody else creates the same ones.
    """
    by_lane = {newcomer.lane: newcomer for newcomer in newcomers}
    found = _locked(by_lane)
    missing = [newcomer for lane, newcomer in by_lane.items() if lane not in found]
    if missing:
        _create(missing, at=at)
        found |= _locked(newcomer.lane for newcomer in missing)
    return found


def _locked(lanes: Iterable[UUID]) -> dict[UUID, Conversation]:
    rows = (
        Conversation.objects.filter(lane__in=list(lanes))
        .select_related("account__app", "customer", "identity", "shop")
        .order_by("pk")
        .select_for_update(of=("self",), no_key=True)
    )
    return {conversation.lane: conversation for conversation in rows}


def _create(newcomers: list[Newcomer], *, at: datetime) -> None:
    customers, identities, conversations = [], [], []
    for new in newcomers:
        shop_id = new.account.shop_id
        customer = Customer(shop_id=shop_id, name=new.name[:100], first_seen_at=at)
        identity = Identity(
            shop_id=shop_id, customer=customer, account=new.account, open_id=new.open_id
        )
        customers.append(customer)
        identities.append(identity)
        conversations.append(
            Conversation(
                shop_id=shop_id,
                account=new.account,
                customer=customer,
                identity=identity,
                lane=new.lane,
                platform_ref=new.conversation_ref,
            )
        )
    Customer.objects.bulk_create(customers)
    Identity.objects.bulk_create(identities)
    Conversation.objects.bulk_create(conversations)
