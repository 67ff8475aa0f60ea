"""What every step of the workflow side has in common: its record, its commands, and its arguments.

Everything here is deterministic: it decides by the history alone. What a step came to is also kept as a record, so that
a second attempt of the function, or a run that goes on in a fresh history, finds its steps done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from temporalio import workflow
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, FailureError
from temporalio.workflow import ActivityCancellationType

from durably.backends.temporal.code_change.recorded_history import Recording
from durably.backends.temporal.host import Host
from durably.backends.temporal.outcome import application_error
from durably.backends.temporal.payloads import INPUT, PAUSE, REFERENCE, Call, note, raw, text_of
from durably.backends.temporal.registry import encode_argument, parameter_types
from durably.core import Function, NonDeterminismError
from durably.core.attempts import Body
from durably.core.errors import (
    CancelSignal,
    PayloadTooLargeError,
    Signal,
    UnsupportedFeatureError,
    error_from_json,
    error_to_json,
)
from durably.core.history import Kind, RecordStatus, StepRecord
from durably.core.messages import Transcript
from durably.core.replay import Recorded
from durably.core.serialization import digest, encode_input
from durably.core.step_errors import interrupted
from durably.core.step_keys import KeyedSteps, Scope
from durably.core.steps import Point

__all__ = ["CommandSteps"]

T = TypeVar("T")

INLINE = 8 * 1024
"""Arguments longer than this many characters travel by reference."""

PIECE = 500_000
"""A large argument is fetched in pieces of this many characters: Temporal limits the answer to a query."""

PAUSE_EVERY = 200
"""So many records are replayed at once: Temporal takes a workflow that computes for 2 seconds for stuck."""

ROOM = 20_000_000
"""A history that has grown by so many bytes is left for a fresh one, which begins with the packed records."""

FULL = 45_000_000
"""No step begins in a history of so many bytes: Temporal ends a run without a word to it at 50 MB."""

NO_LIMIT = timedelta(days=3650)
"""Temporal wants a limit; ours is kept by the body, and a dead worker is noticed by its missing heartbeats."""

ONCE = RetryPolicy(maximum_attempts=1)

ALWAYS = 1_000_000
"""Retries of what the library itself asks of the server."""


class CommandSteps(KeyedSteps):
    """One attempt of a function's code.

    Args:
        host: The worker.
        function: The code.
        run_id: The run, which is the workflow's id.
        records: What earlier attempts and histories of this run came to; new records are added.
        inbox: Events that came for waiting steps, by step key.
        leave: Called to go on in a fresh history.
    """

    def __init__(
        self,
        host: Host,
        function: Function[Any, Any],
        run_id: str,
        records: list[StepRecord],
        inbox: dict[str, dict[str, Any]],
        leave: Callable[[], NoReturn],
    ) -> None:
        super().__init__()
        self._bodies: dict[str, Body] = {}
        self._asked_for: tuple[str, int, str] = ("", 0, "")
        self._host = host
        self._function = function
        self._run_id = run_id
        self._records = records
        self._recorded = Recorded(records)
        self._recording = host.recordings.get(workflow.info().run_id)
        self._inbox = inbox
        self._leave = leave
        # For attempts cut off by a crash; after a failure the activity names the delay itself.
        self._again = RetryPolicy(initial_interval=host.heartbeat / 10, backoff_coefficient=1.0)
        self._registering = 0
        self._replayed = 0
        self._pauses = 0
        self._begun: tuple[int, int] | None = None

    @property
    def replaying(self) -> bool:
        """Whether the code is still among what was done before."""
        return workflow.unsafe.is_replaying() or not self._recorded.exhausted(self._root)

    def check_end(self) -> None:
        """Refuse an end of the code that leaves recorded steps over, or that swallowed a refusal."""
        if self._broken is not None:
            raise self._broken
        self._guard(lambda: self._recorded.check_end(self._root))
        self._expect(lambda recording: recording.check_end(""))

    def check_failure(self, error: Exception) -> None:
        """Refuse a failure of the code in a place where the run went on."""
        if self._broken is None:
            self._expect(lambda recording: recording.check_failure(error))

    async def _activity(self, body: Body, call: Call, args: Sequence[RawValue]) -> StepRecord:
        """A body that any worker can find."""
        started = workflow.time()
        self.pass_point("before_start", body.key)
        try:
            value = await self._execute(body, call, args)
        except ActivityError as error:
            return self._failed("step", body.key, call.input, error, started)
        return self._settled("step", body.key, call.input, value, started)

    async def _execute(self, body: Body, call: Call, args: Sequence[RawValue]) -> RawValue:
        with self._under_way(body):
            value: RawValue = await workflow.execute_activity(
                step_id_of(body.key),
                args=[call.to_raw(), *args],
                activity_id=body.key,
                result_type=RawValue,
                start_to_close_timeout=NO_LIMIT,
                heartbeat_timeout=self._host.heartbeat,
                retry_policy=ONCE if body.at_most_once else self._again,
                cancellation_type=ActivityCancellationType.TRY_CANCEL,
            )
        return value

    async def system(self, key: str, name: str, *args: Any, asked: str = "") -> RawValue:
        """Something the library itself does in an activity, tried until it is done."""
        body = Body.of(key, _nothing, args, None, None, None, False)
        try:
            return await self._execute(body, Call(body=name, input=asked, retries=ALWAYS), self._arguments(body))
        except ActivityError:
            self._check()
            raise

    def _refuse_once(self, body: Body) -> list[RawValue]:
        if body.at_most_once:
            raise UnsupportedFeatureError(
                backend="Temporal",
                feature=f"at_most_once for the closure of step {body.key!r}",
                reason="Temporal writes down that a closure ran only after it ran. Use a function of a module, or a "
                "method of a tool, an agent or a resource",
            )
        return []

    async def _local(self, body: Body, asked: str) -> StepRecord:
        """A closure: it runs in this process, one attempt a local activity."""
        started = workflow.time()
        task = workflow.info().get_current_history_length()
        failures = 0
        while True:
            # Temporal writes down nothing of an attempt that a crash cut off, but of the task in which it ran.
            lost = 0 if self._recording is None else self._recording.tries.since(task)
            call = Call(body="", input=asked, retries=body.retries, failures=failures, lost=lost)
            try:
                value = await self._execute_local(body, call)
            except (ActivityError, ApplicationError) as error:
                delay = _delay(error)
                if delay is None:
                    await self._pause()
                    return self._failed("step", body.key, asked, error, started)
                self.pass_point("backing_off", body.key)
                failures += 1
                await workflow.sleep(max(0.001, delay))
            else:
                await self._pause()
                return self._settled("step", body.key, asked, value, started)

    async def _pause(self) -> None:
        """Complete the workflow task, so that Temporal writes down what a closure came to before we tell anyone.

        By an activity: a timer may take a second, however short it is.
        """
        self._pauses += 1
        await self.system(f"durably:pause:{self._pauses}", PAUSE)

    async def _execute_local(self, body: Body, call: Call) -> RawValue:
        self.pass_point("before_start", body.key)
        with self._under_way(body):
            value: RawValue = await workflow.execute_local_activity(
                step_id_of(body.key),
                call.to_raw(),
                activity_id=body.key,
                result_type=RawValue,
                start_to_close_timeout=NO_LIMIT,
                retry_policy=ONCE,
            )
        return value

    def _asked(self, args: Sequence[Any], key: str) -> str:
        return self._redact(encode_input(args, step=key))

    def _redact(self, text: str) -> str:
        redacted: str = self._host.redactor.text(text)
        return redacted

    async def _take(
        self, scope: Scope, key: str, kind: Kind, asked: str, *, registers: bool = False
    ) -> StepRecord | None:
        record = self._guard(lambda: self._recorded.take(scope, key, kind, asked))
        self._expect(lambda recording: recording.take(scope.prefix, key, kind, asked))
        if record is not None and record.final:
            self.pass_point("replay", key)
            self._replayed += 1
            if self._replayed % PAUSE_EVERY == 0:
                await self._pause()
            return record
        self._check()
        if scope.prefix and not registers:
            await self._let_others_register()
        elif not scope.prefix and self._is_long():
            self._leave()
        size = workflow.info().get_current_history_size()
        if size >= FULL:
            self._broken = PayloadTooLargeError(step=key, size=size, limit=FULL)
            raise self._broken
        return None

    def _is_long(self) -> bool:
        """Whether this history has grown so much, since the code was done with its records, that a fresh one is due."""
        info = workflow.info()
        length, size = info.get_current_history_length(), info.get_current_history_size()
        if self._begun is None:
            self._begun = (length, size) if self._replayed else (0, 0)
        return length - self._begun[0] >= self._host.continue_after or size - self._begun[1] >= ROOM

    async def _let_others_register(self) -> None:
        # Whoever will answer a wait may be told by another branch, so a wait is known to its hub before any other
        # branch goes on.
        await asyncio.sleep(0)
        if self._registering:
            await workflow.wait_condition(lambda: not self._registering)

    def _branch_ended(self, scope: Scope) -> None:
        self._guard(lambda: self._recorded.check_end(scope))
        self._expect(lambda recording: recording.check_end(scope.prefix))

    def _expect(self, look: Callable[[Recording], object]) -> None:
        """While the code is replayed, hold it to what the server has of this run."""
        recording = self._recording
        if recording is not None:
            self._guard(lambda: look(recording))

    def _guard(self, look: Callable[[], T]) -> T:
        try:
            return look()
        except NonDeterminismError as error:
            self._broken = error
            raise

    def _check(self) -> None:
        if workflow.cancellation_reason() is not None:
            raise CancelSignal

    @contextmanager
    def _under_way(self, body: Body) -> Iterator[None]:
        """Keep a body where its activity finds it: a closure, or a large argument."""
        place = (workflow.info().run_id, body.key)
        self._bodies[body.key] = self._host.shelf[place] = body
        try:
            yield
        finally:
            self._host.shelf.pop(place, None)
            self._bodies.pop(body.key, None)
            self._asked_for = ("", 0, "")

    def _arguments(self, body: Body) -> list[RawValue]:
        """A body's arguments as payloads: what is large, or holds a secret, as a reference."""
        types = parameter_types(body.fn, len(body.args))
        payloads: list[RawValue] = []
        room = INLINE
        for value, tp in zip(body.args, types, strict=False):
            if isinstance(value, Transcript):
                payloads.append(raw("null", **{REFERENCE: value.__digest__()}))
                continue
            text = encode_argument(value, tp, step=body.key)
            if len(text) <= room and self._redact(text) == text:
                room -= len(text)
                payloads.append(raw(text))
            else:
                payloads.append(raw("null", **{REFERENCE: digest(text)}))
        return payloads

    def argument(self, key: str, index: int, piece: int) -> list[Any]:
        """Answer an activity that asks for a piece of a large argument, and whether there are more."""
        body = self._bodies[key]
        if self._asked_for[:2] != (key, index):
            tp = parameter_types(body.fn, index + 1)[index]
            self._asked_for = (key, index, encode_argument(body.args[index], tp, step=key))
        text = self._asked_for[2]
        end = (piece + 1) * PIECE
        return [text[piece * PIECE : end], end < len(text)]

    def _settled(self, kind: Kind, key: str, asked: str, value: RawValue, started: float) -> StepRecord:
        self._compare(key, note(value, INPUT), asked)
        self.pass_point("after_commit", key)
        return self._record(kind, key, asked, started, output=text_of(value))

    def _failed(self, kind: Kind, key: str, asked: str, error: FailureError, started: float) -> StepRecord:
        self._check()
        cause = _cause(error)
        final: Exception = interrupted(key)
        if isinstance(cause, ApplicationError):
            recorded = cause.details[1] if len(cause.details) > 1 else None
            self._compare(key, recorded if isinstance(recorded, str) else None, asked)
            final = error_from_json(application_error(cause))
        self.pass_point("after_commit", key)
        return self._record(kind, key, asked, started, error=final)

    def _compare(self, key: str, recorded: str | None, asked: str) -> None:
        if recorded is not None and recorded != asked:
            self._broken = NonDeterminismError(
                step=key, recorded=f"the input {recorded or 'nothing'}", asked=f"the input {asked or 'nothing'}"
            )
            raise self._broken

    def _record(
        self,
        kind: Kind,
        key: str,
        asked: str,
        started: float,
        *,
        output: str | None = None,
        error: Exception | None = None,
    ) -> StepRecord:
        now = workflow.time()
        status: RecordStatus = "completed" if error is None else "failed"
        record = StepRecord(
            self._run_id,
            len(self._records),
            key,
            kind,
            status,
            input=asked,
            output=output,
            error=None if error is None else self._host.redactor.data(error_to_json(error)),
            at=now,
            took=max(0.0, now - started),
        )
        self._records.append(record)
        return record

    def pass_point(self, name: str, key: str) -> None:
        """Report a point to the harness. A workflow cannot wait, so a pause is not kept here."""
        probe = self._host.probe()
        if probe is None or workflow.unsafe.is_replaying():
            return
        try:
            pause = probe(Point(name, self._function.id, self._run_id, key))
        except Signal as signal:
            self._host.crash(signal)
            raise
        if asyncio.iscoroutine(pause):
            pause.close()


def step_id_of(key: str) -> str:
    """The id the caller gave: what Temporal's pages show as the activity's type."""
    return key.rpartition("/")[2].partition(":")[0]


async def _nothing(*args: Any) -> Any:
    """In the place of a body that the activity finds by its name alone."""


def _cause(error: FailureError) -> BaseException | None:
    return error.cause if isinstance(error, ActivityError) else error


def _delay(error: FailureError) -> float | None:
    """How long to wait before the next attempt of a closure, or ``None`` after the last one."""
    cause = _cause(error)
    if isinstance(cause, ApplicationError) and not cause.non_retryable and len(cause.details) > 1:
        return float(cause.details[1])
    return None
