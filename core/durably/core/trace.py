"""The trace of a run: what happened, in what order, for how long and at what cost, read from its records alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, ValidationError

from durably.core.errors import SerializationError
from durably.core.events import Event
from durably.core.history import History, StepRecord
from durably.core.model import Usage
from durably.core.repair import forked_from
from durably.core.trace_conversations import conversations
from durably.core.trace_parts import Attempt, Payload, TraceConversation, TraceStep, _empty, _Part
from durably.core.trace_steps import attempts_of, group_records, payload, tree

__all__ = ["TEXT_LIMIT", "Trace"]

TEXT_LIMIT = 10_000
"""How many characters of a recorded value a trace holds, unless it is told otherwise."""


class Trace(_Part):
    """What happened in a run, as a tree of steps. It is the same on every engine, apart from what an engine keeps.

    Attributes:
        run_id: The run.
        function: The id of its function.
        status: ``running`` while it is live, otherwise how it ended.
        event: The name of the event that started it, or an empty text.
        event_id: The id of that event, or an empty text.
        started_at: Seconds since 1970.
        ended_at: Seconds since 1970, or ``None`` while it is live.
        forked_from: The id of the run from which it was forked, or ``None``.
        forked_after: The key of the last step that was copied from that run, or an empty text.
        attempts: The attempts of the function's own code, if one failed and another one follows.
        input: Its input.
        output: Its result.
        error: Its error as JSON data, or ``None``.
        usage: The tokens of all its steps, and of the sub-agents that it waited for.
        cost: US dollars for them, or ``None`` if the price of any is not known.
        steps: Its steps in the order in which they began. Branches of ``gather`` are inside it.
        conversations: The conversation of each agent loop in it.
    """

    run_id: str
    function: str
    status: Literal["running", "completed", "failed", "cancelled"]
    event: str = ""
    event_id: str = ""
    started_at: float
    ended_at: float | None = None
    forked_from: str | None = Field(default=None, exclude_if=_empty)
    forked_after: str = Field(default="", exclude_if=_empty)
    attempts: list[Attempt] = Field(default_factory=list, exclude_if=_empty)
    input: Payload | None = None
    output: Payload | None = None
    error: dict[str, Any] | None = None
    usage: Usage = Field(default_factory=Usage)
    cost: float | None = None
    steps: list[TraceStep] = Field(default_factory=list)
    conversations: list[TraceConversation] = Field(default_factory=list)

    @classmethod
    def of(cls, history: History, *, limit: int | None = TEXT_LIMIT) -> Trace:
        """Read a trace from the records of a run. It takes time in proportion to their number.

        Args:
            history: The records, of any engine.
            limit: How many characters of each recorded value to keep; ``None`` keeps them whole. Conversations are
                always whole.
        """
        first, last = history.records[0], history.records[-1]
        ended = last if last.kind == "run" and last.final else None
        event = _event(first)
        origin = forked_from(history.records)
        drafts = group_records(history)
        found = conversations(drafts, event)
        steps = [draft.finish(limit) for draft in drafts.values()]
        spent = [step for step in steps if step.usage is not None]
        return cls(
            run_id=history.run_id,
            function=history.function,
            status=_status(ended),
            event="" if event is None else event.name,
            event_id="" if event is None else event.id or "",
            started_at=first.at,
            ended_at=None if ended is None else ended.at,
            forked_from=None if origin is None else origin.run_id,
            forked_after="" if origin is None else origin.after,
            attempts=_attempts(history),
            input=None if event is None else payload(_compact_json(event.data), limit),
            output=None if ended is None else payload(ended.output, limit),
            error=None if ended is None else ended.error,
            usage=sum((step.usage for step in spent if step.usage is not None), Usage()),
            cost=_cost(spent),
            steps=tree(steps),
            conversations=found,
        )

    def walk(self) -> Iterator[TraceStep]:
        """Yield every step, each ``gather`` and branch before what is inside it."""
        for step in self.steps:
            yield from step.walk()

    def step(self, key: str) -> TraceStep:
        """Return the step of a key.

        Raises:
            LookupError: If there is none.
        """
        for step in self.walk():
            if step.key == key:
                return step
        raise LookupError(f"run {self.run_id!r} has no step {key!r}")

    def to_json(self) -> str:
        """Return one JSON object. Fields that hold their default are mostly left out."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> Trace:
        """Read what :meth:`to_json` returned.

        Raises:
            SerializationError: If it is not a trace.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SerializationError(f"not a trace: {error}", step="") from error


def _event(first: StepRecord) -> Event | None:
    return None if first.output is None else Event.model_validate_json(first.output)


def _status(ended: StepRecord | None) -> Literal["running", "completed", "failed", "cancelled"]:
    if ended is None or ended.status not in ("completed", "failed", "cancelled"):
        return "running"
    return ended.status


def _compact_json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def _attempts(history: History) -> list[Attempt]:
    """The attempts of the function's own code; none are listed for the usual run, which has one."""
    own: list[StepRecord] = []
    number, began = 1, history.records[0].at
    for record in history:
        if record.kind != "run":
            continue
        if record.status in ("retrying", "completed", "failed"):
            # The end of a run has neither the number of its attempt nor when that began.
            number = max(number, record.attempt)
            own.append(replace(record, attempt=number, took=max(0.0, record.at - began)))
            number, began = number + 1, record.due or record.at
        elif record.status == "resumed":
            number, began = 1, record.at
    return attempts_of(own) if len(own) > 1 or (own and own[0].status == "retrying") else []


def _cost(spent: list[TraceStep]) -> float | None:
    prices = [step.cost for step in spent]
    return None if None in prices else round(sum(price for price in prices if price is not None), 10)
