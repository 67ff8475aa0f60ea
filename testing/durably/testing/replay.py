"""A recorded run, taken through the code of today. Runs no body and needs no engine: it has only the records."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from durably.core import Context, DefinitionError, Event, Function, NonDeterminismError
from durably.core.errors import Signal, error_to_json
from durably.core.function_attempts import judged_input
from durably.core.history import History, Kind, StepRecord
from durably.core.replay import RecordedEngine
from durably.core.secrets import Redactor
from durably.core.serialization import Codec
from durably.core.step_keys import Branch, KeyedSteps, Scope

__all__ = ["replay"]


class _EndOfRecordsSignal(Signal):
    """The code asks for a step that a run which is still live has not recorded yet."""


class _OpenRecords(RecordedEngine):
    """Records that may end before the code does, if the run was still live."""

    def __init__(self, history: History, redactor: Redactor) -> None:
        super().__init__(history)
        self._redactor = redactor
        self._open = history.status in ("started", "cancelled")

    def take(self, scope: Scope, key: str, kind: Kind, input: str, codec: Codec) -> Any:
        asked = self._redactor.text(input)
        if self._open:
            record = self.recorded.last(key)
            if self.recorded.exhausted(scope):
                raise _EndOfRecordsSignal
            if record is not None and not record.final:
                self.recorded.take(scope, key, kind, asked)  # what has begun must be what the code asks for, too
                raise _EndOfRecordsSignal
        return super().take(scope, key, kind, asked, codec)

    async def gather(self, scope: Scope, key: str, branches: Sequence[Branch]) -> list[Any]:
        ends: list[_EndOfRecordsSignal] = []
        outcomes = await super().gather(scope, key, [_to_its_end(branch, ends) for branch in branches])
        if ends:
            raise ends[0]
        return outcomes


def _to_its_end(branch: Branch, ends: list[_EndOfRecordsSignal]) -> Branch:
    """A branch that lets the others go on when its records end."""

    async def run() -> Any:
        try:
            return await branch()
        except _EndOfRecordsSignal as end:
            ends.append(end)
            return None

    return run


async def replay(
    history: History,
    functions: Sequence[Function[Any, Any]],
    *,
    resources: Mapping[str, Any] | None = None,
    secrets: Iterable[str | SecretStr] = (),
) -> Any:
    """Replay a recorded run, of any backend, with today's code, and compare every step and the end.

    Nothing is executed: no body, no model, no tool, no child run. Every step returns its recorded value.

    Args:
        history: The run.
        functions: Functions and agents; the one whose id the run has is replayed.
        resources: The value of ``ctx.resources``.
        secrets: The texts that the backend masked when it recorded the run.

    Returns:
        What the function returned, rebuilt; ``None`` for a run that failed as recorded, or had not ended.

    Raises:
        NonDeterminismError: If the code asks for another step, passes another input, or ends differently. It has both
            sides.
        DefinitionError: If no function has the run's id.
    """
    function = _function_of(history, functions)
    redactor = Redactor(secrets)
    steps = KeyedSteps(_OpenRecords(history, redactor))
    last = history.records[-1]
    try:
        value = await function.handler(await _context(history, function, steps, resources or {}))
        steps.check_end()
        output = redactor.text(function.output.encode(value, step=""))
    except _EndOfRecordsSignal:
        return None
    except NonDeterminismError:
        raise
    except Exception as error:
        if steps.refusal is not None:
            raise steps.refusal from error
        _compare_failure(last, error)
        return None
    if history.status == "started" or last.status == "cancelled":
        return None  # it goes on where the records stop
    if last.status == "failed":
        raise NonDeterminismError(step="", recorded=f"the error {_error(last.error)}", asked=f"the result {output}")
    if output != last.output and redactor.text(function.output.show(value, step="")) != last.output:  # 0.1 wrote that
        raise NonDeterminismError(step="", recorded=f"the result {last.output}", asked=f"the result {output}")
    return function.restore(function.output.decode(output, step=""), history)


def _function_of(history: History, functions: Sequence[Function[Any, Any]]) -> Function[Any, Any]:
    known: dict[str, Function[Any, Any]] = {}
    waiting = list(functions)
    while waiting:
        each = waiting.pop()
        if each.id not in known:
            known[each.id] = each
            waiting += each.uses
    if history.function not in known:
        raise DefinitionError(
            f"the history is of function {history.function!r}, and functions=[...] has {', '.join(known) or 'none'}: "
            "add it; if it was renamed, runs recorded under the old name cannot go on either"
        )
    return known[history.function]


async def _context(
    history: History, function: Function[Any, Any], steps: KeyedSteps, resources: Mapping[str, Any]
) -> Context[Any]:
    event = Event.model_validate_json(history.records[0].output or "")
    silent = logging.getLogger("durably.replay")
    failures = sum(1 for record in history if not record.key and record.status == "retrying")
    return Context(
        step=steps,
        event=event,
        input=await judged_input(function, steps, event),
        run_id=history.run_id,
        attempt=failures + 1,
        logger=silent,
        resources=resources,
    )


def _compare_failure(last: StepRecord, error: Exception) -> None:
    """An error of the code is right if the run recorded the same."""
    found = error_to_json(error)
    if last.status == "failed" and last.error is not None:
        if found == last.error or (found["type"], found.get("message")) == (
            last.error.get("type"),
            last.error.get("message"),
        ):
            return
        recorded = f"the error {_error(last.error)}"
    else:
        recorded = f"the result {last.output}" if last.status == "completed" else f"a run that {last.status}"
    raise NonDeterminismError(step="", recorded=recorded, asked=f"the error {_error(found)}") from error


def _error(error: Mapping[str, Any] | None) -> str:
    return "nothing" if error is None else f"{error.get('type')}: {error.get('message', '')}"
