"""The port to engines: starting runs, looking at them, and what an engine says it can do."""

from __future__ import annotations

import asyncio
import difflib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Self, TypeVar, Unpack, overload

from pydantic import SecretStr

from durably.core.approval import ApprovalDecision, ApprovalRequest
from durably.core.approval_desk import PendingApproval, answer_approval, pending_approvals, request_id
from durably.core.attempts import Environment
from durably.core.call_timeout import within
from durably.core.deltas import DeltaStore, DeltaWriter
from durably.core.durations import Duration
from durably.core.error_trace import carry_traceback
from durably.core.errors import (
    AmbiguousRunIdError,
    DefinitionError,
    DurablyError,
    FunctionNotFoundError,
    InvokeError,
    RunCancelledError,
    RunExistsError,
    RunNotFoundError,
    SerializationError,
    UnsupportedFeatureError,
    error_from_json,
)
from durably.core.events import Event, check_events, same_json
from durably.core.flow_support import FLOW_CONTROL, NO_RULES, Support
from durably.core.functions import Function, check_keys
from durably.core.history import History, StepRecord
from durably.core.ids import check_run_id, check_tags, new_id
from durably.core.lifecycle_log import LifecycleLog
from durably.core.observer import Observer, Observers
from durably.core.reference import FunctionRef
from durably.core.retention import Pruned, Retention
from durably.core.run_events import outside_events
from durably.core.run_filter import FoundRuns, RunFilter, RunFilters, RunPage, check_limit, run_filter
from durably.core.run_view import LIVE, RunStatus, RunView
from durably.core.secrets import Redactor
from durably.core.steps import Probe
from durably.core.stream import StreamItem, StreamReader
from durably.core.trace import TEXT_LIMIT, Trace
from durably.core.worker_view import WorkerView

__all__ = ["Backend", "Capabilities", "Run", "RunStatus", "RunView"]

AMBIGUOUS = 3
"""How many runs are named where a part of an id stands for several."""

FIRST_LOOK = 0.05
"""Seconds between two looks at a run whose stream is read, while something happens in it."""

MANY_RUNS = 1_000_000
"""More than are looked through for what is pending."""

In = TypeVar("In")
Out = TypeVar("Out")

DRAIN_SECONDS = 30.0
"""How many seconds bodies are given when a worker stops, unless its program says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a backend can do. A part that is missing is refused at start-up, with the reason.

    Attributes:
        durable: Runs survive the process.
        multi_process: Several workers may share the runs.
        virtual_time: Sleeping costs no time.
        replay: A run can be replayed from the start after each step (``evict="always"``).
        max_payload_bytes: The largest value a step may return, as JSON.
        flow_control: How it keeps each rule of :data:`~durably.core.flow_support.FLOW_CONTROL`.
        gaps: What is missing, and why: feature to reason.
    """

    durable: bool
    multi_process: bool
    virtual_time: bool = False
    replay: bool = True
    max_payload_bytes: int
    flow_control: Mapping[str, Support] = field(default_factory=lambda: NO_RULES)
    gaps: Mapping[str, str] = field(default_factory=dict)


