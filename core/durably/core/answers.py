"""Answers that a record can hold. A model may write what JSON cannot: the call is paid for all the same.

Half a surrogate pair, objects nested three hundred deep and integers of five thousand digits get through a provider's
parser, and cannot be written as JSON, or not be read back.
"""

from __future__ import annotations

import json

from durably.core.error_text import writable
from durably.core.errors import SerializationError
from durably.core.messages import AssistantMessage, AssistantPart, JSONObject, OpaquePart, TextPart, ToolCall
from durably.core.model import AnswerVerdict, ModelResponse
from durably.core.serialization import codec_for

__all__ = ["fitting", "recordable"]

_codec = codec_for(ModelResponse)
_strict = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def recordable(response: ModelResponse) -> ModelResponse:
    """Return an answer as a record can hold it. Nearly every one is returned as it is.

    Half a surrogate pair is escaped. Arguments that cannot be kept as an object become text, like any others that are
    not a JSON object: the tool does not run, and the model is told.
    """
    if not isinstance(response, ModelResponse) or all(map(_is_plain, response.message.parts)) or _fits(response):
        return response
    parts = [kept for part in response.message.parts if (kept := _kept(part)) is not None]
    return response.model_copy(update={"message": response.message.model_copy(update={"parts": parts})})


BEGINNING = 1_000
"""Characters that are kept of an answer that is too large."""


def fitting(response: ModelResponse, limit: int | None) -> ModelResponse:
    """Return an answer that a record has room for: of one that is too large the beginning, and that it is.

    The call is paid for, so it must be in the records. The model is asked again, as often as it has turns.

    Args:
        response: The answer.
        limit: The most bytes, or ``None``.
    """
    if limit is None or _rough_size(response) * WIDEST < limit:
        return response
    size = len(_codec.encode(response, step="think").encode())
    if size <= limit:
        return response
    beginning = response.message.text[: min(BEGINNING, limit // 8)]
    message = AssistantMessage(parts=[TextPart(text=f"{beginning} ... (cut off)")])
    complaint = (
        f"Your answer has {size:,} bytes, and {limit:,} can be kept. Nothing of it was used, and no tool was run: "
        "answer again, shorter, or with fewer calls at once."
    )
    changed = {"message": message, "stop_reason": "end", "checked_in_steps": False}
    return response.model_copy(update={**changed, "verdict": AnswerVerdict(complaint=complaint)})


WIDEST = 8
"""Bytes that one character may come to in a record, about; the answer's text may be there twice."""


def _rough_size(response: ModelResponse) -> int:
    size = 1_000
    for part in response.message.parts:
        size += sum(map(len, map(str, vars(part).values())))
    return size


SHALLOW = 50
"""With fewer brackets than this, nothing is nested too deep to be read back."""

LONG = 4_000
"""Shorter than this, no integer has too many digits to be read back."""


def _is_plain(part: AssistantPart) -> bool:
    """Whether a part can be kept for sure: a quick look, which is enough for nearly every answer."""
    try:
        if isinstance(part, TextPart):
            part.text.encode()
            return part.native is None
        if isinstance(part, ToolCall) and part.native is None:
            text = _strict.encode([part.id, part.name, part.arguments])
            text.encode()
            return text.count("[") + text.count("{") < SHALLOW and len(text) < LONG
    except (ValueError, TypeError, RecursionError):
        return False
    return False


def _fits(response: ModelResponse) -> bool:
    try:
        _codec.round_trip(response, step="think", limit=None, redact=str)
    except SerializationError:
        return False
    return True


def _kept(part: AssistantPart) -> AssistantPart | None:
    if _part_fits(part):
        return part
    if isinstance(part, OpaquePart):
        return None  # its provider takes it unchanged or not at all
    if isinstance(part, ToolCall):
        kept: AssistantPart = part.model_copy(update={"id": _text(part.id), "name": _text(part.name)})
        if not _part_fits(kept):
            kept = kept.model_copy(update={"arguments": _arguments_text(part.arguments)})
    else:
        kept = part.model_copy(update={"text": _text(part.text)})
    if _part_fits(kept):
        return kept
    provided = "signature" if hasattr(kept, "signature") else "native"  # as for an opaque part: unchanged or not at all
    return kept.model_copy(update={provided: None})


def _part_fits(part: AssistantPart) -> bool:
    return _fits(ModelResponse(message=AssistantMessage(parts=[part])))


def _text(text: str) -> str:
    return writable(text, limit=len(text) * 6)  # escaped, not clipped: an escape has six characters


def _arguments_text(arguments: JSONObject | str) -> str:
    if isinstance(arguments, str):
        return _text(arguments)
    try:
        return json.dumps(arguments)  # in ASCII, so that half a pair is an escape
    except (ValueError, TypeError, RecursionError) as error:
        return f"(arguments that cannot be written as JSON: {writable(str(error))})"
