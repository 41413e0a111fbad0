"""Step 3: the gate, then the delivery; a person's words join here."""

from conversations.sending.delivering import deliver
from conversations.sending.saying import NotHolder, say

__all__ = ["NotHolder", "deliver", "say"]