class Run(Generic[Out]):
    """A handle on one run.

    Attributes:
        id: The run.
        view: What was known of it when this handle was made or last refreshed.
    """

    def __init__(self, backend: Backend, function: FunctionRef[Any, Out], view: RunView) -> None:
        self._backend = backend
        self._function = function
        self.view = view

    @property
    def id(self) -> str:
        """The run's id."""
        return self.view.id

    @property
    def status(self) -> RunStatus:
        """Where it stood when this handle was made or last refreshed."""
        return self.view.status

    async def refresh(self) -> Self:
        """Look again."""
        self.view = await self._backend.view(self.id)
        return self

    async def result(self) -> Out:
        """Wait for the end and return what the function returned.

        Raises:
            InvokeError: If it failed.
            RunCancelledError: If it was cancelled, or skipped by ``singleton``.
        """
        await self.ended()
        if self.view.status is not RunStatus.COMPLETED:
            raise invoke_error(self.view)
        result: Out = self._function.output.decode(self.view.output or "null", step="")
        if isinstance(self._function, Function) and type(self._function).restore is not Function.restore:
            result = self._function.restore(result, await self.history())
        return result

    async def ended(self) -> Self:
        """Wait for the end, whatever it is, without raising its error; this handle, refreshed."""
        self.view = await self._backend.wait(self.id)
        return self

    async def cancel(self) -> None:
        """Stop it at its next step boundary, along with the runs it waits for. Final; nothing for an ended run."""
        await self._backend.cancel(self.id)
        await self.refresh()

    async def retry(self) -> Self:
        """Take up a failed run again, from its records, with the code of now; this handle, refreshed.

        What was committed stays committed. The step that failed gets a fresh set of attempts, and so does the function;
        a child that failed is retried with it. ``result()`` waits for the new end.

        Raises:
            RunNotFailedError: If it has not failed.
            UnsupportedFeatureError: If the engine cannot do this.
        """
        self.view = await self._backend.retry_run(self.id)
        return self

    async def fork(self, after: str, *, run_id: str | None = None) -> Run[Out]:
        """Start a new run with the beginning of this one's records, which then goes on with the code of now.

        Effects behind the cut get new idempotency keys, since these depend on the run's id.

        Args:
            after: The key of a step that has ended. The new run begins with all that was committed up to there, also by
                other branches; steps that had only begun are dropped.
            run_id: The id of the new run; left out, a random one.

        Raises:
            StepNotFoundError: If no such step has ended.
            DurablyError: If the id belongs to another run.
            UnsupportedFeatureError: If the engine cannot do this.
        """
        if run_id is not None:
            check_run_id(run_id)
        return Run(self._backend, self._function, await self._backend.fork_run(self.id, after, run_id or new_id()))

    async def history(self) -> History:
        """Its records so far."""
        return await self._backend.history(self.id)

    async def stream(self, from_offset: int = 0) -> AsyncIterator[StreamItem]:
        """What happens in it, from its start to its end, in any process.

        What concerns steps comes from the records; the pieces of streamed answers come from the backend's ``deltas``.

        Args:
            from_offset: Where to go on: one more than the offset of the last item that was seen.

        Raises:
            RunNotFoundError: If there is no such run any more.
        """
        reader = self._backend.stream_reader(self.id, self.view.function)
        store, wait = self._backend.deltas, FIRST_LOOK
        while not reader.ended:
            records = await self._backend.records_since(self.id, reader.records)
            deltas = [] if store is None else store.read(self.id, reader.deltas)
            for item in reader.read(records, deltas):
                if item.offset >= from_offset:
                    yield item
            if records or deltas:
                wait = FIRST_LOOK
            elif (await self._backend.view(self.id)).status is RunStatus.SKIPPED:
                return  # it has no last record
            if not reader.ended:
                await self._backend.watch(self.id, wait)
                wait = min(2 * wait, self._backend.longest_look)

    async def trace(self, *, limit: int | None = TEXT_LIMIT) -> Trace:
        """What happened in it so far. See :meth:`~durably.core.Trace.of`."""
        return Trace.of(await self.history(), limit=limit)

    def __repr__(self) -> str:
        return f"Run({self.id!r}, {self._function.id!r}, {self.status.value})"


def invoke_error(view: RunView, step: str = "") -> DurablyError:
    """The error for whoever waited for a run that did not complete."""
    if view.status is RunStatus.FAILED:
        error = view.error or {}
        ours = error.get("type") in DurablyError._classes
        message = str(error_from_json(error)) if ours else error.get("message", "")
        failed = InvokeError(
            step=step, error_type=error.get("type", "Error"), message=message, function=view.function, run_id=view.id
        )
        carry_traceback(failed, str(error.get("traceback") or ""))
        return failed
    return RunCancelledError(
        step=step,
        error_type="RunCancelledError",
        message=f"the run was {view.status.value}",
        function=view.function,
        run_id=view.id,
    )


