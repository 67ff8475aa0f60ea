"""What the runs of one worker share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from durably.backends.inngest.apps import Apps
from durably.backends.inngest.events import EventSender
from durably.backends.inngest.run_cache import RunCache
from durably.backends.inngest.suspended_code import SuspendedRuns
from durably.core.environment import Environment

__all__ = ["InngestHost"]


@dataclass(frozen=True, kw_only=True)
class InngestHost:
    """One worker, as the code of its runs sees it.

    Attributes:
        environment: What bodies and functions are run with.
        now: Seconds since 1970, by the worker's clock.
        apps: Which app serves which function.
        events: Sends events to Inngest.
        cache: What the worker remembers of runs.
        suspended: The runs whose code is suspended.
        crash: Lets the worker die as a process does. For the harness.
    """

    environment: Environment
    now: Callable[[], float]
    apps: Apps
    events: EventSender
    cache: RunCache
    suspended: SuspendedRuns
    crash: Callable[[BaseException], None]
