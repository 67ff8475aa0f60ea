"""The commands that a run's workflow gives to Temporal: activities of every kind, and the arguments of their bodies.

Everything here is deterministic: it decides by the history alone. What comes back is for others to judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, CancelledError
from temporalio.workflow import ActivityCancellationType

from durably.backends.temporal.host import TemporalHost
from durably.backends.temporal.payloads import PAUSE, REFERENCE, ActivityRequest, payload
from durably.backends.temporal.registry import encode_argument, parameter_types
from durably.core.attempts import StepCall
from durably.core.errors import CancelSignal, PayloadTooLargeError, Signal
from durably.core.ids import step_id_of
from durably.core.messages import Transcript
from durably.core.serialization import digest

__all__ = ["Commands", "ContinueAsNewSignal", "HistoryRoom", "check_cancelled"]

INLINE = 8 * 1024
"""Arguments longer than this many characters travel by reference."""

PIECE = 500_000
"""A large argument is fetched in pieces of this many characters: Temporal limits the answer to a query."""

ROOM = 20_000_000
"""A history that has grown by so many bytes is left for a fresh one, which begins with the packed records."""

FULL = 45_000_000
"""No step begins in a history of so many bytes: Temporal ends a run without a word to it at 50 MB."""

NO_LIMIT = timedelta(days=3650)
"""Temporal wants a limit; ours is kept by the body, and a dead worker is noticed by its missing heartbeats."""

LONGEST_PAUSE = timedelta(seconds=60)
"""The longest delay before a body that a crash cut off begins again; the first is a tenth of the heartbeat."""

ONCE = RetryPolicy(maximum_attempts=1)

ALWAYS = 1_000_000
"""Retries of the library's own activities."""


class ContinueAsNewSignal(Signal):
    """This history has grown long: the run goes on in a fresh one, which begins with the records of this one."""


def check_cancelled() -> None:
    """Unwind the code of a run that somebody has cancelled.

    Raises:
        CancelSignal: If it is.
    """
    if workflow.cancellation_reason() is not None:
        raise CancelSignal


@contextmanager
def _cancelled_by_code() -> Iterator[None]:
    """Have an activity that was cancelled end as any other cancelled ``await``: Temporal makes a failure of it."""
    try:
        yield
    except ActivityError as error:
        if isinstance(error.cause, CancelledError):
            check_cancelled()
            raise asyncio.CancelledError from None
        raise


