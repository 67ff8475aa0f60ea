"""Long texts in a SQLite file: compressed where that makes them shorter, which a BLOB in the place of a TEXT says.

A text that mostly repeats that of another row, as an agent's result repeats the model's last answer, is compressed with
that text as its dictionary, and names the row.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

__all__ = ["packed", "packed_beside", "unpacked"]

LONG = 300
"""Texts of fewer characters stay as they are: it would save little, and people can read them."""
QUICK = 1
"""zlib's quickest level: it saves nearly as much as the others of a text of some kilobytes."""
BESIDE = b"r"
"""What a text begins with that names a row. What zlib writes begins with another byte."""
ID_BYTES = 8


def packed(text: str) -> str | bytes:
    """What is written of a text."""
    if len(text) < LONG:
        return text
    data = text.encode()
    short = zlib.compress(data, QUICK)
    return short if len(short) < len(data) else text


def packed_beside(text: str, row: int, other: str) -> str | bytes:
    """What is written of a text that may repeat another one.

    Args:
        text: The text.
        row: The id of the row that has the other one.
        other: The other one.
    """
    alone = packed(text)
    compressor = zlib.compressobj(QUICK, zdict=other.encode())
    data = compressor.compress(text.encode()) + compressor.flush()
    beside = BESIDE + row.to_bytes(ID_BYTES) + data
    return beside if len(beside) < len(alone) else alone


def unpacked(value: str | bytes, text_of: Callable[[int], str]) -> str:
    """The text.

    Args:
        value: What was written of it.
        text_of: Gives the text of the row of an id.

    Raises:
        zlib.error: If it is not what was written.
    """
    if isinstance(value, str):
        return value
    if not value.startswith(BESIDE):
        return zlib.decompress(value).decode()
    row, data = value[len(BESIDE) :][:ID_BYTES], value[len(BESIDE) + ID_BYTES :]
    decompressor = zlib.decompressobj(zdict=text_of(int.from_bytes(row)).encode())
    return (decompressor.decompress(data) + decompressor.flush()).decode()
