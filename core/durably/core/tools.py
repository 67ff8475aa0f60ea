"""Tools: plain functions that a model may call.

Owns: what a tool is, and how one call becomes a durable step. Does not own: how a function becomes a tool
(``tool_definition.py``), the schema of its arguments (``tool_arguments.py``), tools that an agent answers
(``delegation.py``), and how a person is asked (``approval.py``).
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from durably.core.annotations import reads_world
from durably.core.approval import ApprovalQuestion, name_question, wait_for_approval
from durably.core.durations import timeout_seconds
from durably.core.error_text import MESSAGE_LIMIT, error_text, shown, type_name, writable
from durably.core.errors import DefinitionError, NonRetriableError, SerializationError, StepError, ToolError
from durably.core.functions import Function
from durably.core.left_out import is_falsy, is_none
from durably.core.messages import ContentPart, FilePart, JSONObject, TextPart, ToolCall, ToolResultMessage
from durably.core.model import ToolSpec, Usage
from durably.core.serialization import Codec, codec_for
from durably.core.steps import Duration, StepAPI
from durably.core.tool_arguments import complaint_about, complaint_of, parameter_names
from durably.core.tool_context import AskedContext, RunContext

__all__ = [
    "NO_CONTEXT",
    "Effect",
    "Tool",
    "ToolOutcome",
    "ToolResult",
    "check_tool_name",
    "refused",
    "told_first",
    "what_was_run",
]

Effect = Literal["pure", "idempotent", "at_most_once"]
"""What a second execution of a tool's body would do.

``pure``: the tool only reads, so nothing. ``idempotent``: nothing more, since the receiver knows the idempotency key.
``at_most_once``: harm. The body is never run twice; a crash inside it is reported to the model as *interrupted*.
"""


NO_CONTEXT = RunContext()
"""Of a run that says nothing of whom it works for."""

TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolOutcome(BaseModel):
    """The outcome of a tool call, as the step ``tool-<name>`` records it. Plain text is recorded as a string instead.

    Attributes:
        content: What the model reads.
        is_error: Whether the call failed.
        usage: The tokens that another agent spent on the call, or ``None`` if no agent was asked.
        cost: US dollars for those tokens, or ``None`` if the price is not known.
        tool_calls: How many calls of tools that agent made.
        metadata: What the tool said for programs. The model does not see it.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    content: str | list[ContentPart]
    is_error: bool = Field(default=False, exclude_if=is_falsy)
    usage: Usage | None = Field(default=None, exclude_if=is_none)
    cost: float | None = Field(default=None, exclude_if=is_none)
    tool_calls: int = Field(default=0, exclude_if=is_falsy)
    metadata: JSONObject | None = Field(default=None, exclude_if=is_falsy)

    def message(self, call: ToolCall) -> ToolResultMessage:
        """Return the message by which the model hears of it."""
        return ToolResultMessage(
            call_id=call.id, name=call.name, content=self.content, is_error=self.is_error, metadata=self.metadata
        )


