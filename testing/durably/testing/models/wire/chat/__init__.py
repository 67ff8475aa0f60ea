"""OpenAI chat completions, seen from the server.

Written after https://platform.openai.com/docs/api-reference/chat/create.
"""

from durably.testing.models.wire.chat.request import parse
from durably.testing.models.wire.chat.response import body, error_frame, events, failure, too_long

__all__ = ["body", "error_frame", "events", "failure", "parse", "too_long"]
