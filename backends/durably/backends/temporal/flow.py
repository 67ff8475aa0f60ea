"""What Temporal has of flow control, and what it does not."""

from __future__ import annotations

from durably.core.flow_support import NO_RULES, emulated, refused

__all__ = ["FLOW_RULES"]

FLOW_RULES = {
    **NO_RULES,
    "cron": emulated("by a small workflow for each function; Temporal's schedules miss when a clock is set"),
    "concurrency": refused(
        "Temporal limits the activities of a worker (max_concurrent_activities in worker_options), not of a function"
    ),
    "throttle": refused(
        "Temporal limits the activities of a task queue (max_task_queue_activities_per_second in worker_options), and "
        "not the starts of a function"
    ),
    **dict.fromkeys(
        ["rate_limit", "debounce", "batch", "priority"], refused("Temporal has no such rule for workflows")
    ),
    "idempotency": refused("Temporal knows a run by its id; start it with run_id= made of the value"),
    "singleton": emulated("by a small workflow for each key"),
    "singleton_queue": emulated("by a small workflow for each key"),
}
"""What the engine makes of each rule."""
