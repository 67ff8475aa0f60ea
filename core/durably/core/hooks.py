"""Hooks: code of the user's before and after each call of a model and of a tool.

Owns: the protocol, and how a hook is asked. Does not own: what becomes of its verdict (``loop.py``).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from durably.core.error_text import shown
from durably.core.errors import DefinitionError
from durably.core.messages import Message, ToolCall, Transcript
from durably.core.model import ModelResponse
from durably.core.steps import StepAPI
from durably.core.tools import ToolOutcome

__all__ = [
    "HookBodies",
    "HookedParts",
    "Hooks",
    "Refusal",
    "after_model",
    "after_tool",
    "before_model",
    "before_tool",
    "check_hooks",
]


class Refusal(BaseModel):
    """A hook's refusal of a model call or a tool call.

    Args:
        reason: Around a model call it becomes the run's text, and the run ends as ``refused``. Around a tool call the
            model gets it as the tool's error.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    type: Literal["refusal"] = "refusal"
    reason: str


class Hooks:
    """Your code before and after each model call and each tool call. Subclass it and override methods.

    Each method may be sync or async, and returns ``None`` to change nothing. It runs in its own step, whose record has
    its result: it may have side effects, is retried like any step, and does not run again on replay. If its last
    attempt fails, the run fails. With ``in_steps = False`` it leaves no record and runs again on every replay: it must
    then be sync, have no side effects, and return the same result each time.

    Attributes:
        in_steps: Whether each method runs in its own step.
    """

    in_steps: ClassVar[bool] = True

    def before_model(self, messages: Sequence[Message]) -> Any:
        """Check the conversation before a model call: the step ``before-think``.

        Args:
            messages: The messages of this run that the model sees, oldest first.

        Returns:
            ``None``, or a :class:`Refusal`: the model is not called.
        """

    def after_model(self, response: ModelResponse) -> Any:
        """Check an answer before it is used: the step ``after-think``.

        Args:
            response: The answer.

        Returns:
            ``None``, another :class:`~durably.core.model.ModelResponse` instead, or a :class:`Refusal`.
        """

    def before_tool(self, call: ToolCall) -> Any:
        """Check a call before approval is requested and before its tool runs: the step ``before-tool-<name>``.

        Args:
            call: The call.

        Returns:
            ``None``, a :class:`~durably.core.messages.ToolCall` with the arguments to use, or a :class:`Refusal`.
        """

    def after_tool(self, call: ToolCall, outcome: str | ToolOutcome) -> Any:
        """Check a result before the model gets it: the step ``after-tool-<name>``.

        Args:
            call: The call.
            outcome: What the tool returned.

        Returns:
            ``None``, a text or :class:`~durably.core.tools.ToolOutcome` instead, or a :class:`Refusal`.
        """


_VERDICTS: dict[str, Any] = {
    "before_model": Refusal | None,
    "after_model": Refusal | ModelResponse | None,
    "before_tool": Refusal | ToolCall | None,
    "after_tool": Refusal | ToolOutcome | str | None,
}
"""What each method may return."""


class HookBodies:
    """The bodies of the steps in which hooks are asked: an agent has them as methods, so that any worker finds them."""

    __slots__ = ()

    hooks: tuple[Hooks, ...]

    async def ask_before_model(self, index: int, transcript: Transcript) -> Any:
        """Ask one hook: the body of ``before-think``."""
        return await _verdict(self.hooks[index].before_model, transcript.messages)

    async def ask_after_model(self, index: int, response: ModelResponse) -> Any:
        """Ask one hook: the body of ``after-think``."""
        return await _verdict(self.hooks[index].after_model, response)

    async def ask_before_tool(self, index: int, call: ToolCall) -> Any:
        """Ask one hook: the body of ``before-tool-<name>``."""
        return await _verdict(self.hooks[index].before_tool, call)

    async def ask_after_tool(self, index: int, call: ToolCall, outcome: str | ToolOutcome) -> Any:
        """Ask one hook: the body of ``after-tool-<name>``."""
        return await _verdict(self.hooks[index].after_tool, call, outcome)


class HookedParts(Protocol):
    """What asking hooks needs of an agent. The methods are bodies of steps."""

    @property
    def hooks(self) -> tuple[Hooks, ...]: ...
    async def ask_before_model(self, index: int, transcript: Transcript) -> Any: ...
    async def ask_after_model(self, index: int, response: ModelResponse) -> Any: ...
    async def ask_before_tool(self, index: int, call: ToolCall) -> Any: ...
    async def ask_after_tool(self, index: int, call: ToolCall, outcome: str | ToolOutcome) -> Any: ...