class ToolResult(BaseModel):
    """A tool's result with files, metadata, or an error.

    Args:
        content: What the model sees: a text, or a list of texts, images and files.
        metadata: A JSON object for programs. It is recorded, and is part of ``AgentResult.messages`` and of traces. The
            model does not see it.
        is_error: Whether the call failed.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    content: str | list[ContentPart]
    metadata: JSONObject | None = None
    is_error: bool = False

    def outcome(self) -> ToolOutcome:
        """Return it in the form of a record."""
        return ToolOutcome(content=self.content, is_error=self.is_error, metadata=self.metadata)


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A function that a model can call. :func:`tool` makes one.

    Attributes:
        spec: What the model sees of it.
        fn: The function.
        arguments: The pydantic model of its arguments.
        result_type: The return annotation: the type of the result in JSON.
        retries: How often an unexpected exception is retried. ``None`` means as often as the agent's other steps.
        timeout: Seconds, or a ``timedelta``, that one attempt may take.
        effect: What a second execution would do. See :data:`Effect`.
        on_error: What happens when no attempt is left: ``"report"`` gives the model an error result, ``"raise"`` fails
            the run.
        requires_approval: Whether each call needs approval, or a sync function of the arguments that decides it, such
            as ``lambda amount: amount > 100``. Its verdict is recorded. See :mod:`durably.core.approval`.
        approval_timeout: How long to wait for approval; ``None`` for no limit. After the timeout the call is rejected.
        uses: Durable functions it calls. A backend registers them along with the agent.
        asks: The parameter that receives a :class:`~durably.core.ToolContext`, or ``None``.
    """

    spec: ToolSpec
    fn: Callable[..., Any]
    arguments: type[BaseModel]
    result_type: object = Any
    retries: int | None = None
    timeout: Duration | None = None
    effect: Effect = "idempotent"
    on_error: Literal["report", "raise"] = "report"
    requires_approval: bool | Callable[..., bool] = False
    approval_timeout: Duration | None = None
    uses: tuple[Function[Any, Any], ...] = ()
    asks: AskedContext | None = None

    @cached_property
    def is_async(self) -> bool:
        """Whether the function, or the ``__call__`` of an object, is a coroutine function."""
        return inspect.iscoroutinefunction(self.fn) or inspect.iscoroutinefunction(getattr(self.fn, "__call__", None))  # noqa: B004

    @property
    def name(self) -> str:
        """Its name for the model."""
        return self.spec.name

    def bound(self, agent: str, context: Codec) -> Tool:
        """Return this tool for an agent, bound to the agent's context.

        Args:
            agent: The agent's name.
            context: Reads its context.

        Raises:
            DefinitionError: If the tool needs another type of context.
        """
        if self.asks is None:
            return self
        return replace(self, asks=self.asks.bound(context, f"agent {agent!r}: its tool {self.name!r}"))

    @cached_property
    def _parameters(self) -> Mapping[str, str]:
        return parameter_names(self.arguments)

    @cached_property
    def reads_world(self) -> bool:
        """Whether validating the same arguments again may give another verdict."""
        return reads_world(self.arguments.__pydantic_core_schema__)

    def check(self, call: ToolCall) -> str | None:
        """Return what is wrong with a call's arguments, as a text for the model, or ``None``."""
        return complaint_about(self.arguments, call.arguments, self.name)

    @property
    def draws_on_budget(self) -> bool:
        """Whether what answers a call is given what is left of the run's budget."""
        return False

    def checks_in_step(self, call: ToolCall) -> bool:
        """Return whether the verdict on a call must be recorded, because a replay could differ.

        The verdict on other calls follows from the records, and a refused one leaves no step.
        """
        if self.reads_world or self.requires_approval:
            return True
        complaint = self.check(call)
        return complaint is not None and writable(complaint, limit=MESSAGE_LIMIT) != complaint

    async def answer(
        self, step: StepAPI, call: ToolCall, run: RunContext = NO_CONTEXT, *, checked_in_step: bool = False
    ) -> str | ToolOutcome:
        """Answer one call: validate its arguments, request approval if needed, and run it.

        Args:
            step: The steps of the run.
            call: What the model asks for.
            run: What the tool may know of the run.
            checked_in_step: Whether a step checks the arguments, so that the verdict is recorded and holds on replay.

        Raises:
            StepError: If the attempts are used up and ``on_error`` is ``"raise"``.
            SerializationError: If the result cannot be recorded and ``on_error`` is ``"raise"``.
        """
        complaint, edited = None if checked_in_step else self.check(call), ""
        try:
            if complaint is None and self.requires_approval:
                question = self.asking(call, run) if checked_in_step else ()
                verdict = await wait_for_approval(step, call, self.approval_timeout, *question)
                complaint = verdict.refusal
                if verdict.arguments is not None:
                    call = call.model_copy(update={"arguments": verdict.arguments})
                    edited = what_was_run(call.name, verdict.arguments)
            if complaint is None:
                return told_first(edited, await self.act(step, call, run))
        except (StepError, SerializationError) as error:
            if self.on_error == "raise":
                raise
            complaint = edited + str(error)
        return ToolOutcome(content=complaint, is_error=True)

    async def act(self, step: StepAPI, call: ToolCall, run: RunContext = NO_CONTEXT) -> str | ToolOutcome:
        """Run one call in a durable step.

        Args:
            step: The steps of the run.
            call: What the model asks for.
            run: What the tool may know of the run.

        Returns:
            Text for the model, or an outcome that says more.

        Raises:
            StepError: If the attempts are used up.
            SerializationError: If the result has no JSON form, or is larger than the backend allows.
        """
        body: Callable[..., Any] = self.run if self.is_async else self.run_sync
        outcome: str | ToolOutcome = await step.run(
            f"tool-{self.name}",
            body,
            call.arguments,
            *([run] if self.asks else []),
            retries=self.retries,
            timeout=self.timeout,
            at_most_once=self.effect == "at_most_once",
        )
        return outcome

    def asking(self, call: ToolCall, run: RunContext) -> tuple[Any, ...]:
        """Return the body of ``request-<name>``, which checks a call and names the question, and its arguments.

        Args:
            call: What the model asks for.
            run: What is known of the run.
        """
        return self.question, call.arguments

    def question(self, arguments: JSONObject | str) -> ApprovalQuestion:
        """Validate the arguments and return the id of the approval request: the body of ``request-<name>``."""
        try:
            needed = self.needs_approval(arguments)
        except ToolError as error:
            return name_question(complaint=error_text(error))
        if not needed:
            return name_question(needed=False)
        timeout = timeout_seconds(self.approval_timeout, f"tool {self.name!r}: approval_timeout")
        return name_question(tool=self.name, arguments=arguments, timeout=timeout)

    def needs_approval(self, arguments: JSONObject | str) -> bool:
        """Return whether a person must approve a call with these arguments.

        Raises:
            ToolError: If the arguments do not fit the tool.
        """
        parsed = self._parse(arguments)
        predicate = self.requires_approval
        return self._is_needed(predicate, parsed) if callable(predicate) else predicate

    def _is_needed(self, predicate: Callable[..., bool], parsed: dict[str, object]) -> bool:
        names = inspect.signature(predicate).parameters
        needed = predicate(**{name: value for name, value in parsed.items() if name in names})
        if not isinstance(needed, bool):
            raise NonRetriableError(
                f"requires_approval= of tool {self.name!r} must return True or False, not {shown(needed)}"
            )
        return needed

    async def run(self, arguments: JSONObject | str, run: RunContext | None = None) -> str | ToolOutcome:
        """Run an async tool: the body of the step."""
        try:
            return await self._finish(self._call(arguments, run))
        except ToolError as error:
            return refused(error)

    def run_sync(self, arguments: JSONObject | str, run: RunContext | None = None) -> str | ToolOutcome:
        """Run a sync tool: the body of the step, in a thread."""
        try:
            value = self._call(arguments, run)
            if inspect.isawaitable(value):
                # A sync function around an async one. Whoever runs a body awaits an awaitable, in the event loop.
                return cast(str, self._finish(value))
            return self._outcome(value)
        except ToolError as error:
            return refused(error)

    async def _finish(self, value: Any) -> str | ToolOutcome:
        try:
            while inspect.isawaitable(value):
                value = await value
            return self._outcome(value)
        except ToolError as error:
            return refused(error)

    def _call(self, arguments: JSONObject | str, run: RunContext | None) -> Any:
        parsed = self._parse(arguments)
        return self.fn(**parsed, **({} if self.asks is None else self.asks.given(run)))

    def _parse(self, arguments: JSONObject | str) -> dict[str, object]:
        """Return the arguments as the function takes them.

        Raises:
            ToolError: If they do not fit, whatever a validator raised. The step records the verdict.
        """
        if isinstance(arguments, str):
            raise ToolError(
                f"invalid arguments for {self.name}: they cannot be kept as a JSON object: write one object, nested "
                "less than 100 deep, without half of a surrogate pair (\\ud800) or an integer of more than 4,000 digits"
            )
        try:
            parsed = self.arguments.model_validate(arguments)
        except Exception as error:
            raise ToolError(complaint_of(error, self.name)) from error
        return {parameter: getattr(parsed, field) for field, parameter in self._parameters.items()}

    def _outcome(self, value: object) -> str | ToolOutcome:
        if isinstance(value, str):
            return value
        if isinstance(value, ToolResult):
            return value.outcome()
        if isinstance(value, TextPart | FilePart):
            return ToolOutcome(content=[value])
        if isinstance(value, list) and value and all(isinstance(part, TextPart | FilePart) for part in value):
            return ToolOutcome(content=value)
        step = f"tool-{self.name}"
        try:
            return codec_for(self.result_type).show(value, step=step)
        except SerializationError:
            _close(value)
            raise
        except Exception as error:  # a serializer of the user's; as the tool's own error it would be tried again
            raise SerializationError(
                f"the tool ran, but its result cannot be written as JSON: {type_name(error)}: {error_text(error)}",
                step=step,
            ) from error