class Commands:
    """What one run asks of Temporal, in one of its histories.

    Args:
        host: The worker.
    """

    def __init__(self, host: TemporalHost) -> None:
        self._host = host
        self._pending: dict[str, StepCall] = {}
        self._fetched: tuple[str, int, str] = ("", 0, "")
        self._completed_tasks = 0
        # For attempts cut off by a crash; after a failure the activity names the delay itself.
        self._retry = RetryPolicy(
            initial_interval=host.heartbeat / 10, backoff_coefficient=2.0, maximum_interval=LONGEST_PAUSE
        )

    async def activity(self, call: StepCall, request: ActivityRequest, args: Sequence[RawValue]) -> RawValue:
        """Run a body that any worker can find; the payload that its last attempt gave.

        Raises:
            ActivityError: If it failed for good, or was cut off and may run only once.
        """
        with self._findable(call), _cancelled_by_code():
            value: RawValue = await workflow.execute_activity(
                step_id_of(call.key),
                args=[request.to_payload(), *args],
                activity_id=call.key,
                result_type=RawValue,
                start_to_close_timeout=NO_LIMIT,
                heartbeat_timeout=self._host.heartbeat,
                retry_policy=ONCE if call.at_most_once else self._retry,
                # The run does not wait for a body that ignores its cancellation.
                cancellation_type=ActivityCancellationType.TRY_CANCEL,
            )
        return value

    async def local_activity(self, call: StepCall, request: ActivityRequest) -> RawValue:
        """Run one attempt of a closure, in this process; the payload that it gave.

        Raises:
            ActivityError: If the attempt failed.
        """
        with self._findable(call), _cancelled_by_code():
            value: RawValue = await workflow.execute_local_activity(
                step_id_of(call.key),
                request.to_payload(),
                activity_id=call.key,
                result_type=RawValue,
                start_to_close_timeout=NO_LIMIT,
                retry_policy=ONCE,
            )
        return value

    async def system(self, key: str, name: str, *args: Any, asked: str = "") -> RawValue:
        """Run one of the library's own activities, until it is done; the payload that it gave.

        Args:
            key: The activity's id: a step key, or one that begins with ``durably:`` for what is no step.
            name: Which one.
            args: Its arguments.
            asked: What a record of the step keeps of its arguments.
        """
        call = StepCall.of(key, _by_name, args)
        request = ActivityRequest(body=name, input=asked, retries=ALWAYS)
        try:
            return await self.activity(call, request, self.arguments(call))
        except ActivityError:
            check_cancelled()
            raise

    async def complete_task(self) -> None:
        """Complete the workflow task: what it has come to stands in the history before the code goes on.

        By an activity: a timer may take a second, however short it is.
        """
        self._completed_tasks += 1
        await self.system(f"durably:pause:{self._completed_tasks}", PAUSE)

    def arguments(self, call: StepCall) -> list[RawValue]:
        """A body's arguments as payloads: what is large, or holds a secret, as a reference.

        Raises:
            SerializationError: If one has no JSON form, or its parameter does not say what to rebuild it to.
        """
        types = parameter_types(call.fn, len(call.args))
        payloads: list[RawValue] = []
        room = INLINE
        for value, tp in zip(call.args, types, strict=False):
            if isinstance(value, Transcript):
                # Never written as JSON here: at each turn of an agent that would cost as much as all turns before.
                payloads.append(payload("null", **{REFERENCE: value.__digest__()}))
                continue
            text = encode_argument(value, tp, step=call.key)
            if len(text) <= room and self.is_plain(text):
                room -= len(text)
                payloads.append(payload(text))
            else:
                payloads.append(payload("null", **{REFERENCE: digest(text)}))
        return payloads

    def is_plain(self, text: str) -> bool:
        """Whether a text holds no secret."""
        return self._host.environment.redactor.text(text) == text

    def argument(self, key: str, index: int, piece: int) -> list[Any]:
        """A piece of a large argument of a step that is under way, and whether there are more; answers a query.

        Raises:
            KeyError: If that step is not under way.
        """
        call = self._pending[key]
        if self._fetched[:2] != (key, index):
            tp = parameter_types(call.fn, index + 1)[index]
            self._fetched = (key, index, encode_argument(call.args[index], tp, step=key))
        text = self._fetched[2]
        end = (piece + 1) * PIECE
        return [text[piece * PIECE : end], end < len(text)]

    @contextmanager
    def _findable(self, call: StepCall) -> Iterator[None]:
        """Keep a call where its activity finds it: a closure, or a large argument."""
        place = (workflow.info().run_id, call.key)
        self._pending[call.key] = self._host.pending[place] = call
        try:
            yield
        finally:
            # In the cache a run may wait for months; its calls are not to be kept for as long.
            self._host.pending.pop(place, None)
            self._pending.pop(call.key, None)
            self._fetched = ("", 0, "")


class HistoryRoom:
    """How much room a run's history has left.

    Args:
        continue_after: A fresh history is due once this one has grown by so many events.
        returning: See below.

    Attributes:
        returning: Whether the code is on its way back to the step before which it left the history before this one.
        left: Whether the code is to leave this one.
    """

    def __init__(self, continue_after: int, *, returning: bool = False) -> None:
        self.returning = returning
        self.left = False
        self._continue_after = continue_after
        self._begun: tuple[int, int] | None = None

    def check_left(self) -> None:
        """Unwind code that is to go on in a fresh history, and has swallowed what was to unwind it.

        Raises:
            ContinueAsNewSignal: If it has.
        """
        if self.left:
            raise ContinueAsNewSignal

    def check(self, key: str, *, replayed: int, may_leave: bool) -> None:
        """Look for room before a step begins.

        Args:
            key: The step key.
            replayed: How many steps the code found recorded in earlier histories.
            may_leave: Whether the run may go on in a fresh history here.

        Raises:
            ContinueAsNewSignal: If it should.
            PayloadTooLargeError: If the history is so full that Temporal is about to end the run.
        """
        info = workflow.info()
        size = info.get_current_history_size()
        if may_leave and self._is_long(info.get_current_history_length(), size, replayed):
            self.left = True
            raise ContinueAsNewSignal
        self.returning = False
        if size >= FULL:
            raise PayloadTooLargeError(step=key, size=size, limit=FULL)

    def _is_long(self, length: int, size: int, replayed: int) -> bool:
        """Whether this history has grown so much, since the code was done with its records, that a fresh one is due."""
        if self._begun is None:
            # The records that a fresh history begins with do not count: if they alone were too much, the run would go
            # from one history to the next for ever.
            self._begun = (length, size) if replayed else (0, 0)
        return length - self._begun[0] >= self._continue_after or size - self._begun[1] >= ROOM


async def _by_name(*args: Any) -> Any:
    """In the place of a body that the activity finds by its name alone."""