def check_hooks(agent: str, hooks: Sequence[object]) -> tuple[Hooks, ...]:
    """Return the hooks of an agent.

    Raises:
        DefinitionError: If one is none, or one that leaves no record is async.
    """
    made = []
    for each in hooks if isinstance(hooks, Sequence) else [hooks]:
        if not isinstance(each, Hooks):
            raise DefinitionError(
                f"agent {agent!r}: hooks= is a list of objects of your own class(Hooks), such as [Guard()], not "
                f"{shown(each)}"
            )
        for name in _VERDICTS:
            if not each.in_steps and inspect.iscoroutinefunction(getattr(each, name)):
                raise DefinitionError(
                    f"agent {agent!r}: {type(each).__name__}.{name} is async, and in_steps is False: what waits for "
                    "the world needs a step, so leave in_steps as it is"
                )
        made.append(each)
    return tuple(made)


async def before_model(agent: HookedParts, step: StepAPI, transcript: Transcript) -> Refusal | None:
    """Ask before a model call."""
    for index in _with(agent, "before_model"):
        verdict = await _asked(agent, step, "before_model", "before-think", index, transcript)
        if verdict is not None:
            refused: Refusal = verdict
            return refused
    return None


async def after_model(agent: HookedParts, step: StepAPI, response: ModelResponse) -> ModelResponse | Refusal:
    """Ask after a model call; the answer, or what stands in its place."""
    for index in _with(agent, "after_model"):
        verdict = await _asked(agent, step, "after_model", "after-think", index, response)
        if isinstance(verdict, Refusal):
            return verdict
        if verdict is not None:  # what was found of the first one, when it was recorded, does not hold for this one
            kept = {name: getattr(response, name) for name in ("usage", "cost", "shares_budget", "budget_shares")}
            response = verdict.model_copy(update={**kept, "verdict": None, "checked_in_steps": True})
    return response


async def before_tool(agent: HookedParts, step: StepAPI, call: ToolCall) -> ToolCall | Refusal:
    """Ask before a tool call; the call, or what stands in its place."""
    for index in _with(agent, "before_tool"):
        verdict = await _asked(agent, step, "before_tool", f"before-tool-{call.name}", index, call)
        if isinstance(verdict, Refusal):
            return verdict
        if verdict is not None:  # of the call that the model made, whose answer this is, only the arguments change
            call = call.model_copy(update={"arguments": verdict.arguments})
    return call


async def after_tool(
    agent: HookedParts, step: StepAPI, call: ToolCall, outcome: str | ToolOutcome
) -> str | ToolOutcome:
    """Ask after a tool call; its outcome, or what stands in its place."""
    for index in _with(agent, "after_tool"):
        verdict = await _asked(agent, step, "after_tool", f"after-tool-{call.name}", index, call, outcome)
        if isinstance(verdict, Refusal):
            verdict = ToolOutcome(content=verdict.reason, is_error=True)
        outcome = outcome if verdict is None else _at_the_same_cost(verdict, outcome)
    return outcome


def _with(agent: HookedParts, method: str) -> list[int]:
    """The places of the hooks that have written a method."""
    base = getattr(Hooks, method)
    return [index for index, hook in enumerate(agent.hooks) if getattr(type(hook), method) is not base]


async def _verdict(method: Callable[..., Any], *args: object) -> Any:
    verdict = method(*args)
    return await verdict if inspect.isawaitable(verdict) else verdict


async def _asked(agent: HookedParts, step: StepAPI, method: str, step_id: str, index: int, *args: Any) -> Any:
    """The verdict of one hook, in a step or without a record."""
    hook = agent.hooks[index]
    if hook.in_steps:
        return await step.run(step_id, getattr(agent, f"ask_{method}"), index, *args, output_type=_VERDICTS[method])
    seen = [each.messages if isinstance(each, Transcript) else each for each in args]
    verdict = getattr(hook, method)(*seen)
    if not isinstance(verdict, _VERDICTS[method]):
        raise TypeError(f"{type(hook).__name__}.{method} must return {_VERDICTS[method]}, not {shown(verdict)}")
    return verdict


def _at_the_same_cost(verdict: str | ToolOutcome, outcome: str | ToolOutcome) -> str | ToolOutcome:
    """What stands in the place of an outcome, with what that has cost."""
    if isinstance(outcome, str) or outcome.usage is None:
        return verdict
    made = ToolOutcome(content=verdict) if isinstance(verdict, str) else verdict
    return made.model_copy(update={"usage": outcome.usage, "cost": outcome.cost, "tool_calls": outcome.tool_calls})
