"""Anthropic Messages, seen from the server.

Written after https://docs.anthropic.com/en/api/messages and https://docs.anthropic.com/en/api/errors.
"""

from durably.testing.models.wire.anthropic.request import parse
from durably.testing.models.wire.anthropic.response import body, error_frame, events, failure, too_long

__all__ = ["body", "error_frame", "events", "failure", "parse", "too_long"]
