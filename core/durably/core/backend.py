"""What programs use of every engine: starting runs, finding them, answering approvals."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, Unpack, overload

from pydantic import SecretStr

from durably.core.approval import ApprovalDecision, ApprovalRequest
from durably.core.approval_desk import AskingRun, PendingApproval, answer_approval, pending_approvals, request_id
from durably.core.call_timeout import within
from durably.core.deltas import DeltaStore, DeltaWriter
from durably.core.durations import Duration
from durably.core.engine import Engine
from durably.core.environment import Environment
from durably.core.error_text import shown
from durably.core.errors import (
    AmbiguousRunIdError,
    DefinitionError,
    FunctionNotFoundError,
    RunNotFoundError,
    UnsupportedFeatureError,
)
from durably.core.events import Event, check_events
from durably.core.flow_support import FLOW_CONTROL
from durably.core.functions import Function, check_keys
from durably.core.history import History
from durably.core.ids import check_names_no_secret, check_run_id, check_tags
from durably.core.lifecycle_log import LifecycleLog
from durably.core.mistakes import check_backend_options
from durably.core.observer import Observer, Observers
from durably.core.recorded_spending import recorded_spending
from durably.core.reference import FunctionRef
from durably.core.retention import Pruned, Retention
from durably.core.run import Run
from durably.core.run_events import outside_events
from durably.core.run_filter import RunFilter, RunFilters, RunPage, check_limit, run_filter
from durably.core.run_input import encode_data
from durably.core.run_view import LIVE, RunStatus, RunView
from durably.core.secrets import Redactor
from durably.core.services import EngineServices
from durably.core.sessions import SessionStore
from durably.core.steps import Probe
from durably.core.worker_view import WorkerView

AMBIGUOUS = 3
"""How many runs are named where a part of an id stands for several."""

MANY_RUNS = 1_000_000
"""More than are looked through for what is pending."""

logger = logging.getLogger("durably")

In = TypeVar("In")
Out = TypeVar("Out")

DRAIN_SECONDS = 30.0
"""How many seconds bodies are given when a worker stops, unless its program says otherwise."""


class Backend(Engine):
    """An engine that runs durable functions.

    ``async with backend:`` starts a worker, which resumes unfinished runs, and stops it at the end.

    Args:
        functions: The functions to run. Functions in their ``uses`` (failure handlers, sub-agents) are included.
        resources: Clients, pools and secrets by name, for bodies. They stay in this process and are never recorded.
        secrets: Texts to mask wherever something is written; every ``SecretStr`` among the resources is masked too.
        max_payload_bytes: The largest value a step may return, as JSON. Default: the engine's limit.
        threads: Whether sync bodies run in threads.
        observers: Receive the events of runs. See :class:`~durably.core.Observer`.
        deltas: The store for pieces of streamed answers, for :meth:`Run.stream`, or ``None``.
        services: Further services of the engine for agents. Default: none.

    Attributes:
        drain_timeout: How many seconds a stopping worker waits for running bodies.

    Raises:
        DefinitionError: If two functions have one id.
        UnsupportedFeatureError: If a function asks for flow control, or a retention, that the engine does not have.
    """

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
        services: EngineServices | None = None,
    ) -> None:
        check_backend_options(resources, secrets, max_payload_bytes)
        self.functions: dict[str, Function[Any, Any]] = {}
        self.drain_timeout = DRAIN_SECONDS
        self._sent: set[str] = set()
        redactor = Redactor(secrets)
        self.deltas = deltas
        self.delta_writers = [] if deltas is None else [DeltaWriter(deltas)]
        self.environment = Environment(
            resources=dict(resources or {}),
            redactor=redactor,
            max_payload_bytes=max_payload_bytes or self.capabilities.max_payload_bytes,
            threads=threads,
            observers=Observers((LifecycleLog(), *self.delta_writers, *observers)),
            services=services or EngineServices(),
        )
        self.environment.services.spending = partial(recorded_spending, self.history)
        self.environment.observers.redact = redactor.text
        redactor.add_from(self.resources)
        if not isinstance(functions, Sequence) or isinstance(functions, str):
            raise DefinitionError(f"functions= is a list of durable functions and agents, not {shown(functions)}")
        for function in functions:
            self._register(function)

    @property
    def resources(self) -> Mapping[str, Any]:
        """The resources of bodies, by name. Never recorded."""
        return self.environment.resources

    @property
    def redactor(self) -> Redactor:
        """Masks secrets in everything that is written."""
        return self.environment.redactor

    def redact(self, text: str) -> str:
        """Mask the registered secrets in a text."""
        return self.redactor.text(text)

    @property
    def probe(self) -> Probe | None:
        """Set by the harness to observe and to crash at each point; ``None`` in production."""
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
        self.check_needs(function)
        self.functions[function.id] = function
        for used in function.uses:
            self._register(used)

    def _check_gap(self, gap: str, feature: str) -> None:
        """Refuse a feature that is a declared gap of this engine, with the reason."""
        reason = self.capabilities.gaps.get(gap)
        if reason is not None:
            raise UnsupportedFeatureError(backend=self.name, feature=feature, reason=reason)

    def check_needs(self, function: Function[Any, Any]) -> None:
        """Refuse a function that needs what this engine does not offer.

        Raises:
            UnsupportedFeatureError: If it does.
        """
        services = self.environment.services
        offered = {"sessions": services.sessions, "steering": services.waiting}
        for need, written in function.needs.items():
            if offered[need] is None:
                raise self._lacks(need, f"{written} of agent {function.id!r}")

    @property
    def sessions(self) -> SessionStore:
        """The session store of agents with ``sessions="backend"``.

        Raises:
            UnsupportedFeatureError: If the engine has none.
        """
        if self.environment.services.sessions is None:
            raise self._lacks("sessions", "sessions of its own")
        return self.environment.services.sessions

    def check_rules(self, function: Function[Any, Any]) -> None:
        """Refuse a function whose rules of flow control this engine cannot keep.

        Raises:
            UnsupportedFeatureError: If it cannot.
            DefinitionError: If it cannot read a rule.
        """
        for rule in function.flow_control:
            support = self.capabilities.flow_control[rule]
            if support.how == "refused":
                raise UnsupportedFeatureError(
                    backend=self.name,
                    feature=f"{FLOW_CONTROL[rule]} on function {function.id!r}",
                    reason=f"{support.note}; take the option out, or choose an engine that has it",
                )

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
        """Start a run and return at once. A second start with the same id and input attaches to the first run.

        Args:
            function: The function or its id.
            data: Its input.
            run_id: 1 to 200 printable characters; left out, a random one.
            tags: Texts to filter runs by, such as ``["tenant:7"]``: at most 20, each 1 to 200 printable characters. An
                existing run keeps its tags.
            timeout: How long to wait for the engine. Default: the engine's own limit.

        Raises:
            JournalBusyError: If another process kept the storage locked. Nothing was started.
            EngineUnavailableError: If a server does not answer. It may have started the run.
            TimeoutError: If a server has not answered in time. It may have started the run.
            TypeError: If the run id or a tag is not a text.
            ValueError: If it is not such a text, or contains a registered secret, or the run id begins with
                ``durably.``.
            SerializationError: If the input does not fit the function's input type.
            RunExistsError: If the id belongs to a run of another function, or with another input.
            MissingKeyError: If it has nothing, or a registered secret, at the key of one of the function's rules.
            FunctionNotFoundError: If the id is given as text, and the engine knows that no worker ever served it. A
                `FunctionRef` starts a run that waits for its worker.
        """
        if run_id is not None:
            check_run_id(run_id)
            check_names_no_secret(run_id, "the run id", self.redact)
        tags = check_tags(tags)
        for tag in tags:
            check_names_no_secret(tag, "a tag", self.redact)
        reference = self.find_function(function)
        text = encode_data(reference, data)
        if isinstance(reference, Function) and not self.is_client:  # else the rules that its workers registered hold
            check_keys(reference, self.redact(text))
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
        """Send events, and return their ids.

        Raises:
            TypeError: If one is not an event.
            ValueError: If one has a name, an id or a ``ts`` out of range, or a registered secret in its name or id.
            SerializationError: If the data of one has no JSON form. None of them is sent.
        """
        check_events(events, self.redact)
        self._warn_of_unheard(events)
        return await self.send_events(outside_events(events, self.environment.observers.traceparent()))

    def hears(self, event_name: str) -> bool:
        """Return whether an event starts a function or a run waits for it; true if the engine cannot tell."""
        return True

    def _warn_of_unheard(self, events: Sequence[Event]) -> None:
        for name in {event.name for event in events} - self._sent:
            self._sent.add(name)  # said once: whoever sends to another program knows why
            if not self.hears(name):
                logger.warning(
                    "nobody hears the event %r: no function has it among its triggers=, and no run waits for it", name
                )

    async def run(self, run_id: str) -> Run[Any]:
        """Return a handle on a run, by its id or a unique prefix of it.

        Raises:
            TypeError: If the id is not a text.
            RunNotFoundError: If there is none.
            AmbiguousRunIdError: If no run has this id, and several ids begin with it.
        """
        if not isinstance(run_id, str):
            raise TypeError(f"a run id is a text, such as 'order-7', not {shown(run_id)}")
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
        """Return a page of matching runs, the newest first: the first page, or the one next to an earlier page.

        Pages are stable while runs are added: paging repeats no run and skips none.

        Args:
            after: The ``next`` of a page, for older runs.
            before: The ``previous`` of a page, for newer runs.
            limit: How many at most.
            filters: See :class:`~durably.core.run_filter.RunFilters`.

        Raises:
            TypeError: If a filter does not exist, or its value has the wrong type.
            ValueError: If a value is out of range, a cursor comes from elsewhere, or two are given.
            UnsupportedFeatureError: If the engine cannot list runs, or has not this filter.
        """
        check_limit(limit)
        if after is not None and before is not None:
            raise ValueError("after= and before= go two ways: give one of them")
        found = await self.find_runs(run_filter(filters), after, before, limit)
        return RunPage(tuple(map(self._handle, found.views)), found.next, found.previous)

    async def count_runs(self, **filters: Unpack[RunFilters]) -> dict[RunStatus, int]:
        """Return the number of matching runs by status, without zeros. Raises what :meth:`runs` does."""
        return await self.tally_runs(run_filter(filters))

    def _handle(self, view: RunView) -> Run[Any]:
        return Run(self, self.find_function(view.function), view)

    async def prune(self, *, older_than: Duration | None = None, keep: int | None = None) -> Pruned:
        """Delete finished runs, with their records, and events that nobody needs any more.

        A run is kept, whatever its age, while it is live, while somebody in this process waits for its end, and while
        its caller is live or has failed. The id of an event is remembered for at least a day, and for ``older_than`` if
        that is longer.

        Args:
            older_than: Delete runs that ended longer ago than this.
            keep: How many of the newest finished runs of each function to keep. With ``older_than`` too, a run is
                deleted when either limit is passed. Without both, each function's ``retention=``, or the backend's,
                applies.

        Returns:
            The numbers of what was deleted.

        Raises:
            UnsupportedFeatureError: If the engine has its own rules for finished runs.
            DefinitionError: If the duration or the number is invalid.
        """
        self._check_gap("retention", "prune()")
        given = older_than is not None or keep is not None
        return await self.prune_runs(Retention(age=older_than, count=keep) if given else None)

    async def workers(self) -> list[WorkerView]:
        """Return the live workers of this backend's storage or queue.

        Raises:
            UnsupportedFeatureError: If the engine does not report workers.
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
        """Return the tool calls that wait for approval, the oldest first.

        Args:
            run: Only those of the run with this id.
            function: Only those of this function's runs.
            tool: Only the calls of the tool with this name.
            after: The last item of an earlier page.
            limit: How many at most.

        Raises:
            RunNotFoundError: If there is no run of this id.
        """
        name = function.id if isinstance(function, FunctionRef) else function
        return await pending_approvals(self, run, name, tool, after=after, limit=limit)

    async def approve(
        self,
        approval: str | PendingApproval | ApprovalRequest,
        *,
        by: str | None = None,
        arguments: dict[str, Any] | None = None,
    ) -> ApprovalDecision:
        """Approve a call that waits for approval.

        Args:
            approval: What is pending, or its id.
            by: Who decides; it is recorded.
            arguments: What the tool is to be run with instead of what the model asked for. The model is told.

        Raises:
            ApprovalNotPendingError: If it is not pending; the error says who answered first.
            SerializationError: If the arguments do not fit the tool, or this backend does not know it. Nothing is
                recorded then.
        """
        return await answer_approval(self, request_id(approval), approved=True, by=by, arguments=arguments)

    async def reject(
        self, approval: str | PendingApproval | ApprovalRequest, reason: str = "", *, by: str | None = None
    ) -> ApprovalDecision:
        """Reject a call that waits for approval.

        Args:
            approval: What is pending, or its id.
            reason: Why, as a text for the model.
            by: Who decides; it is recorded.

        Raises:
            ApprovalNotPendingError: See :meth:`approve`.
        """
        return await answer_approval(self, request_id(approval), approved=False, reason=reason, by=by)

    async def live_run_ids(self, function: str | None) -> list[str]:
        """Return the ids of the runs that have not ended, of one function or of all."""
        return [run.id for run in await self.runs(function=function, status=LIVE, limit=MANY_RUNS)]

    async def asking_runs(self, function: str | None) -> list[AskingRun]:
        """Return the runs that may wait for approval. It may return more: their records are read.

        An engine that knows which runs wait, and since when, overrides it.
        """
        return [AskingRun(run_id) for run_id in await self.live_run_ids(function)]

    async def question_history(self, run_id: str) -> History:
        """Return the records that say where the questions of a run stand. It may return more, all of them at most.

        These are the first and the last record of the run, and those of steps whose ids begin with one of
        ``QUESTION_STEPS``. An engine that can read these alone overrides it.
        """
        return await self.history(run_id)

    @property
    def is_client(self) -> bool:
        """Whether it has no functions, and only starts, reads and signals runs that other programs execute."""
        return self.capabilities.multi_process and not self.functions

    def _check_known(self, function: str) -> None:
        known = None if function in self.functions else self.known_functions()
        if known is not None and function not in known:
            raise FunctionNotFoundError(function=function, near=difflib.get_close_matches(function, sorted(known)))

    def find_function(self, function: FunctionRef[Any, Any] | str) -> FunctionRef[Any, Any]:
        """Return the function of an id, or a reference to one that another program serves.

        Raises:
            DefinitionError: If this backend does not have the function, and is no client.
        """
        if isinstance(function, str):
            return self.functions.get(function) or FunctionRef(function)
        if not isinstance(function, FunctionRef):
            raise DefinitionError(
                f"{shown(function)} is no durable function: decorate it with @function('its-id') and add it to "
                "functions=[...]"
            )
        served = self.is_client or not isinstance(function, Function) or self.functions.get(function.id) is function
        if not served:
            known = ", ".join(self.functions) or "none"
            raise DefinitionError(
                f"function {function.id!r} is not served by this backend (it serves {known}): add it to functions=[...]"
            )
        return function
