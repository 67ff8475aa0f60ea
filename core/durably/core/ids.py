"""Identifiers: what a step id may look like, and ids derived from (run id, step key) alone."""

from __future__ import annotations

import uuid
from hashlib import blake2b

__all__ = ["check_step_id", "derive_id", "new_id"]

MAX_ID_LENGTH = 200


def new_id() -> str:
    """A fresh random id, 32 hexadecimal digits. Never called by durable code."""
    return uuid.uuid4().hex


def derive_id(kind: str, run_id: str, key: str) -> str:
    """The id of what a step makes: the same on every attempt and after every crash.

    Args:
        kind: What is named: ``"child"``, ``"event"``, ``"effect"``, ``"run"``.
        run_id: The run, or the event, that causes it.
        key: The step key within it.

    Returns:
        32 hexadecimal digits.
    """
    return blake2b(f"{kind}\0{run_id}\0{key}".encode(), digest_size=16).hexdigest()


def check_step_id(step_id: str) -> None:
    """Refuse an id that could be mistaken for a generated key.

    Raises:
        ValueError: If it is empty, longer than 200 characters, or holds ``/``, ``:`` or a control character.
    """
    if not step_id or len(step_id) > MAX_ID_LENGTH or not step_id.isprintable() or "/" in step_id or ":" in step_id:
        raise ValueError(
            f"{step_id!r} is not a step id: use 1 to {MAX_ID_LENGTH} printable characters without '/' and ':', "
            "such as 'save-answer' (a repeated id is numbered for you)"
        )