def what_was_run(name: str, arguments: JSONObject) -> str:
    """What the model is told first of a call whose arguments a person changed."""
    return f"A person changed the arguments: {name} was run with {json.dumps(arguments, ensure_ascii=False)}\n"


def told_first(note: str, outcome: str | ToolOutcome) -> str | ToolOutcome:
    """An outcome that begins with a note to the model, if there is one."""
    if not note:
        return outcome
    if isinstance(outcome, str):
        return note + outcome
    content = outcome.content
    told: str | list[ContentPart] = note + content if isinstance(content, str) else [TextPart(text=note), *content]
    return outcome.model_copy(update={"content": told})


def refused(error: ToolError) -> ToolOutcome:
    """Return what the model is told of a tool that declined."""
    return ToolOutcome(content=error_text(error), is_error=True)


def _close(value: object) -> None:
    """Close coroutines that nobody will await: Python would warn of each."""
    seen: set[int] = set()  # a value without JSON may hold itself
    left = [value]
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if inspect.iscoroutine(each):
            each.close()
        elif isinstance(each, list | tuple | set | frozenset):
            left += each
        elif isinstance(each, dict):
            left += each.values()


def check_tool_name(name: str) -> None:
    """Refuse a tool's name that a provider would refuse.

    Raises:
        DefinitionError: If it is not 1 to 64 letters, digits, ``_`` and ``-``.
    """
    if not TOOL_NAME.fullmatch(name):
        raise DefinitionError(
            f"tool {name!r}: providers want a name of 1 to 64 letters, digits, '_' and '-', such as name='look_up'"
        )
