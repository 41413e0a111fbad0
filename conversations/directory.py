"""Whose webhook this is: apps and accounts by key, kept in the gateway and renewed as it runs."""

import time
from dataclasses import dataclass, field
from uuid import UUID

from asgiref.sync import sync_to_async
from shops.models import ChannelAccount, PlatformApp

from shops import secrets

# A new account or a rotated secret is known after this long, everywhere.
FRESH_SECONDS = 2.0
# An unknown key makes us look again, but not for every request of a stranger.
LOOK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class App:
    """A platform application as the gateway needs it."""

    id: UUID
    client_key: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class Account:
    """A shop's account under an application."""

    id: UUID
    shop_id: UUID


@dataclass(slots=True)
class Directory:
    """All apps and accounts, in memory; `refresh` is cheap while the copy is fresh."""

    apps: dict[str, App] = field(default_factory=dict)
    accounts: dict[tuple[UUID, str, str], Account] = field(default_factory=dict)
    loaded_at: float = float("-inf")

    async def app(self, client_key: str) -> App | None:
        """The application with this key, or None."""
        await self._refresh(older_than=FRESH_SECONDS)
        if client_key not in self.apps:
            await self._refresh(older_than=LOOK_AGAIN_SECONDS)
        return self.apps.get(client_key)

    async def account(self, *, app: App, channel: str, open_id: str) -> Account | None:
        """The account with this open_id under the application, or None when not connected."""
        key = (app.id, channel, open_id)
        if key not in self.accounts:
            await self._refresh(older_than=LOOK_AGAIN_SECONDS)
        return self.accounts.get(key)

    async def _refresh(self, *, older_than: float) -> None:
        if time.monotonic() - self.loaded_at <= older_than:
            return
        self.loaded_at = time.monotonic()
        self.apps, self.accounts = await sync_to_async(_load)()


def _load() -> tuple[dict[str, App], dict[tuple[UUID, str, str], Account]]:
    apps = {
        app.client_key: App(app.pk, app.client_key, app.client_secret.encode())
        for app in PlatformApp.objects.all()
    }
    rows = ChannelAccount.objects.values_list("app_id", "channel", "open_id", "pk", "shop_id")
    accounts = {(a, channel, o): Account(pk, shop) for a, channel, o, pk, shop in rows}
    secrets.warm({account.shop_id for account in accounts.values()} | {None})
    return apps, accounts
