"""All errors and signals of durably, and whether an error may be retried.

Owns: the error tree, its JSON form (so that a replay raises the class that was raised live) and the
signals that unwind a run. Does not own: when to retry (``retry.py``) and what a step records (``history.py``).

The tree::

    DurablyError
    ├── DefinitionError            a function, tool or agent is written wrongly; raised where it is defined
    ├── StepError                  a step's attempts are used up
    │   ├── StepTimeoutError       ... because the last one ran out of time
    │   ├── StepInterruptedError   an at-most-once step was cut off by a crash
    │   ├── StepCrashedError       ... its process died while it ran, more often than crash_limit
    │   └── InvokeError            ... the step was a call of another function, which failed
    │       └── RunCancelledError  ... or was cancelled
    ├── NonRetriableError          raised by users: stop retrying
    ├── RetryAfterError            raised by users: retry after this long
    ├── ToolError                  raised by tools: tell the model, do not retry
    ├── ModelError                 raised by providers
    │   ├── AnswerFailedError      ... at an answer that it had taken to be made later
    │   └── ContextWindowExceededError
    ├── NonDeterminismError        the code no longer matches what was recorded
    ├── NestedStepError            a step inside a step's body
    ├── ConcurrentStepError        two steps of one branch at the same time
    ├── StepCancelledError         asyncio.timeout, or the like, around a step
    ├── TooManyStepsError          more steps, or branches at a time, than the engine takes in one run
    ├── SerializationError         a value cannot be written as JSON and read back
    │   └── PayloadTooLargeError
    ├── CrashLoopError             the process dies again and again outside the steps of a run
    ├── StaleRunError              another worker owns the run now
    ├── RunNotFoundError
    ├── FunctionNotFoundError      no worker has ever served a function of this id
    ├── RunExistsError             the id of a new run belongs to one of another function or input
    ├── AmbiguousRunIdError        several runs have ids that begin so
    ├── RunNotFailedError          ... so it cannot be retried
    ├── StepNotFoundError          ... so a run cannot be forked behind it
    ├── ApprovalNotPendingError    an answer to nothing, or the second to one question
    ├── MissingKeyError            a run has no value it can be grouped by at the key of a rule
    ├── JournalError               the storage refuses to read or write
    │   ├── JournalBusyError       ... because another process holds its lock
    │   ├── EngineUnavailableError ... because the engine's server does not answer
    │   └── JournalCorruptError    ... or gives back something else than was written
    └── UnsupportedFeatureError    the backend cannot do this at all
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from durably.core.durations import Duration, duration_seconds, moment
from durably.core.error_spending import SPENT, carried_spending, carry_spending
from durably.core.error_text import error_text, plain_data, type_name
from durably.core.error_trace import carry_traceback, traceback_text

__all__ = [
    "AmbiguousRunIdError",
    "AnswerFailedError",
    "ApprovalNotPendingError",
    "CancelSignal",
    "ConcurrentStepError",
    "ContextWindowExceededError",
    "CrashLoopError",
    "DefinitionError",
    "DurablyError",
    "EngineUnavailableError",
    "FunctionNotFoundError",
    "InterruptSignal",
    "InvokeError",
    "JournalBusyError",
    "JournalCorruptError",
    "JournalError",
    "MissingKeyError",
    "ModelError",
    "NestedStepError",
    "NonDeterminismError",
    "NonRetriableError",
    "PayloadTooLargeError",
    "RetryAfterError",
    "RunCancelledError",
    "RunExistsError",
    "RunNotFailedError",
    "RunNotFoundError",
    "SerializationError",
    "Signal",
    "StaleRunError",
    "StepCancelledError",
    "StepCrashedError",
    "StepError",
    "StepInterruptedError",
    "StepNotFoundError",
    "StepTimeoutError",
    "SuspendSignal",
    "TooManyStepsError",
    "ToolError",
    "UnsupportedFeatureError",
    "error_from_json",
    "error_to_json",
    "is_retriable",
]


class DurablyError(Exception):
    """The base class of all errors of this library.

    A subclass keeps its data in the attributes that ``fields`` names, and takes them as keyword arguments of the same
    names. From these, JSON and pickle rebuild it.
    """

    fields: ClassVar[tuple[str, ...]] = ("message",)
    retriable: bool = False
    _classes: ClassVar[dict[str, type[DurablyError]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        DurablyError._classes[cls.__name__] = cls

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message

    # Without it, pickle would call __init__ with the sentence alone, which most classes do not take.
    def __reduce__(self) -> tuple[Any, ...]:
        return error_from_json, (error_to_json(self),)


DurablyError._classes["DurablyError"] = DurablyError  # __init_subclass__ sees only subclasses


class DefinitionError(DurablyError):
    """A function, tool or agent cannot work as written. Raised where it is defined."""


class StepError(DurablyError):
    """A step failed for good: no attempt is left, or its error may not be retried.

    Attributes:
        step: The key of the step, such as ``"think:1"``.
        attempts: How many attempts failed.
        error_type: The class name of the last error, such as ``"ConnectionError"``.
        message: The text of the last error.
    """

    fields: ClassVar[tuple[str, ...]] = ("step", "attempts", "error_type", "message")

    def __init__(self, *, step: str, attempts: int, error_type: str, message: str) -> None:
        DurablyError.__init__(self, self._sentence(step, attempts, error_type, message))
        self.step = step
        self.attempts = attempts
        self.error_type = error_type
        self.message = message

    @staticmethod
    def _sentence(step: str, attempts: int, error_type: str, message: str) -> str:
        times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
        return f"step {step!r} failed after {times}: {error_type}: {message}"


class StepTimeoutError(StepError):
    """A step, or a call of another function, did not end within its ``timeout``."""


class StepInterruptedError(StepError):
    """A crash interrupted an ``at_most_once`` step, so its effect is unknown. It does not run again."""


class StepCrashedError(StepError):
    """A step's process died while its body ran, more often than ``crash_limit`` allows. It is not run again.

    A crash counts for all bodies that ran in the same process. On memory and SQLite, a step that two crashes have cut
    off runs alone in its run, and further ones count for it alone.

    Attributes:
        crashes: How many times.
        since: When the first of these crashes was noticed, in seconds since 1970.
    """

    fields = ("step", "attempts", "error_type", "message", "crashes", "since")

    def __init__(
        self,
        *,
        step: str,
        attempts: int,
        crashes: int,
        since: float,
        error_type: str = "StepCrashedError",
        message: str = "",
    ) -> None:
        message = message or f"its process died {crashes} times while it was running, since {_moment_text(since)}"
        super().__init__(step=step, attempts=attempts, error_type=error_type, message=message)
        self.crashes = crashes
        self.since = since


class InvokeError(StepError):
    """An invoked function has failed.

    Attributes:
        function: The id of the function.
        run_id: The id of its run, to look at its history.
        spent: What an agent had spent when it failed: its ``usage``, ``cost`` and ``tool_calls`` as JSON data. ``None``
            if the error does not say: the function runs no agent, or the run did not end by an error of its code.
    """

    fields = ("step", "attempts", "error_type", "message", "function", "run_id")

    def __init__(
        self, *, step: str = "", attempts: int = 1, error_type: str, message: str, function: str, run_id: str
    ) -> None:
        super().__init__(step=step, attempts=attempts, error_type=error_type, message=message)
        self.function = function
        self.run_id = run_id
        self.args = (f"function {function!r} (run {run_id}) failed: {error_type}: {message}",)

    @property
    def spent(self) -> dict[str, Any] | None:
        """See above."""
        return carried_spending(self)


class RunCancelledError(InvokeError):
    """The run was cancelled before it could end."""


class NonRetriableError(DurablyError):
    """Fails a step or a function at once, even if retries are left. Raise it in a body or a function."""


class RetryAfterError(DurablyError):
    """Fails an attempt and sets when the next one starts. Raise it in a body or a function.

    Args:
        message: What went wrong.
        delay: Seconds, a ``timedelta``, a text such as ``"30s"``, or the time of the next attempt as an aware
            ``datetime``. A negative delay or a past time means at once.

    Raises:
        TypeError: If the delay is something else.
        ValueError: If it is not finite, longer than ten years, or has no time zone.
    """

    fields = ("message", "delay")
    retriable = True

    def __init__(self, message: str, *, delay: Duration | datetime) -> None:
        super().__init__(message)
        what = "delay of RetryAfterError"
        if isinstance(delay, datetime):
            delay = moment(delay, what) - datetime.now(UTC).timestamp()
        if isinstance(delay, timedelta):
            delay = delay.total_seconds()
        past = isinstance(delay, int | float) and delay < 0
        self.delay = 0.0 if past else duration_seconds(delay, what)


class ToolError(DurablyError):
    """Gives its message to the model as an error result, without a retry. Raise it in a tool."""


class ModelError(DurablyError):
    """A model provider refused or failed.

    Attributes:
        provider: The provider, such as ``"anthropic"``.
        model: The model that was asked.
        status: The HTTP status, or ``None`` if there was no answer.
        request_id: The provider's own id of the request, or ``None``.
        retriable: Whether the same request may succeed later.
        retry_after: Seconds the provider asked to wait, or ``None``.
    """

    fields = ("message", "provider", "model", "status", "request_id", "retriable", "retry_after")

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        model: str,
        status: int | None = None,
        request_id: str | None = None,
        retriable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retriable = retriable
        self.retry_after = retry_after


class ContextWindowExceededError(ModelError):
    """The conversation is too long for the model. An agent with ``compaction`` shortens it."""


class AnswerFailedError(ModelError):
    """A provider failed at an answer that it had taken to be made later. An agent submits the request again."""


class NonDeterminismError(DurablyError):
    """The code asked for something other than what this run recorded at the same place.

    Attributes:
        step: The key of the step.
        recorded: What is recorded there, as text.
        asked: What the code asked for, as text.
    """

    fields = ("step", "recorded", "asked")

    def __init__(self, *, step: str, recorded: str, asked: str) -> None:
        super().__init__(
            f"the code does not match what this run recorded at step {step!r}: recorded {recorded}, the code asked "
            f"for {asked}. Usual causes: the function, or a type it uses, was changed while this run was in flight, or "
            "it decides by something that is not recorded (the clock, randomness, the environment, the order of a "
            "set). Move the decision into a step, or let old runs end on the old code."
        )
        self.step = step
        self.recorded = recorded
        self.asked = asked


class NestedStepError(DurablyError):
    """A step was started inside the body of another step."""

    fields = ("step", "inside")

    def __init__(self, *, step: str, inside: str) -> None:
        super().__init__(
            f"step {step!r} was started inside the body of step {inside!r}. A body runs as one unit and cannot hold "
            "steps: return from the body first and start the step from the function, or use step.invoke."
        )
        self.step = step
        self.inside = inside


class ConcurrentStepError(DurablyError):
    """Two steps of one branch ran at the same time, so their order would depend on timing."""

    fields = ("step",)

    def __init__(self, *, step: str) -> None:
        super().__init__(
            f"step {step!r} was started while another step of the same branch was still running. Steps run one "
            "after another; to run several at once use step.gather(lambda: step.run(...), lambda: step.run(...)), "
            "not asyncio.gather or a task."
        )
        self.step = step


class StepCancelledError(DurablyError):
    """The code around a step cancelled it."""

    fields = ("step",)

    def __init__(self, *, step: str) -> None:
        super().__init__(
            f"step {step!r} was cancelled by the code around it: asyncio.timeout, asyncio.wait_for, or a task that was "
            "cancelled. What a run does would then depend on how quick the machine is, so no engine allows it. Use "
            "timeout= of the step, step.wait_for_event(timeout=...), or cancel the run."
        )
        self.step = step


class TooManyStepsError(DurablyError):
    """A run asked for more steps, or more concurrent branches, than its engine allows. None was started.

    Attributes:
        step: The step, or the ``gather``, that exceeds the limit.
        what: What exceeds the limit: ``"steps in one run"`` or ``"branches at a time"``. Inngest counts its own steps.
        count: How many there would have been.
        limit: How many the engine allows.
    """

    fields = ("step", "what", "count", "limit")

    def __init__(self, *, step: str, what: str, count: int, limit: int) -> None:
        super().__init__(
            f"step {step!r} would make {count:,} {what}, and this engine takes {limit:,}. Give parts of the work to "
            "runs of their own with step.invoke, each of which has its own count"
        )
        self.step = step
        self.what = what
        self.count = count
        self.limit = limit


class SerializationError(DurablyError):
    """A value cannot be written as JSON and read back as the same type."""

    fields: ClassVar[tuple[str, ...]] = ("step", "message")

    def __init__(self, message: str, *, step: str) -> None:
        DurablyError.__init__(self, f"step {step!r}: {message}" if step else message)
        self.step = step
        self.message = message


class PayloadTooLargeError(SerializationError):
    """A value is larger than the backend allows.

    Attributes:
        size: Its size in bytes, as JSON.
        limit: The largest size that is allowed, in bytes.
    """

    fields = ("step", "size", "limit")

    def __init__(self, *, step: str, size: int, limit: int) -> None:
        super().__init__(
            f"the value has {size:,} bytes as JSON, the limit is {limit:,}. Store it elsewhere (a file, a bucket) "
            "and return its name.",
            step=step,
        )
        self.size = size
        self.limit = limit


class CrashLoopError(DurablyError):
    """The process of a run died too often outside its steps, so the run failed.

    Attributes:
        crashes: How many times it died without progress of the run.
        since: When the first of these crashes was noticed, in seconds since 1970.
    """

    fields = ("crashes", "since")

    def __init__(self, *, crashes: int, since: float) -> None:
        super().__init__(
            f"the process died {crashes} times in the same place of this run, outside its steps, since "
            f"{_moment_text(since)}. Usual causes: the function's own code ends the process (os._exit, a crash in a C "
            "extension), or uses more memory than there is. Move what may do that into a step, whose crashes the "
            "function can catch."
        )
        self.crashes = crashes
        self.since = since


class StaleRunError(DurablyError):
    """Another worker owns the run now. The write was refused."""

    fields = ("run_id", "fence")

    def __init__(self, *, run_id: str, fence: int) -> None:
        super().__init__(
            f"run {run_id} is owned by another worker or has ended: the write with fencing token {fence} was refused"
        )
        self.run_id = run_id
        self.fence = fence


class RunNotFoundError(DurablyError):
    """No run has this id."""

    fields = ("run_id",)

    def __init__(self, run_id: str) -> None:
        super().__init__(f"there is no run {run_id!r} in this backend")
        self.run_id = run_id


class AmbiguousRunIdError(DurablyError):
    """Several run ids begin with this prefix.

    Attributes:
        prefix: What was asked for.
        run_ids: Some of the runs, the newest first.
    """

    fields = ("prefix", "run_ids")

    def __init__(self, *, prefix: str, run_ids: Sequence[str]) -> None:
        some = ", ".join(map(repr, run_ids))
        super().__init__(f"several runs have ids that begin with {prefix!r}: {some}, ...; write more of it")
        self.prefix = prefix
        self.run_ids = list(run_ids)


class FunctionNotFoundError(DurablyError):
    """No worker has ever registered a function of this id.

    Attributes:
        function: The id that was asked for.
        near: Similar registered ids, the most similar first.
    """

    fields = ("function", "near")

    def __init__(self, *, function: str, near: Sequence[str]) -> None:
        known = f"; did you mean {', '.join(map(repr, near))}?" if near else "."
        super().__init__(
            f"no worker has ever served a function {function!r} here{known} Start a worker that has it first, or start "
            f"FunctionRef({function!r}): a run that waits for one"
        )
        self.function = function
        self.near = list(near)


class RunExistsError(DurablyError):
    """The run id belongs to a run of another function or input.

    Attributes:
        run_id: The id.
        function: The id of the existing run's function.
        asked: The id of the function that was to be started.
    """

    fields = ("run_id", "function", "asked")

    def __init__(self, *, run_id: str, function: str, asked: str) -> None:
        if function == asked:
            reason = f"run {run_id!r} of {function!r} was started with another input"
        else:
            reason = f"run {run_id!r} belongs to function {function!r}, not {asked!r}"
        super().__init__(f"{reason}: start a new run with another id, or look at this one with run({run_id!r})")
        self.run_id = run_id
        self.function = function
        self.asked = asked


class RunNotFailedError(DurablyError):
    """A run that has not failed cannot be retried.

    Attributes:
        run_id: The run.
        status: Its status, such as ``"completed"``.
    """

    fields = ("run_id", "status")

    def __init__(self, *, run_id: str, status: str) -> None:
        super().__init__(
            f"run {run_id!r} is {status}, and only a failed run can be retried. To have it go another way, start a new "
            'run from its records: run.fork(after="a-step-key")'
        )
        self.run_id = run_id
        self.status = status


class StepNotFoundError(DurablyError):
    """The run has no ended step of this key.

    Attributes:
        run_id: The run.
        step: The key that was asked for.
        near: Similar keys, the most similar first.
    """

    fields = ("run_id", "step", "near")

    def __init__(self, *, run_id: str, step: str, near: Sequence[str]) -> None:
        known = f"did you mean {', '.join(map(repr, near))}?" if near else "no step of it has."
        super().__init__(f"run {run_id!r} has no step {step!r} that has ended; {known}")
        self.run_id = run_id
        self.step = step
        self.near = list(near)


class ApprovalNotPendingError(DurablyError):
    """The approval is not pending: it is unknown, was answered, or has timed out.

    Attributes:
        approval: The id of the request.
        reason: Why it is not pending.
        by: Who answered first, if known.
        at: When, in seconds since 1970, if known.
    """

    fields = ("approval", "reason", "by", "at")

    def __init__(self, *, approval: str, reason: str, by: str | None = None, at: float | None = None) -> None:
        super().__init__(f"the approval {approval!r} is not pending: {reason}")
        self.approval = approval
        self.reason = reason
        self.by = by
        self.at = at


class MissingKeyError(DurablyError):
    """The input has no value, or a masked secret, at the key of one of the function's rules.

    Attributes:
        function: The id of the function.
        option: Its option, such as ``"singleton"``.
        key: The dotted path.
        wanted: What value is needed.
    """

    fields = ("function", "option", "key", "wanted")

    def __init__(self, *, function: str, option: str, key: str, wanted: str = "a value that is not null") -> None:
        super().__init__(
            f"the input of {function!r} has nothing at {key!r} that its {option}= could go by: start it with {wanted} "
            "there, or correct the key"
        )
        self.function = function
        self.option = option
        self.key = key
        self.wanted = wanted


class JournalError(DurablyError):
    """The storage cannot be opened, read or written, as with a full disk, a lock that stays held, or a wrong file."""


class JournalBusyError(JournalError):
    """Another process holds the write lock of the storage. Nothing was written; try again later.

    Attributes:
        path: The storage.
        holder: Which process holds the lock, and what to do about it; empty if unknown.
    """

    fields = ("path", "holder")

    def __init__(self, *, path: str, holder: str = "") -> None:
        super().__init__(f"{path} is locked by {holder or 'another process'}")
        self.path = path
        self.holder = holder


class EngineUnavailableError(JournalError):
    """The engine's server cannot be reached, or is down. What was asked of it may have arrived all the same.

    Attributes:
        server: Its address.
        reason: What its client said.
    """

    fields = ("server", "reason")
    retriable = True

    def __init__(self, *, server: str, reason: str) -> None:
        super().__init__(
            f"the server at {server} does not answer ({reason}). What was asked may have arrived all the same: start "
            "or send it again with the same id, which does nothing twice"
        )
        self.server = server
        self.reason = reason


class JournalCorruptError(JournalError):
    """A record differs from what was written: its checksum or its place is wrong. It is not replayed.

    Attributes:
        run_id: The run.
        seq: The position of the record.
    """

    fields = ("run_id", "seq")

    def __init__(self, *, run_id: str, seq: int) -> None:
        super().__init__(
            f"record {seq} of run {run_id} is damaged: the file was changed outside durably, or the disk is failing; "
            "restore it from a backup"
        )
        self.run_id = run_id
        self.seq = seq


class UnsupportedFeatureError(DurablyError):
    """The backend does not have this feature. See ``Backend.capabilities``."""

    fields = ("backend", "feature", "reason")

    def __init__(self, *, backend: str, feature: str, reason: str) -> None:
        super().__init__(f"the {backend} backend does not support {feature}: {reason}")
        self.backend = backend
        self.feature = feature
        self.reason = reason


class Signal(BaseException):
    """Unwinds a run's code. It is not an ``Exception``, so that ``except Exception`` in users' code cannot catch it."""


class SuspendSignal(Signal):
    """The run leaves memory here and resumes later from its records."""


class InterruptSignal(Signal):
    """A body, or the code of a function, raised ``KeyboardInterrupt``: the worker stops, and the run is given back."""


class CancelSignal(Signal):
    """The run was cancelled. Nothing that it does from here on is recorded."""


def _moment_text(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="seconds")


def is_retriable(error: BaseException) -> bool:
    """Return whether another attempt may succeed. Errors of this library know; any other is retried."""
    if isinstance(error, BaseExceptionGroup):
        try:
            return any(is_retriable(each) for each in error.exceptions)
        except Exception:  # groups a thousand deep, or a property of a user's subclass
            return True
    if not isinstance(error, DurablyError):
        return True
    try:
        return bool(error.retriable)
    except Exception:  # a property of a user's subclass
        return False


def error_to_json(error: BaseException, redact: Callable[[str], str] = str) -> dict[str, Any]:
    """Describe any exception as JSON data: its class name, its text or fields, its traceback, and what it spent.

    It does not fail, whatever the exception does, and any storage can keep what it returns.

    Args:
        error: The exception.
        redact: Masks secrets in every text, before it is clipped.
    """
    said = _said(error, redact)
    if trace := traceback_text(error, redact):
        said["traceback"] = trace
    if (spent := carried_spending(error)) is not None:
        said[SPENT] = plain_data(spent, redact)
    return said


def _said(error: BaseException, redact: Callable[[str], str]) -> dict[str, Any]:
    kind = type_name(error)
    if isinstance(error, DurablyError):
        with suppress(Exception):  # a user's subclass may have no such fields, or properties that raise
            return {"type": kind, **{name: plain_data(getattr(error, name), redact) for name in error.fields}}
    return {"type": kind, "message": error_text(error, redact)}


def error_from_json(data: dict[str, Any]) -> DurablyError:
    """Rebuild an error from its JSON form. The recorded traceback is a note on it.

    A class of another library becomes ``NonRetriableError``. So does one that cannot be made from its fields.
    """
    error = _rebuilt(data)
    carry_traceback(error, str(data.get("traceback") or ""))
    carry_spending(error, data.get(SPENT))
    return error


def _rebuilt(data: dict[str, Any]) -> DurablyError:
    cls = DurablyError._classes.get(data["type"])
    if cls is None:
        return NonRetriableError(f"{data['type']}: {data.get('message', '')}")
    try:
        return cls(**{name: data[name] for name in cls.fields})
    except Exception:  # a user's subclass, whose constructor takes other arguments or whose fields were never set
        message = str(data.get("message", ""))
        if issubclass(cls, SerializationError):
            return SerializationError(message, step=str(data.get("step", "")))
        return NonRetriableError(f"{data['type']}: {message}")
