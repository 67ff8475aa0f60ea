"""Office documents, and what they say as text, for providers that do not take them as files."""

from __future__ import annotations

import io
from base64 import b64decode
from importlib import import_module
from typing import Any

from durably.core.messages import FilePart
from durably.core.serialization import digest
from durably.providers.answers import UnanswerableError

__all__ = ["OFFICE", "document_text"]

_OPEN_XML = "application/vnd.openxmlformats-officedocument."

OFFICE = {
    f"{_OPEN_XML}wordprocessingml.document": "docx",
    f"{_OPEN_XML}spreadsheetml.sheet": "xlsx",
    f"{_OPEN_XML}presentationml.presentation": "pptx",
}
"""The media types of office documents, and how the names of such files end."""

KEPT = 64
"""How many texts are kept: a conversation sends its documents again with every turn."""

_texts: dict[str, str] = {}


def document_text(part: FilePart) -> str:
    """Return what an office document says, as Markdown.

    Args:
        part: The document, with its bytes.

    Raises:
        UnanswerableError: If the package is missing that reads it.
        ValueError: If it is no such document.
    """
    data = part.data or ""
    key = digest(f"{part.media_type}\0{data}")
    text = _texts.pop(key, None)
    if text is None:
        text = _read(b64decode(data), OFFICE[part.media_type])
    _texts[key] = text
    while len(_texts) > KEPT:
        del _texts[next(iter(_texts))]
    return text


def _read(data: bytes, kind: str) -> str:
    try:
        markitdown: Any = import_module("markitdown")  # it takes seconds to load, and few programs need it
    except ImportError:
        raise UnanswerableError(
            f"a {kind} document is to be told to this model as text, which needs the package markitdown: pip install "
            "'durably[documents]', or leave the document out"
        ) from None
    converters: Any = import_module("markitdown.converters")
    converter = getattr(converters, f"{kind.capitalize()}Converter")()
    try:
        made = converter.convert(io.BytesIO(data), markitdown.StreamInfo(extension=f".{kind}"))
    except Exception as error:  # each library below has errors of its own for a file that is damaged
        raise ValueError(f"the {kind} document cannot be read: {error}") from error
    return str(made.markdown)
