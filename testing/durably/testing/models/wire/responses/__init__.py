"""OpenAI Responses, seen from the server.

Written after https://platform.openai.com/docs/api-reference/responses/create.
"""

from durably.testing.models.wire.chat.response import failure, too_long
from durably.testing.models.wire.responses.request import parse
from durably.testing.models.wire.responses.response import body, error_frame, events

__all__ = ["body", "error_frame", "events", "failure", "parse", "too_long"]
