"""Durable functions: how they are defined, and the options they are run with.

Owns: the decorator, its checks, and the options. Does not own: the rules of flow control (``flow.py``), the delays of
retries (``retry.py``), and running a function (the backends).
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from durably.core.annotations import awaited, is_async, is_lazy, resolve_hints, uncached
from durably.core.context import Context
from durably.core.counts import is_count
from durably.core.crash_limit import CRASH_LIMIT, check_crash_limit
from durably.core.error_text import shown
from durably.core.errors import DefinitionError, SerializationError
from durably.core.events import Event
from durably.core.flow import Batch, Concurrency, Cron, Debounce, Priority, RateLimit, Throttle, read_cron
from durably.core.flow_support import FLOW_CONTROL
from durably.core.history import History
from durably.core.ids import check_event_name
from durably.core.input_paths import check_path, key_value
from durably.core.mistakes import check_function_id, check_known, check_objects
from durably.core.reference import FunctionRef
from durably.core.retention import Retention
from durably.core.retry import RetryPolicy
from durably.core.serialization import codec_for

__all__ = ["FailedRun", "Function", "FunctionOptions", "Singleton", "check_event_keys", "check_keys", "function"]

In = TypeVar("In")
Out = TypeVar("Out")

Handler = Callable[[Context[In]], Awaitable[Out]]


@dataclass(frozen=True)
class Singleton:
    """Allows at most one live run for each value of a key.

    Args:
        key: Dotted path of the value in the input, such as ``"session_key"``. Default: one live run of the function.
        mode: ``"cancel"`` cancels the older run, ``"skip"`` drops the newer one, ``"queue"`` makes it wait: the runs of
            a key execute in the order of arrival.

    Raises:
        DefinitionError: If the mode is none of these, or the key no text.
    """

    key: str = ""
    mode: Literal["cancel", "skip", "queue"] = "cancel"

    def __post_init__(self) -> None:
        if self.mode not in ("cancel", "skip", "queue"):
            raise DefinitionError(f"Singleton mode {self.mode!r}: use 'cancel', 'skip' or 'queue'")
        if not isinstance(self.key, str):
            raise DefinitionError(
                f"Singleton key {shown(self.key)}: write the dotted path of a value in the input, such as 'session_key'"
            )


class FailedRun(BaseModel):
    """The input of an ``on_failure`` function: which run failed, and why.

    Attributes:
        run_id: The run that failed.
        function: The id of its function.
        event: The event that started the run.
        error: Its error as JSON: ``type``, ``message`` and, for errors of this library, their fields.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    run_id: str
    function: str
    event: Event
    error: dict[str, Any]


class FunctionOptions(TypedDict, total=False):
    """The options of a function or an agent.

    Keys:
        triggers: Names of the events that start it.
        retries: How often a failed attempt of the function or of one of its steps is tried again. Default 3.
        retry_policy: The delays between attempts. See :class:`~durably.core.RetryPolicy`.
        crash_limit: How many crashes a step may have been cut off by, or the code between two steps. With one more, the
            step fails with :class:`~durably.core.StepCrashedError`, or the run with
            :class:`~durably.core.CrashLoopError`. Default 5.
        singleton: Allows one live run for each value of a key. See :class:`Singleton`.
        on_failure: A function that runs once when a run has failed for good. Its input is a :class:`FailedRun`.
        retention: How long its finished runs are kept; left out, as the backend says. See
            :class:`~durably.core.Retention`.
        on_code_change: What becomes of a run that the code does not fit any more. ``"fail"``, the default, ends it with
            ``NonDeterminismError``; ``"wait"`` leaves it, stuck, until a worker comes with code that fits.
        concurrency: See :mod:`durably.core.flow`. This and the options below are flow control: an engine that does not
            have one refuses the function.
        debounce: See :mod:`durably.core.flow`.
        throttle: See :mod:`durably.core.flow`.
        rate_limit: See :mod:`durably.core.flow`.
        priority: See :mod:`durably.core.flow`.
        batch: See :mod:`durably.core.flow`.
        cron: When to start it: a cron expression, or a :class:`~durably.core.flow.Cron` with a time zone.
        idempotency: Dotted path in the input. Of the events with one value there, only the first of a day starts a run.
    """

    triggers: Sequence[str]
    retries: int
    retry_policy: RetryPolicy
    crash_limit: int
    singleton: Singleton | None
    on_failure: Callable[[Context[FailedRun]], Awaitable[object]] | None
    retention: Retention | None
    on_code_change: Literal["fail", "wait"]
    concurrency: Concurrency | Sequence[Concurrency] | None
    debounce: Debounce | None
    throttle: Throttle | None
    rate_limit: RateLimit | None
    priority: Priority | None
    batch: Batch | None
    cron: Cron | str | None
    idempotency: str | None


