"""The off switch: is anything automatic allowed to speak in a conversation now?"""

from datetime import datetime

from conversations.models import Conversation
from shops import pause


def paused(conversation: Conversation, *, at: datetime) -> str:
    """The widest scope that is paused at `at`: "shop", "account", "conversation", or ""."""
    scopes = (
        ("shop", conversation.shop),
        ("account", conversation.account),
        ("conversation", conversation),
    )
    return next((name for name, target in scopes if pause.is_paused(target, at=at)), "")
