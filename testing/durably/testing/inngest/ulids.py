"""ULIDs, and those that a client makes the server derive from a seed."""

from __future__ import annotations

import base64
import random

__all__ = ["new_ulid", "seeded_ulid"]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _encode(millis: int, entropy: bytes) -> str:
    value = (millis << 80) | int.from_bytes(entropy)
    return "".join(_ALPHABET[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_ulid(now: float, source: random.Random) -> str:
    """A ULID of this moment, in seconds since 1970."""
    return _encode(int(now * 1000), source.randbytes(10))


def seeded_ulid(seed: str | None, index: int) -> str | None:
    """What the server makes of the header ``x-inngest-event-id-seed``, ``"millis,base64 of 10 bytes"``.

    Args:
        seed: The header.
        index: The place of the event in the request, from 1.
    """
    if seed is None:
        return None
    millis, _, text = seed.partition(",")
    entropy = base64.b64decode(text)
    tail = (int.from_bytes(entropy[6:]) + index) % 2**32
    return _encode(int(millis), entropy[:6] + tail.to_bytes(4))