class Function(FunctionRef[In, Out]):
    """Durable code with an id. :func:`function` makes one; an agent is one too.

    Args:
        id: The id, unique in a backend.
        handler: The code.
        input_type: The type that the event's data is validated to.
        output_type: The type that the result is read back as.
        uses: Functions it calls. A backend registers them along with it.
        options: See :class:`FunctionOptions`.

    Raises:
        DefinitionError: If an option cannot work.
    """

    __slots__ = (
        "batch",
        "concurrency",
        "crash_limit",
        "cron",
        "debounce",
        "handler",
        "idempotency",
        "on_code_change",
        "on_failure",
        "priority",
        "rate_limit",
        "retention",
        "retries",
        "retry_policy",
        "singleton",
        "throttle",
        "triggers",
        "uses",
    )

    handler: Handler[In, Out]
    triggers: tuple[str, ...]
    retries: int
    retry_policy: RetryPolicy
    crash_limit: int
    singleton: Singleton | None
    on_failure: Function[FailedRun, object] | None
    retention: Retention | None
    on_code_change: Literal["fail", "wait"]
    concurrency: tuple[Concurrency, ...]
    debounce: Debounce | None
    throttle: Throttle | None
    rate_limit: RateLimit | None
    priority: Priority | None
    batch: Batch | None
    cron: Cron | None
    idempotency: str | None
    uses: tuple[Function[Any, Any], ...]

    def __init__(
        self,
        id: str,
        handler: Handler[In, Out],
        *,
        input_type: object = Any,
        output_type: object = Any,
        uses: Sequence[Function[Any, Any]] = (),
        **options: Unpack[FunctionOptions],
    ) -> None:
        super().__init__(id, input_type=input_type, output_type=output_type)
        check_known(f"function {id!r}", options, ["input_type", "output_type", *FunctionOptions.__annotations__])
        check_objects(f"function {id!r}", options, _RULES)
        limits = options.get("concurrency") or ()
        self.handler = handler
        self.triggers = check_triggers(id, options.get("triggers", ()))
        self.retries = _check_retries(id, options.get("retries", 3))
        self.retry_policy = options.get("retry_policy", RetryPolicy())
        self.crash_limit = _check_crash_limit(id, options.get("crash_limit", CRASH_LIMIT))
        self.singleton = options.get("singleton")
        self.on_failure = _failure_handler(id, options.get("on_failure"))
        self.retention = options.get("retention")
        self.on_code_change = _check_code_change(id, options.get("on_code_change", "fail"))
        self.concurrency = (limits,) if isinstance(limits, Concurrency) else tuple(limits)
        self.debounce = options.get("debounce")
        self.throttle = options.get("throttle")
        self.rate_limit = options.get("rate_limit")
        self.priority = options.get("priority")
        self.batch = options.get("batch")
        self.cron = read_cron(options.get("cron"))
        self.idempotency = options.get("idempotency")
        # The failure handler is a function with runs of its own, so a backend must register it as well.
        self.uses = (*uses, self.on_failure) if self.on_failure else tuple(uses)
        self._check_rules()
        if self.cron is not None and not (self.takes_tick or _takes(self, None)):
            raise DefinitionError(
                f"function {id!r}: a cron gives it a CronTick or None: write 'ctx: Context[CronTick]'"
            )

    @property
    def flow_control(self) -> tuple[str, ...]:
        """The rules of flow control that it uses, of :data:`~durably.core.flow_support.FLOW_CONTROL`."""
        queues = self.singleton is not None and self.singleton.mode == "queue"
        used = [name for name in FLOW_CONTROL if getattr(self, name, None)]
        return tuple("singleton_queue" if name == "singleton" and queues else name for name in used)

    @property
    def needs(self) -> Mapping[str, str]:
        """What it needs of the engine that not all have: the name of the gap, and how the option is written."""
        return {}

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The dotted paths in its input that its options name: option and path."""
        rules = ("singleton", "debounce", "throttle", "rate_limit", "batch")
        keys = [(name, rule.key) for name in rules if (rule := getattr(self, name))]
        keys += [("concurrency", each.key) for each in self.concurrency]
        return [(option, path) for option, path in [*keys, ("idempotency", self.idempotency)] if path]

    @property
    def takes_tick(self) -> bool:
        """Whether its input can be a :class:`~durably.core.flow.CronTick`; else a cron gives it ``None``."""
        return _takes(self, {"cron": "* * * * *", "at": "2030-01-31T09:00:00Z"})

    def _check_rules(self) -> None:
        where = f"function {self.id!r}"
        kind = self.input.type
        if self.batch is not None:
            kind = (get_args(kind) or (Any,))[0]  # a key is that of one event; the input is a list of them
            for option in ("debounce", "rate_limit", "idempotency", "priority"):
                if getattr(self, option):
                    raise DefinitionError(f"{where}: batch= does not go together with {option}=: take one of them out")
        for option, path in self.keys:
            if self.batch is not None and option != "batch":
                raise DefinitionError(f"{where}: a batch has no single value at the key of {option}: take the key out")
            check_path(path, kind, f"{where}, {option}")
        if self.cron is not None and not (self.takes_tick or _takes(self, None)):
            raise DefinitionError(f"{where}: a cron gives it a CronTick, or None: write 'ctx: Context[CronTick]'")

    @property
    def records_input(self) -> bool:
        """Whether what an event brings is judged in a step of its own, since it might not come to the same again."""
        return self.input.type is not FailedRun and self.input.reads_world

    def restore(self, result: Out, history: History) -> Out:
        """Return what a caller gets for a recorded result. An agent adds the conversation, which no record repeats."""
        return result


def _failure_handler(id: str, handle: Any) -> Function[FailedRun, object] | None:
    """Return the durable function that a run of ``id`` starts when it has failed for good."""
    if handle is None:
        return None
    where = f"function {id!r}: on_failure="
    if isinstance(handle, FunctionRef):
        raise DefinitionError(
            f"{where} makes a function durable itself: leave the decorator of {handle.id!r} out, or write an 'async "
            "def' that calls it with ctx.step.invoke"
        )
    if not is_async(handle) or not _takes_one(handle):
        raise DefinitionError(
            f"{where} is a function of the failed run, 'async def f(ctx: Context[FailedRun])', not {shown(handle)}"
        )
    return Function(f"{id}-failure", handle, input_type=FailedRun)


def _takes_one(handler: Callable[..., object]) -> bool:
    try:
        inspect.signature(handler).bind(None)
    except (TypeError, ValueError):
        return False
    return True


def _takes(function: Function[Any, Any], data: object) -> bool:
    try:
        function.input.validate(data, what="the input")
    except SerializationError:
        return False
    return True


def check_keys(function: Function[Any, Any], data: str) -> None:
    """Refuse an input without a value at the key of one of the function's rules; ``data`` is the input as JSON text.

    Raises:
        MissingKeyError: If there is none.
    """
    if function.keys:
        check_event_keys(function, Event(function.id, json.loads(data)))


def check_event_keys(function: Function[Any, Any], event: Event) -> None:
    """Refuse an event without a value at the key of one of a function's rules. Raises what `check_keys` raises."""
    for option, path in function.keys:
        if option != "batch":  # that is a key of each event in a batch
            key_value(event, path, function=function.id, option=option)


