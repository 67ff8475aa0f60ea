"""What an engine makes of each rule of flow control: has it, makes up for it, or refuses it with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["FLOW_CONTROL", "NO_RULES", "Support", "emulated", "native", "refused"]

FLOW_CONTROL = {
    "cron": "cron=",
    "concurrency": "concurrency=",
    "throttle": "throttle=",
    "rate_limit": "rate_limit=",
    "debounce": "debounce=",
    "priority": "priority=",
    "batch": "batch=",
    "idempotency": "idempotency=",
    "singleton": 'singleton=, mode "cancel" or "skip"',
    "singleton_queue": 'singleton=, mode "queue"',
}
"""The rules, and how each is written. An engine that lacks one refuses the function at start-up."""


@dataclass(frozen=True)
class Support:
    """How an engine keeps one rule.

    Attributes:
        how: ``"native"``: the engine's own; ``"emulated"``: done by this library; ``"refused"``: not at all.
        note: What is different there, or why it is refused.
    """

    how: Literal["native", "emulated", "refused"]
    note: str = ""


def native(note: str = "") -> Support:
    """The engine has the rule itself."""
    return Support("native", note)


def emulated(note: str = "") -> Support:
    """This library keeps the rule on the engine."""
    return Support("emulated", note)


def refused(reason: str) -> Support:
    """The rule cannot be kept, for a reason."""
    return Support("refused", reason)


NO_RULES: Mapping[str, Support] = {
    **dict.fromkeys(FLOW_CONTROL, refused("this engine has no such rule")),
    "singleton": emulated(),
}
"""What an engine that says nothing else makes of them."""
