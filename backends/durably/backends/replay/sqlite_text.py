"""Long texts in a SQLite file: compressed where that makes them shorter, which a BLOB in the place of a TEXT says."""

from __future__ import annotations

import zlib

__all__ = ["packed", "unpacked"]

LONG = 300
"""Texts of fewer characters stay as they are: it would save little, and people can read them."""
QUICK = 1
"""zlib's quickest level: it saves nearly as much as the others of a text of some kilobytes."""


def packed(text: str) -> str | bytes:
    """What is written of a text."""
    if len(text) < LONG:
        return text
    data = text.encode()
    short = zlib.compress(data, QUICK)
    return short if len(short) < len(data) else text


def unpacked(value: str | bytes) -> str:
    """The text.

    Raises:
        zlib.error: If it is not what was written.
    """
    return zlib.decompress(value).decode() if isinstance(value, bytes) else value
