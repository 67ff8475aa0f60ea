"""A model that answers from a script: what unit tests and the demo run on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from durably.core import ModelError
from durably.core.messages import AssistantMessage, AssistantPart, TextPart, ToolCall, UserMessage
from durably.core.model import ModelRequest, ModelResponse, Usage

__all__ = ["Reply", "ScriptedModel", "by_message", "call"]


class Call:
    """A tool call in a script; its id is made from its place. See :func:`call`."""

    def __init__(self, name: str, arguments: dict[str, Any]) -> None:
        self.name = name
        self.arguments = arguments


Reply = str | Call | list[Call] | ModelResponse | BaseException
"""One answer: final text, a tool call, several at once, a whole response, or an error to raise."""


def call(name: str, /, **arguments: Any) -> Call:
    """A tool call for a script: ``call("get_order", order_id="7")``."""
    return Call(name, arguments)


def by_message(scripts: Mapping[str, Sequence[Reply]]) -> Callable[[ModelRequest], Reply]:
    """Scripts for several conversations of one agent: ``ScriptedModel(by_message({"Where is 7?": [...], ...}))``.

    Args:
        scripts: The replies by the user's message that they answer; the last message counts.
    """

    def reply(request: ModelRequest) -> Reply:
        message, turn = "", 0
        for each in request.messages:
            if isinstance(each, UserMessage):
                message, turn = str(each.content), 0
            turn += each.role == "assistant"
        script = scripts.get(message, ())
        if turn >= len(script):
            what = f"the script of {message!r} has {len(script)} replies, and reply {turn + 1} was asked for"
            raise ModelError(what, provider="scripted", model="")
        return script[turn]

    return reply


class ScriptedModel:
    """Answers from a script, by position: the n-th assistant message of a conversation is the n-th reply.

    The number of calls makes no difference, so a replay or a retry cannot confuse it.

    Args:
        replies: The script. Or one function of the request, called for each answer, for replies that are computed.
        name: Its name.

    Attributes:
        requests: Every request so far, for tests to look at.
    """

    def __init__(self, *replies: Reply | Callable[[ModelRequest], Reply], name: str = "scripted") -> None:
        computed = [reply for reply in replies if callable(reply)]
        if computed and len(replies) > 1:
            raise TypeError("give ScriptedModel either a list of replies or one function of the request")
        self._compute = computed[0] if computed else None
        self._script: tuple[Any, ...] = () if computed else replies
        self._used: set[int] = set()
        self._name = name
        self.requests: list[ModelRequest] = []

    @property
    def name(self) -> str:
        """What it calls itself."""
        return self._name

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """The reply at this position.

        Raises:
            ModelError: If the script has no reply there.
        """
        # The conversation goes on growing; what a test looks at later is what was asked now.
        self.requests.append(replace(request, messages=list(request.messages)))
        self._used.add(request.turn)
        return _response(self._reply(request), request.turn)

    def _reply(self, request: ModelRequest) -> Reply:
        if self._compute is not None:
            return self._compute(request)
        if request.turn >= len(self._script):
            raise ModelError(
                f"the script has {len(self._script)} replies, and reply {request.turn + 1} was asked for; the last "
                f"message was: {request.messages[-1]!r}",
                provider="scripted",
                model=self._name,
            )
        reply: Reply = self._script[request.turn]
        return reply

    def assert_used_up(self) -> None:
        """Check that every reply of the script was used.

        Raises:
            AssertionError: If some were not; it lists them.
        """
        unused = [f"{place + 1}: {_show(self._script[place])}" for place in self._unused()]
        if unused:
            raise AssertionError(f"{len(unused)} replies of the script were never asked for: {'; '.join(unused)}")

    def _unused(self) -> Iterable[int]:
        return (place for place in range(len(self._script)) if place not in self._used)


def _show(reply: Reply) -> str:
    calls = [reply] if isinstance(reply, Call) else reply
    if isinstance(calls, list):
        return ", ".join(f"{each.name}({each.arguments})" for each in calls)
    return repr(reply)


def _response(reply: Reply, turn: int) -> ModelResponse:
    if isinstance(reply, BaseException):
        raise reply
    if isinstance(reply, ModelResponse):
        return reply
    if isinstance(reply, str):
        return ModelResponse(message=AssistantMessage(parts=[TextPart(text=reply)]), usage=_USAGE)
    calls = [reply] if isinstance(reply, Call) else reply
    parts: list[AssistantPart] = [
        # Made from the place, not at random: a reply that is asked for again after a crash must be the same.
        ToolCall(id=f"call_{turn}_{index}", name=each.name, arguments=each.arguments)
        for index, each in enumerate(calls)
    ]
    return ModelResponse(message=AssistantMessage(parts=parts), usage=_USAGE, stop_reason="tool_calls")


_USAGE = Usage(input_tokens=10, output_tokens=5)
