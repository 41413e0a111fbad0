"""Platform events as they came: sealed by the gateway, opened by the worker."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from conversations.models import RawEvent
from shops import secrets

_MODEL = "conversations.RawEvent"
_FIELD = "body"


def seal(*, shop_id: UUID | None, row_id: UUID, body: bytes) -> bytes:
    """Encrypt a webhook body for the row it will be stored in."""
    return secrets.encrypt(
        shop_id=shop_id, model=_MODEL, field=_FIELD, row_id=row_id, plaintext=body
    )


def body_of(event: RawEvent) -> Mapping[str, Any]:
    """The event's JSON object; {} when the body was erased or is no object."""
    if event.body is None:
        return {}
    raw = secrets.decrypt(
        shop_id=event.shop_id,
        model=_MODEL,
        field=_FIELD,
        row_id=event.pk,
        ciphertext=bytes(event.body),
    )
    body = json.loads(raw)
    return body if isinstance(body, dict) else {}