class Backend(ABC):
    """An engine that runs durable functions.

    ``async with backend:`` starts a worker, which goes on with unfinished runs, and stops it at the end.

    Args:
        functions: What it runs. Functions they name in ``uses`` (failure handlers, sub-agents) come along.
        resources: Clients, pools and secrets by name, for bodies. They stay in this process and are never recorded.
        secrets: Texts to mask wherever something is written; every ``SecretStr`` among the resources is masked too.
        max_payload_bytes: The largest value a step may return, as JSON; left out, what the engine can keep.
        threads: Whether sync bodies run in threads.
        observers: Who is told what happens. See :class:`~durably.core.Observer`.
        deltas: Where the pieces of streamed answers are kept for :meth:`Run.stream`, or ``None``: nowhere.

    Attributes:
        drain_timeout: How many seconds bodies that run are given to end when the worker stops.

    Raises:
        DefinitionError: If two functions have one id.
        UnsupportedFeatureError: If a function asks for flow control, or a retention, that the engine does not have.
    """

    name: ClassVar[str]
    capabilities: Capabilities
    stream_reader: ClassVar[type[StreamReader]] = StreamReader
    longest_look: ClassVar[float] = 1.0
    """Seconds between two looks at a run whose stream is read, once nothing happens in it."""

    def __init__(
        self,
        functions: Sequence[Function[Any, Any]] = (),
        *,
        resources: Mapping[str, Any] | None = None,
        secrets: Iterable[str | SecretStr] = (),
        max_payload_bytes: int | None = None,
        threads: bool = True,
        observers: Iterable[Observer] = (),
        deltas: DeltaStore | None = None,
    ) -> None:
        self.functions: dict[str, Function[Any, Any]] = {}
        self.drain_timeout = DRAIN_SECONDS
        redactor = Redactor(secrets)
        self.deltas = deltas
        self.delta_writers = [] if deltas is None else [DeltaWriter(deltas)]
        self.environment = Environment(
            resources=dict(resources or {}),
            redactor=redactor,
            max_payload_bytes=max_payload_bytes or self.capabilities.max_payload_bytes,
            threads=threads,
            observers=Observers((LifecycleLog(), *self.delta_writers, *observers)),
        )
        self.environment.observers.redact = redactor.text
        redactor.add_from(self.resources)
        for function in functions:
            self._register(function)

    @property
    def resources(self) -> Mapping[str, Any]:
        """What bodies are given by name. Never recorded."""
        return self.environment.resources

    @property
    def redactor(self) -> Redactor:
        """What masks secrets in everything that is written."""
        return self.environment.redactor

    @property
    def probe(self) -> Probe | None:
        """Set by the harness to look on, and to crash, at each point; ``None`` in production."""
        return self.environment.probe

    @probe.setter
    def probe(self, probe: Probe | None) -> None:
        self.environment.probe = probe

    def _register(self, function: Function[Any, Any]) -> None:
        if not isinstance(function, Function):
            raise DefinitionError(f"{function!r} is not a durable function: decorate it with @function('its-id')")
        known = self.functions.get(function.id)
        if known is function:
            return
        if known is not None:
            raise DefinitionError(f"two functions have the id {function.id!r}: rename one")
        if function.retention is not None:
            self._check_gap("retention", f"retention= on function {function.id!r}")
        if function.on_code_change == "wait" and "on_code_change" in self.capabilities.gaps:
            raise self._lacks("on_code_change", f'on_code_change="wait" on function {function.id!r}')
        self.check_rules(function)
        self.functions[function.id] = function
        for used in function.uses:
            self._register(used)

    def _check_gap(self, gap: str, feature: str) -> None:
        """Refuse a feature that is a declared gap of this engine, with the reason."""
        reason = self.capabilities.gaps.get(gap)
        if reason is not None:
            raise UnsupportedFeatureError(backend=self.name, feature=feature, reason=reason)

    def check_rules(self, function: Function[Any, Any]) -> None:
        """Refuse a function whose rules of flow control this engine cannot keep.

        Raises:
            UnsupportedFeatureError: If it cannot.
            DefinitionError: If a rule is written in a way that it cannot read.
        """
        for rule in function.flow_control:
            support = self.capabilities.flow_control[rule]
            if support.how == "refused":
                raise UnsupportedFeatureError(
                    backend=self.name,
                    feature=f"{FLOW_CONTROL[rule]} on function {function.id!r}",
                    reason=f"{support.note}; take the option out, or choose an engine that has it",
                )

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *exc_info: object) -> None: ...

    @overload
    async def start(
        self,
        function: FunctionRef[In, Out],
        data: In | None = None,
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        timeout: Duration | None = None,
    ) -> Run[Out]: ...
    @overload
    async def start(
        self,
        function: str,
        data: Any = None,
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        timeout: Duration | None = None,
    ) -> Run[Any]: ...
    async def start(
        self,
        function: Any,
        data: Any = None,
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
        timeout: Duration | None = None,
    ) -> Run[Any]:
        """Start a run and return at once. Starting an id twice with one input attaches to the first.

        Args:
            function: The function or its id.
            data: Its input.
            run_id: 1 to 200 printable characters; left out, a random one.
            tags: Texts to find it by, such as ``["tenant:7"]``: at most 20, each 1 to 200 printable characters. A run
                that is attached to keeps those it has.
            timeout: How long it may wait for the engine; left out, as long as the engine does.

        Raises:
            JournalBusyError: If another process had the storage locked all the time. Nothing was started.
            TimeoutError: If a server has not answered in time. It may have started the run.
            TypeError: If the run id or a tag is not a text.
            ValueError: If it is not such a text, or the run id begins with ``durably.``.
            SerializationError: If the input does not fit the function's input type.
            RunExistsError: If the id belongs to a run of another function, or with another input.
            MissingKeyError: If it has nothing at the key of one of the function's rules.
            FunctionNotFoundError: If it is given as text, and no worker ever served such a function; where the engine
                knows. A `FunctionRef` starts a run that waits for its worker.
        """
        if run_id is not None:
            check_run_id(run_id)
        tags = check_tags(tags)
        reference = self.find_function(function)
        text = encode_data(reference, data)
        if isinstance(reference, Function) and not self.is_client:  # else the rules that its workers registered hold
            check_keys(reference, text)
        if isinstance(function, str):
            self._check_known(function)
        async with within(timeout):
            return Run(self, reference, await self.start_run(reference, text, run_id, tags))

    @overload
    async def invoke(
        self,
        function: FunctionRef[In, Out],
        data: In | None = None,
        *,
        run_id: str | None = None,
        tags: Sequence[str] = (),
    ) -> Out: ...
    @overload
    async def invoke(
        self, function: str, data: Any = None, *, run_id: str | None = None, tags: Sequence[str] = ()
    ) -> Any: ...
    async def invoke(
        self, function: Any, data: Any = None, *, run_id: str | None = None, tags: Sequence[str] = ()
    ) -> Any:
        """Start a run and wait for its result. Raises what :meth:`start` and :meth:`Run.result` raise."""
        return await (await self.start(function, data, run_id=run_id, tags=tags)).result()

    async def send(self, *events: Event) -> list[str]:
        """Hand over events from outside; returns their ids.

        Raises:
            TypeError: If one is not an event.
            ValueError: If one has a name, an id or a ``ts`` out of range.
            SerializationError: If the data of one has no JSON form. None of them is sent.
        """
        check_events(events)
        return await self.send_events(outside_events(events))

    async def run(self, run_id: str) -> Run[Any]:
        """A handle on a run by its id, or by how its id begins if no other begins so.

        Raises:
            RunNotFoundError: If there is none.
            AmbiguousRunIdError: If no run has this id, and several have ids that begin with it.
        """
        try:
            return self._handle(await self.view(run_id))
        except RunNotFoundError:
            (only,) = await self._beginning_with(run_id) or (None,)
            if only is None:
                raise
        return self._handle(await self.view(only))

    async def _beginning_with(self, prefix: str) -> list[str]:
        """The id of the one run whose id begins so, or nothing."""
        try:
            found = await self.find_runs(RunFilter(prefix=prefix), None, None, AMBIGUOUS)
        except UnsupportedFeatureError:  # an engine that cannot list runs knows whole ids only
            return []
        ids = [view.id for view in found.views]
        if len(ids) > 1:
            raise AmbiguousRunIdError(prefix=prefix, run_ids=ids)
        return ids if prefix else []

    async def runs(
        self, *, after: str | None = None, before: str | None = None, limit: int = 100, **filters: Unpack[RunFilters]
    ) -> RunPage[Run[Any]]:
        """Some of the runs that fit, newest first: the newest of all, or those next to a page that was got before.

        A page stays where it is while runs are added: going on from it shows no run twice, and leaves none out.

        Args:
            after: The ``next`` of a page: the runs that are older than those.
            before: The ``previous`` of a page: the runs that are newer than those.
            limit: How many at most.
            filters: See :class:`~durably.core.run_filter.RunFilters`.

        Raises:
            TypeError: If there is no such filter, or a value is of no use for it.
            ValueError: If a value is out of range, a cursor comes from elsewhere, or two are given.
            UnsupportedFeatureError: If the engine cannot list runs, or not by this.
        """
        check_limit(limit)
        if after is not None and before is not None:
            raise ValueError("after= and before= go two ways: give one of them")
        found = await self.find_runs(run_filter(filters), after, before, limit)
        return RunPage(tuple(map(self._handle, found.views)), found.next, found.previous)

    async def count_runs(self, **filters: Unpack[RunFilters]) -> dict[RunStatus, int]:
        """How many runs fit, by where they stand; a status that none has is left out. Raises what :meth:`runs` does."""
        return await self.tally_runs(run_filter(filters))

    def _handle(self, view: RunView) -> Run[Any]:
        return Run(self, self.find_function(view.function), view)

    async def prune(self, *, older_than: Duration | None = None, keep: int | None = None) -> Pruned:
        """Forget finished runs, with their records, and events that nobody needs any more.

        A run stays, whatever its age, while it is live, while somebody here waits for its end, and while the run that
        called it is live or has failed: that one may still ask for it. The id of an event is remembered for a day at
        least, and for ``older_than`` if that is longer.

        Args:
            older_than: Forget what ended longer ago than this.
            keep: How many finished runs of each function stay: the newest. With ``older_than`` too, a run goes once
                either of them is past. Without both, each function's ``retention=``, or the backend's, is applied.

        Returns:
            What went.

        Raises:
            UnsupportedFeatureError: If the engine keeps runs by rules of its own.
            DefinitionError: If the duration or the number is none.
        """
        self._check_gap("retention", "prune()")
        given = older_than is not None or keep is not None
        return await self.prune_runs(Retention(age=older_than, count=keep) if given else None)

    async def workers(self) -> list[WorkerView]:
        """The live workers of this backend's storage or queue.

        Raises:
            UnsupportedFeatureError: If the engine does not tell.
        """
        self._check_gap("workers", "workers()")
        return await self.live_workers()

    # -- approvals

    async def approvals(
        self,
        *,
        run: str | None = None,
        function: FunctionRef[Any, Any] | str | None = None,
        tool: str | None = None,
        after: PendingApproval | None = None,
        limit: int = 100,
    ) -> list[PendingApproval]:
        """The calls of tools that wait for a person, the oldest first.

        Args:
            run: The id of a run: only its own.
            function: A function: only those of its runs.
            tool: The name of a tool: only its calls.
            after: The last one of a page that was got before: those that come after it.
            limit: How many at most.

        Raises:
            RunNotFoundError: If there is no run of this id.
        """
        name = function.id if isinstance(function, FunctionRef) else function
        found = await pending_approvals(self, run, name, tool)
        if after is not None:
            found = [each for each in found if (each.asked_at, each.id) > (after.asked_at, after.id)]
        return found[:limit]

    async def approve(
        self,
        approval: str | PendingApproval | ApprovalRequest,
        *,
        by: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> ApprovalDecision:
        """Let a tool run that waits for a person.

        Args:
            approval: What is pending, or its id.
            by: Who decides; it is recorded.
            arguments: What the tool is to be run with instead of what the model asked for. The model is told.

        Raises:
            ApprovalNotPendingError: If it is not pending; the error says who answered before.
            SerializationError: If the arguments do not fit the tool, or this backend does not know it. Nothing is
                recorded then.
        """
        return await answer_approval(self, request_id(approval), approved=True, by=by, arguments=arguments)

    async def reject(
        self, approval: str | PendingApproval | ApprovalRequest, reason: str = "", *, by: str | None = None
    ) -> ApprovalDecision:
        """Refuse a call that waits for a person.

        Args:
            approval: What is pending, or its id.
            reason: Why, in words for the model.
            by: Who decides; it is recorded.

        Raises:
            ApprovalNotPendingError: See :meth:`approve`.
        """
        return await answer_approval(self, request_id(approval), approved=False, reason=reason, by=by)

    async def live_run_ids(self, function: str | None) -> list[str]:
        """The ids of the runs that have not ended, of one function or of all."""
        return [run.id for run in await self.runs(function=function, status=LIVE, limit=MANY_RUNS)]

    async def received(self, event: Event) -> Event | None:
        """What was received under the id of an event, or ``None`` if nothing was, or the engine does not know."""
        return None

    def now(self) -> float:
        """The time that this engine goes by, in seconds since 1970."""
        return time.time()

    # -- what an engine provides; programs use the handle, `Run`

    async def work_until(self, stop: asyncio.Event) -> None:
        """Wait until the worker is told to stop, or ends by itself; raises what it died of."""
        await stop.wait()

    async def prune_runs(self, rule: Retention | None) -> Pruned:
        """Forget finished runs by a rule; without one, by the functions' and the backend's own."""
        raise UnsupportedFeatureError(backend=self.name, feature="prune()", reason="it declares no way to forget runs")

    async def live_workers(self) -> list[WorkerView]:
        """The workers that live now."""
        raise UnsupportedFeatureError(backend=self.name, feature="workers()", reason="it declares no way to list them")

    @abstractmethod
    async def start_run(
        self, function: FunctionRef[Any, Any], data: str, run_id: str | None, tags: Sequence[str] = ()
    ) -> RunView:
        """Start a run, or find the one that has this id.

        Args:
            function: The function.
            data: The input as JSON text, checked.
            run_id: The id, or ``None`` for a random one.
            tags: Its tags, checked; a run that is there keeps its own.

        Raises:
            RunExistsError: If the id belongs to a run of another function, or with another input.
        """

    @abstractmethod
    async def find_runs(self, where: RunFilter, after: str | None, before: str | None, limit: int) -> FoundRuns:
        """A page of the runs that fit, newest first. See :meth:`runs`.

        Args:
            where: Which runs.
            after: The place behind which it begins, or ``None``.
            before: The place before which it ends, or ``None``.
            limit: How many at most.
        """

    @abstractmethod
    async def tally_runs(self, where: RunFilter) -> dict[RunStatus, int]:
        """How many runs fit, by where they stand."""

    @abstractmethod
    async def send_events(self, events: Sequence[Event]) -> list[str]:
        """Take events that have ids and were checked, in their order; their ids."""

    @abstractmethod
    async def view(self, run_id: str) -> RunView:
        """How a run stands.

        Raises:
            RunNotFoundError: If there is none of this id.
        """

    @abstractmethod
    async def wait(self, run_id: str) -> RunView:
        """Wait until a run has ended; how it ended. Raises what :meth:`view` raises."""

    @abstractmethod
    async def cancel(self, run_id: str) -> None:
        """Cancel a run and the runs it waits for; nothing for one that has ended. Raises what :meth:`view` raises."""

    @abstractmethod
    async def history(self, run_id: str) -> History:
        """The records of a run. Raises what :meth:`view` raises."""

    async def records_since(self, run_id: str, seq: int) -> Sequence[StepRecord]:
        """The records of a run from a number on. Raises what :meth:`view` raises."""
        return (await self.history(run_id)).records[seq:]

    async def watch(self, run_id: str, seconds: float) -> None:
        """Wait, in real time, until something may have happened in a run: so many seconds, or less."""
        await asyncio.sleep(seconds)

    async def retry_run(self, run_id: str) -> RunView:
        """Take up a failed run again; see :meth:`Run.retry`. An engine that cannot refuses."""
        raise self._lacks("retry", "Run.retry()")

    async def fork_run(self, run_id: str, after: str, new_id: str) -> RunView:
        """Start a run with the beginning of another one's records; see :meth:`Run.fork`.

        Args:
            run_id: The run that it comes from.
            after: The key of the step where that is cut.
            new_id: The id of the new run, checked.
        """
        raise self._lacks("fork", "Run.fork()")

    def _lacks(self, gap: str, feature: str) -> UnsupportedFeatureError:
        reason = self.capabilities.gaps.get(gap, "this engine has nothing of the kind")
        return UnsupportedFeatureError(backend=self.name, feature=feature, reason=reason)

    @property
    def is_client(self) -> bool:
        """Whether it serves no function, and only starts, sends to and looks at runs that other programs execute."""
        return self.capabilities.multi_process and not self.functions

    def known_functions(self) -> Collection[str] | None:
        """The ids of the functions that a worker has ever served, or ``None`` if this engine cannot tell."""
        return None

    def _check_known(self, function: str) -> None:
        known = None if function in self.functions else self.known_functions()
        if known is not None and function not in known:
            raise FunctionNotFoundError(function=function, near=difflib.get_close_matches(function, sorted(known)))

    def find_function(self, function: FunctionRef[Any, Any] | str) -> FunctionRef[Any, Any]:
        """The function of an id, or a reference to one that another program serves.

        Raises:
            DefinitionError: If it is code that this backend was not given, and it is no client.
        """
        if isinstance(function, str):
            return self.functions.get(function) or FunctionRef(function)
        served = self.is_client or not isinstance(function, Function) or self.functions.get(function.id) is function
        if not served:
            known = ", ".join(self.functions) or "none"
            raise DefinitionError(
                f"function {function.id!r} is not served by this backend (it serves {known}): add it to functions=[...]"
            )
        return function


def check_same_start(function: FunctionRef[Any, Any], run_id: str, known: str, recorded: Any, asked: Any) -> None:
    """Refuse to take a run for another one that was to have its id.

    Args:
        function: The function that was to be started.
        run_id: The id.
        known: The id of the function of the run that is there.
        recorded: The input of that, as JSON data.
        asked: The input that this was to have, as JSON data without secrets.

    Raises:
        RunExistsError: If the two functions or the two inputs differ.
    """
    if known != function.id or not _same_input(function, recorded, asked):
        raise RunExistsError(run_id=run_id, function=known, asked=function.id)


def _same_input(function: FunctionRef[Any, Any], recorded: Any, asked: Any) -> bool:
    if same_json(recorded, asked):
        return True
    try:  # one of the two may come from a program that does not know the function's own type, and fills in no defaults
        return same_json(*(json.loads(encode_data(function, data)) for data in (recorded, asked)))
    except SerializationError:
        return False


def encode_data(function: FunctionRef[Any, Any], data: Any) -> str:
    """The input of a run as JSON text, checked against the function's input type where it is known."""
    checked = function.input.validate(data, what=f"the input of {function.id!r}")
    text, _ = function.input.round_trip(checked, step="", limit=None, redact=str)
    return text
