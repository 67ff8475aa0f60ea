"""What one wire format can say. Owns no format: each adapter describes its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from durably.core.messages import ContentPart, FilePart, TextPart, ThinkingPart

__all__ = ["Dialect", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What one wire format can say.

    Args:
        origin: The ``AssistantMessage.provider`` whose thinking and opaque parts it takes back.
        file: Brings a file to a form the format has, or says in text that it has none.
        takes_thinking: Whether a thinking part of its own goes back.
        call_ids: What the id of a call looks like.
        own_call_ids: The same for calls that this origin named itself.
        thinking_first: Thinking, then text, then calls; the order within a message cannot be said.
        refusals: Whether an assistant's refusal has a place of its own; otherwise it becomes text.
        error_flag: Whether a tool result can be marked as an error; otherwise its text says so.
        files_in_results: Whether a tool result can hold files; otherwise a user message after it does.
        text_arguments: Whether arguments that are not JSON go out as they are.
        user_first: Whether the first message must be a user's.
        joins_answers: Whether two assistant messages in a row are one.
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
    joins_answers: bool = False


def unreadable(part: FilePart) -> TextPart:
    """What stands in for a file that the provider cannot read."""
    name = f"{part.name}, " if part.name else ""
    return TextPart(text=f"[a file was left out here, since this model cannot read it: {name}{part.media_type}]")
