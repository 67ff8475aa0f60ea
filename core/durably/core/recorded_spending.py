"""What a run of an agent has spent by its records: also of one that was cut off, whose error says nothing.

Owns: the sum over a run and those that it waits for. Does not own: what a single record says (``trace_steps.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from durably.core.errors import RunNotFoundError
from durably.core.history import StepRecord
from durably.core.serialization import encode_input
from durably.core.spending import Spent
from durably.core.trace_steps import group_records

__all__ = ["recorded_spending"]


async def recorded_spending(records_of: Callable[[str], Awaitable[Iterable[StepRecord]]], run_id: str) -> Spent:
    """Return what a run has spent, those included that it waited for when it was cut off.

    Args:
        records_of: Gives the records of a run.
        run_id: The run. One that never began has spent nothing.
    """
    spent = Spent()
    try:
        records = await records_of(run_id)
    except RunNotFoundError:
        return spent
    drafts = group_records(records).values()
    counted = {draft.first.input for draft in drafts if draft.step_id.startswith("count-")}
    for draft in drafts:
        step = draft.finish(0)
        if step.usage is not None:
            asked = draft.value.get("tool_calls", 0) if isinstance(draft.value, dict) else 0
            spent.add(step.usage, step.cost, len(step.tool_calls) or (asked if isinstance(asked, int) else 0))
        elif step.child is not None and not draft.completed and encode_input((draft.key,), step="") not in counted:
            child = await recorded_spending(records_of, step.child)
            spent.add(child.usage, child.cost, child.tool_calls)
    return spent
