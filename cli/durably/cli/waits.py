"""What a run waits for, in words: ``event order/paid since 3 m 05 s``."""

from __future__ import annotations

from collections.abc import Sequence

from durably.cli.text import plain, seconds
from durably.core.run_view import WaitingFor

__all__ = ["spell_wait", "spell_waits"]


def spell_waits(waits: Sequence[WaitingFor], now: float) -> str:
    """What a run waits for: the oldest wait, and how many there are beside it; empty for none.

    Args:
        waits: What it waits for, the oldest first.
        now: The time to which waits are counted, in seconds since 1970.
    """
    if not waits:
        return ""
    more = f", and {len(waits) - 1} more" if len(waits) > 1 else ""
    return f"waits for {spell_wait(waits[0], now)}{more}"


def spell_wait(wait: WaitingFor, now: float) -> str:
    """One thing that a run waits for, and since when."""
    match wait.kind:
        case "event":
            what = f"event {wait.name}"
        case "approval":
            what = f"a person to approve {wait.name}"
        case "timer":
            what = "time to pass"
        case "child":
            what = f"run {wait.run_id} of {wait.name}" if wait.run_id else f"a run of {wait.name}"
        case "turn":
            what = f"its turn, held back by {wait.name}"
        case "worker":
            what = f"a worker that serves {wait.name}"
    until = f", {seconds(wait.until - now)} left" if wait.until is not None and wait.until > now else ""
    return plain(f"{what} since {seconds(max(0.0, now - wait.since))}{until}")
