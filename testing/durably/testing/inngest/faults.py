"""What can go wrong between the engine and the app, on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from durably.testing.inngest.calls import Call

__all__ = ["Faults", "Where"]

Where = Callable[[Call], bool]


def _never(call: Call) -> bool:
    return False


@dataclass
class Faults:
    """Each is asked about each call; the calls that it wants are hurt.

    Attributes:
        refuse: The app cannot be reached: nothing of it runs.
        drop_reply: The app runs the call, and its answer is lost.
        duplicate: The call is sent twice at the same time; the first answer counts.
        repeat: Once answered, the call is sent a second time and that answer is ignored: a late copy of it.
        stale: The call carries the steps of one hop before.
        hit: The calls that were hurt, in order.
    """

    refuse: Where = _never
    drop_reply: Where = _never
    duplicate: Where = _never
    repeat: Where = _never
    stale: Where = _never
    hit: list[tuple[str, Call]] = field(default_factory=list)

    def wants(self, name: str, call: Call) -> bool:
        """Whether this call is to be hurt in this way."""
        wanted: Where = getattr(self, name)
        if not wanted(call):
            return False
        self.hit.append((name, call))
        return True
