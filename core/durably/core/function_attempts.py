"""One execution of a whole function, by the rules that are the same on every engine.

Owns: the context of the code, its input and its result, what an exception means, and whether another attempt follows.
Does not own: its steps (``attempts.py``), and where the outcome is kept, which is what engines differ in.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Any

from durably.core.contained_errors import as_exception, interrupt_process, is_current, own_task_is_cancelled, uncancel
from durably.core.context import Context, running
from durably.core.environment import Environment
from durably.core.errors import DurablyError, NonDeterminismError, SerializationError, Signal, is_retriable
from durably.core.events import Event
from durably.core.functions import Function
from durably.core.ids import derive_id
from durably.core.run_events import INPUT_STEP, INVOKED, STARTED, read_input
from durably.core.run_logger import RunLogger
from durably.core.steps import StepAPI

__all__ = ["FunctionSteps", "function_retry_delay", "judged_input", "run_function"]


class FunctionSteps(StepAPI):
    """The steps of one pass of a function's code, and what an attempt asks of them besides."""

    @property
    @abstractmethod
    def replaying(self) -> bool:
        """Whether the code that asks, in its own branch, is still among its recorded steps."""

    @property
    @abstractmethod
    def refusal(self) -> DurablyError | None:
        """Why the code may not go on: it does not match the records, or ran two steps of one branch at once."""

    @abstractmethod
    def is_ending(self) -> bool:
        """Whether the engine itself cancels this code now."""

    @abstractmethod
    def records_input(self) -> bool:
        """Whether this run may begin with the step that judges its input. Runs of before did not."""

    @abstractmethod
    def check_end(self) -> None:
        """Refuse an end of the code that leaves recorded steps over, or that swallowed a refusal."""


async def run_function(
    function: Function[Any, Any],
    steps: FunctionSteps,
    event: Event,
    environment: Environment,
    *,
    run_id: str,
    attempt: int,
) -> str:
    """Run one attempt of a function's code over its steps; its result as it is recorded, JSON without secrets.

    Args:
        function: The function.
        steps: Its steps, of which some may be recorded already.
        event: What started the run.
        environment: The worker's.
        run_id: The run.
        attempt: The number of this attempt, from 1.

    Raises:
        Exception: Whatever failed the attempt. A refusal of the code (it does not fit the records, or ran two steps of
            one branch at once) comes before what the code made of it: it may have wrapped or swallowed it.
    """
    task = asyncio.current_task()
    try:
        context = Context(
            step=steps,
            event=event,
            input=await judged_input(function, steps, event),
            run_id=run_id,
            attempt=attempt,
            logger=RunLogger(function.id, run_id, attempt, environment.redactor, lambda: steps.replaying),
            resources=environment.resources,
        )
        with running(context):
            value = await function.handler(context)
        steps.check_end()
        limit, redact = environment.max_payload_bytes, environment.redactor.text
        text, _ = function.output.round_trip(value, step="", limit=limit, redact=redact)
        return text
    except Signal:
        raise
    except KeyboardInterrupt as error:
        raise interrupt_process() from error
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and own_task_is_cancelled():
            if steps.is_ending():
                raise
            uncancel()
        if isinstance(error, GeneratorExit) and not is_current(task):
            # The engine throws the coroutine away: another error would come out wherever that happens.
            raise
        failure = steps.refusal or as_exception(error)
        try:
            if failure is error:
                raise
            raise failure from error
        finally:
            del failure  # it holds this frame


async def judged_input(function: Function[Any, Any], steps: FunctionSteps, event: Event) -> Any:
    """The input of a run's code. What an event brings is judged once: in a step, if the verdict might change.

    Args:
        function: The code.
        steps: Its steps.
        event: What started the run.

    Raises:
        SerializationError: If it does not fit the function's input type.
        NonDeterminismError: If it does not any more: the run has got further with it.
    """
    if event.name in (STARTED, INVOKED) or not function.records_input or not steps.records_input():
        return _known_input(function, steps, event)

    async def judge() -> Any:
        return read_input(function, event)

    return await steps.run(INPUT_STEP, judge, output_type=function.input.type)


def _known_input(function: Function[Any, Any], steps: FunctionSteps, event: Event) -> Any:
    try:
        return read_input(function, event)
    except SerializationError as error:
        if not steps.replaying:
            raise
        raise NonDeterminismError(
            step=INPUT_STEP, recorded="steps that came after the input", asked=f"another input ({error.message})"
        ) from error


def function_retry_delay(function: Function[Any, Any], run_id: str, failures: int, error: Exception) -> float | None:
    """Seconds until the next attempt of a function that failed, or ``None`` if there is none.

    Args:
        function: The function.
        run_id: The run.
        failures: How many attempts failed, this one included.
        error: Why this one did.
    """
    if failures > function.retries or not is_retriable(error):
        return None
    return function.retry_policy.next_delay(error, failures, derive_id("run", run_id, ""))
