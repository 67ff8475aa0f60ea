"""What a run of an agent had spent when it failed, as data that travels with its error.

Owns: how an error carries it, in memory and in its JSON form. Does not own: counting it (``spending.py``).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

__all__ = ["SPENT", "carried_spending", "carry_spending"]

SPENT = "agent_spent"
"""The name of it in the JSON form of an error."""

_ATTRIBUTE = "_durably_spent"


def carry_spending(error: BaseException, spent: dict[str, Any] | None) -> None:
    """Give an error what had been spent, as JSON data; nothing for ``None``."""
    if spent is not None:
        with suppress(Exception):  # a user's subclass may have __slots__, or refuse attributes
            setattr(error, _ATTRIBUTE, spent)


def carried_spending(error: BaseException) -> dict[str, Any] | None:
    """What an error was given, or ``None``."""
    try:
        spent = getattr(error, _ATTRIBUTE, None)
    except Exception:  # __getattr__ of a user's subclass
        return None
    return spent if isinstance(spent, dict) else None
