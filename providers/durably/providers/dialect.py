"""The abilities of a wire format.

Owns: how they are described. Does not own: the formats; each adapter describes its own.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from durably.core.messages import AssistantMessage, ContentPart, FilePart, TextPart, ThinkingPart
from durably.providers.documents import OFFICE, document_text

__all__ = ["Dialect", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What one wire format can express.

    Args:
        origin: The ``AssistantMessage.provider`` whose thinking and opaque parts it takes back.
        file: Returns a file in a form that the format has, or a text that says it has none.
        takes_thinking: Returns whether a thinking part of its own goes back.
        call_ids: The form of a call's id.
        own_call_ids: The form of the id of a call that this origin made.
        thinking_first: Whether thinking, text and calls have a fixed order within a message.
        refusals: Whether an assistant's refusal has a field of its own. If not, it becomes text.
        error_flag: Whether a tool result can be marked as an error. If not, its text says so.
        files_in_results: Whether a tool result can hold files. If not, they go into a user message after it.
        text_arguments: Whether arguments that are not JSON go out as they are.
        user_first: Whether the first message must be a user's.
        may_end: Returns whether a conversation may end with an answer of its own. If not, a user's message follows.
        joins_answers: Whether two assistant messages in a row are one.
        recursive_schemas: Whether a strict schema may refer to itself.
        schema_unions: How many parts with several types a strict schema may have, or ``None`` for any number.
    """

    origin: str
    file: Callable[[FilePart], ContentPart]
    takes_thinking: Callable[[ThinkingPart], bool]
    call_ids: re.Pattern[str] = re.compile(r"[a-zA-Z0-9_-]{1,40}")
    own_call_ids: re.Pattern[str] = call_ids
    thinking_first: bool = False
    refusals: bool = True
    error_flag: bool = False
    files_in_results: bool = True
    text_arguments: bool = True
    user_first: bool = False
    may_end: Callable[[AssistantMessage], bool] = lambda message: True
    joins_answers: bool = False
    recursive_schemas: bool = True
    schema_unions: int | None = None


_TEXTS = re.compile(r"text/.*|application/(.*[+])?(json|xml|yaml|toml|x-yaml|x-ndjson|javascript|sql)")
"""Media types whose bytes are text."""


def unreadable(part: FilePart) -> TextPart:
    """Return the text that replaces a file which the provider does not take: what it holds, or that it is left out.

    Raises:
        UnanswerableError: If the package is missing that reads an office document.
    """
    name = f"{part.name}, " if part.name else ""
    if part.data and part.media_type in OFFICE:
        with suppress(ValueError):  # a damaged one stays a file
            return TextPart(text=f"[a file: {name}{OFFICE[part.media_type]}]\n{document_text(part)}")
    if part.data and _TEXTS.fullmatch(part.media_type.partition(";")[0].strip().lower()):
        with suppress(ValueError):  # bytes that are no UTF-8 stay a file
            return TextPart(text=f"[a file: {name}{part.media_type}]\n{b64decode(part.data).decode()}")
    return TextPart(text=f"[a file was left out here, since this model cannot read it: {name}{part.media_type}]")
