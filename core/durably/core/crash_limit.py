"""The crash limit: how many crashes a step, or the code around steps, may have been cut off by.

Owns the number and its check. Does not own how crashes are counted: that is what engines differ in.
"""

from __future__ import annotations

from durably.core.counts import is_count
from durably.core.error_text import shown

__all__ = ["CRASH_LIMIT", "check_crash_limit"]

CRASH_LIMIT = 5
"""The default. Generous, since a crash does not say which of the bodies that ran in its process brought it about."""


def check_crash_limit(limit: object) -> int:
    """Return a crash limit.

    Raises:
        ValueError: If it is not a whole number of at least 1: every process dies once, and a run must survive that.
    """
    if not is_count(limit, 1):
        raise ValueError(f"crash_limit is the number of crashes to put up with, 1 or more, not {shown(limit)}")
    return limit
