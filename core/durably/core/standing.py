"""Where a live run stands, read from its records. The one rule for every engine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from durably.core.approval import APPROVAL_GIVEN
from durably.core.history import StepRecord
from durably.core.run_view import RunStatus, WaitingFor, WaitKind

__all__ = ["Standing", "may_open", "may_settle", "open_records", "standing", "waits_for_turn", "waits_for_worker"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a live run stands.

    Attributes:
        status: ``RUNNING``, ``WAITING`` or ``RETRYING``.
        waiting_for: What it waits for, the oldest first.
    """

    status: RunStatus
    waiting_for: tuple[WaitingFor, ...] = ()


def may_open(record: StepRecord) -> bool:
    """Whether a record says that something has begun which holds the run up: a wait, or the delay of a retry."""
    if record.status == "retrying":
        return True
    return record.status == "started" and record.kind not in ("run", "step")


def may_settle(record: StepRecord) -> bool:
    """Whether a record may be the end of what an earlier one began: not the one record of a body that ran once."""
    return record.final and (record.attempt > 1 or record.kind not in ("run", "step", "send_event"))


def open_records(records: Iterable[StepRecord]) -> list[StepRecord]:
    """Those of a run's records that hold it up still, in order.

    Args:
        records: All records of the run, in order.
    """
    found: dict[str, StepRecord] = {}
    for record in records:
        found.pop("", None)  # when the code goes on, the delay of its own retry is over
        if may_open(record):
            found.pop(record.key, None)
            found[record.key] = record
        elif may_settle(record):
            found.pop(record.key, None)
    return list(found.values())


def standing(records: Iterable[StepRecord]) -> Standing:
    """Where a live run stands that a worker has.

    A body that runs leaves no record before it ends. So a run that waits in one branch of a ``gather`` counts as
    waiting, whatever its other branches do, and one that tries a step again as retrying, whatever else it waits for.

    Args:
        records: What :func:`open_records` gives.
    """
    held = list(records)
    waits = tuple(_wait(record) for record in held if record.status == "started")
    if any(record.status == "retrying" for record in held):
        return Standing(RunStatus.RETRYING, waits)
    return Standing(RunStatus.WAITING if waits else RunStatus.RUNNING, waits)


def waits_for_worker(held: Standing, function: str, since: float) -> Standing:
    """Where a live run stands that no worker has.

    Args:
        held: Where it would stand if one had it.
        function: The id of its function.
        since: Since when none has it, in seconds since 1970; as far as that is known.
    """
    worker = WaitingFor(kind="worker", since=since, name=function)
    return Standing(RunStatus.WAITING, (*held.waiting_for, worker))


def waits_for_turn(rule: str, since: float) -> Standing:
    """Where a run stands that has not begun, because a rule of flow control holds it back.

    Args:
        rule: The option that says so, such as ``"singleton"``.
        since: When it was started, in seconds since 1970.
    """
    return Standing(RunStatus.WAITING, (WaitingFor(kind="turn", since=since, name=rule),))


def _wait(record: StepRecord) -> WaitingFor:
    kind: WaitKind = "timer"
    name, run_id = "", None
    if record.kind == "invoke":
        kind, name, run_id = "child", record.name, json.loads(record.output) if record.output else None
    elif record.kind == "wait_for_event":
        kind, name = "event", record.name
        if record.name == APPROVAL_GIVEN and record.step_id.startswith("approve-"):
            kind, name = "approval", record.step_id.removeprefix("approve-")
    return WaitingFor(kind=kind, since=record.at, name=name, step=record.key, run_id=run_id, until=record.due)
