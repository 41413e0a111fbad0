"""The door for platforms, in the gateway: verify, keep, acknowledge, ring the bell.

An acknowledgement means that the event is committed. Nothing is interpreted here: whatever an
event says, it is received once, and read by a worker.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from django.utils import timezone
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uuid_utils.compat import uuid7

from conversations import bell
from conversations.channels import registry
from conversations.channels.base import Channel
from conversations.directory import App, Directory
from conversations.events import seal
from conversations.models.events import lane_of
from conversations.writer import Row, Unavailable, Writer

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 256 * 1024
# Strangers cost as much as friends, so that timing does not tell which keys exist.
_NOBODY = App(id=uuid7(), client_key="", secret=b"nobody")


class Refused(Exception):
    """A request that is not kept; `status` and `code` are the answer."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


class Intake:
    """One gateway process's door: its directory, its writer, and the bell it rings."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.writer = Writer()
        self._ringing = False
        self._ring_again = False

    async def webhook(self, request: Request) -> Response:
        """POST /webhooks/<channel>/<app key>: 200 once kept, else a 4xx or 503 with a code."""
        try:
            return await self._accept(request)
        except Refused as refused:
            return JSONResponse({"code": refused.code}, status_code=refused.status)
        except Unavailable:
            return JSONResponse({"code": "try_again"}, status_code=503)

    async def _accept(self, request: Request) -> Response:
        kind = request.path_params["channel"]
        if kind not in registry.CHANNELS:
            raise Refused(404, "unknown_channel")
        channel = registry.channel(kind)
        raw = await _body(request)
        app = await self.directory.app(request.path_params["app_key"])
        genuine = channel.genuine(raw, request.headers, secret=(app or _NOBODY).secret)
        if app is None:
            raise Refused(404, "unknown_app")
        if not genuine:
            raise Refused(401, "bad_signature")
        body = _parsed(raw)
        challenge = channel.challenge(body)
        if challenge is not None:
            return JSONResponse(challenge)
        await self.writer.keep(await self._row(channel, app, raw, body, request.headers))
        self.ring_soon()
        return JSONResponse(channel.acknowledgement(body))

    async def _row(
        self,
        channel: Channel,
        app: App,
        raw: bytes,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
    ) -> Row:
        account_open_id, customer_open_id = channel.peer(body)
        account = await self.directory.account(
            app=app, channel=channel.kind, open_id=account_open_id
        )
        row_id = uuid7()
        shop_id = account.shop_id if account else None
        return Row(
            id=row_id,
            shop_id=shop_id,
            app_id=app.id,
            account_id=account.id if account else None,
            channel=channel.kind,
            event_id=channel.event_id(raw, body, headers)[:128],
            event=str(body.get("event", ""))[:64].replace("\x00", ""),
            lane=lane_of(
                app_id=app.id,
                account_open_id=account_open_id,
                customer_open_id=customer_open_id,
            ),
            body=seal(shop_id=shop_id, row_id=row_id, body=raw),
            received_at=timezone.now(),
        )

    def ring_soon(self) -> None:
        """Ring the bell off the loop; rings asked for meanwhile become one more afterwards."""
        if self._ringing:
            self._ring_again = True
            return
        self._ringing = True
        asyncio.get_running_loop().run_in_executor(None, bell.ring).add_done_callback(self._rung)

    def _rung(self, _future: object) -> None:
        self._ringing = False
        if self._ring_again:
            self._ring_again = False
            self.ring_soon()


async def _body(request: Request) -> bytes:
    """The raw bytes, read only as far as allowed."""
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise Refused(413, "too_large")
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise Refused(413, "too_large")
            chunks.append(chunk)
    except ClientDisconnect:
        raise Refused(400, "incomplete") from None
    return b"".join(chunks)


def _parsed(raw: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refused(400, "not_json") from None
    if not isinstance(body, dict):
        raise Refused(400, "not_an_object")
    return body


intake = Intake()
routes = [Route("/webhooks/{channel}/{app_key}", intake.webhook, methods=["POST"])]


@asynccontextmanager
async def running() -> AsyncIterator[None]:
    """Keep the writer at work while the gateway serves."""
    intake.writer.start()
    try:
        yield
    finally:
        await intake.writer.stop()