def check_triggers(id: str, triggers: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the events that start a function.

    Raises:
        DefinitionError: If ``triggers`` is one name instead of a list, or a name is none that an event can have.
    """
    if isinstance(triggers, str):
        raise DefinitionError(f"function {id!r}: triggers is a list of event names, such as ['order/paid']")
    try:
        for name in triggers:
            check_event_name(name)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"function {id!r}, triggers: {error}") from None
    return tuple(triggers)


_RULES: Mapping[str, tuple[type, str]] = {
    "singleton": (Singleton, 'Singleton("session_key", mode="queue")'),
    "debounce": (Debounce, 'Debounce(period="5s")'),
    "throttle": (Throttle, 'Throttle(limit=100, period="1m")'),
    "rate_limit": (RateLimit, 'RateLimit(limit=100, period="1m")'),
    "priority": (Priority, 'Priority("urgency")'),
    "batch": (Batch, 'Batch(max_size=50, timeout="5s")'),
    "concurrency": (Concurrency, "Concurrency(limit=5)"),
    "retention": (Retention, 'Retention(age="30 days")'),
    "retry_policy": (RetryPolicy, 'RetryPolicy(initial="1s")'),
}
"""The options that are objects: of which class, and how one is written."""


def _check_retries(id: str, retries: int) -> int:
    if not is_count(retries, 0):
        raise DefinitionError(f"function {id!r}: retries is a number of further attempts, 0 or more")
    return retries


def _check_crash_limit(id: str, limit: int) -> int:
    try:
        return check_crash_limit(limit)
    except ValueError as error:
        raise DefinitionError(f"function {id!r}: {error}") from None


def _check_code_change(id: str, on_code_change: Literal["fail", "wait"]) -> Literal["fail", "wait"]:
    if on_code_change not in ("fail", "wait"):
        raise DefinitionError(f"function {id!r}: on_code_change={on_code_change!r}: use 'fail' or 'wait'")
    return on_code_change


def function(
    id: str, *, input_type: object = None, output_type: object = None, **options: Unpack[FunctionOptions]
) -> Callable[[Callable[[Context[In]], Awaitable[Out]]], Function[In, Out]]:
    """Make a coroutine function durable.

    Args:
        id: The id, unique in a backend. Every record names the function by it: do not change it while runs are live.
        input_type: The type of the input. Default: what the argument's annotation ``Context[...]`` says.
        output_type: The type of the result. Default: the return annotation.
        options: See :class:`FunctionOptions`.

    Returns:
        A decorator for an ``async def`` with one argument, ``ctx: Context[Input]``.

    Raises:
        DefinitionError: If the function does not take exactly one argument annotated ``Context[...]``, is not
            ``async def`` or a callable around one, or an annotation has no JSON form.
    """
    check_function_id(id)
    # Without the caller's locals, annotations that name a class defined inside a test function would not resolve.
    names = sys._getframe(1).f_locals

    def decorate(handler: Callable[[Context[In]], Awaitable[Out]]) -> Function[In, Out]:
        types = _types(id, handler, names, input_type, output_type)
        return Function(id, uncached(handler), input_type=types[0], output_type=types[1], **options)

    return decorate


def _types(
    id: str, handler: Callable[..., object], names: Mapping[str, object], input_type: object, output_type: object
) -> tuple[object, object]:
    """Return the types of a function's input and result, from the options or the annotations of its code."""
    where = f"function {id!r}"
    if not is_async(handler):
        raise DefinitionError(f"{where} must be written with 'async def'")
    parameters = list(inspect.signature(handler).parameters)
    instead = {"return": "output_type", **({parameters[0]: "input_type"} if parameters else {})}
    options = {"input_type": input_type, "output_type": output_type}
    given = [name for name, option in instead.items() if options[option] is not None]
    hints = resolve_hints(handler, names, where, given=given, options=instead)
    context = hints.get(parameters[0], Context if input_type is not None else None) if len(parameters) == 1 else None
    if context is not Context and get_origin(context) is not Context:
        raise DefinitionError(
            f"{where} must take one argument, annotated with its input's type: 'async def f(ctx: Context[Order])', "
            "or 'ctx: Context[Any]' for any JSON"
        )
    takes = input_type if input_type is not None else (get_args(context) or (Any,))[0]
    gives = output_type if output_type is not None else awaited(hints.get("return", Any))
    for what, tp in (("input", takes), ("result", gives)):
        # By its annotation first: pydantic has no schema at all for some, and says so in other words.
        if is_lazy(tp) or is_lazy(None, codec_for(tp)._adapter.core_schema):
            raise DefinitionError(
                f"{where}: its {what} is an iterable, whose items are checked only while they are used: use a list, "
                "such as list[int]"
            )
    return takes, gives
