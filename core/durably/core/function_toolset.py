"""The toolset that a callable makes: it returns the tools of a run.

Does not own: what is recorded of them, and how a call becomes a step (``toolsets.py``).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, get_args, get_origin

from durably.core.annotations import awaited, hint_of
from durably.core.durations import timeout_seconds
from durably.core.errors import DefinitionError
from durably.core.functions import Function
from durably.core.messages import JSONObject
from durably.core.serialization import Codec, codec_for
from durably.core.steps import current_step
from durably.core.tool_context import AskedContext, RunContext, instructions_context
from durably.core.tool_definition import define_tool
from durably.core.tools import Tool, ToolOutcome, check_tool_name
from durably.core.toolsets import ListedTool, Toolset

__all__ = ["FunctionToolset", "makes_tools", "toolset"]

logger = logging.getLogger("durably")

KEPT_RUNS = 64
"""For so many runs a process keeps the tools that it has made."""

Makes = Callable[..., Sequence[Tool | Callable[..., object]] | Awaitable[Sequence[Tool | Callable[..., object]]]]


class FunctionToolset(Toolset):
    """The tools that a callable returns. :func:`toolset` makes one.

    Args:
        fn: The callable.
        name: The name of the toolset.
        asks: Its parameter that is given a :class:`~durably.core.ToolContext`, or ``None``.
        agent: The agent that has it, once one has.
        context: Reads the agent's context.
    """

    def __init__(
        self, fn: Makes, name: str, asks: AskedContext | None = None, agent: str = "", context: Codec | None = None
    ) -> None:
        self._fn = fn
        self._name = name
        self._asks = asks
        self._agent = agent
        self._context = codec_for(Any) if context is None else context
        self._made: OrderedDict[str, dict[str, Tool]] = OrderedDict()

    @property
    def name(self) -> str:
        """See :attr:`~durably.core.Toolset.name`."""
        return self._name

    def bound(self, agent: str, context: Codec) -> FunctionToolset:
        """See :meth:`~durably.core.Toolset.bound`."""
        where = f"agent {agent!r}: its toolset {self.name!r}"
        asks = None if self._asks is None else self._asks.bound(context, where)
        return FunctionToolset(self._fn, self._name, asks, agent, context)

    async def list_tools(self, run: RunContext) -> list[ListedTool]:
        """See :meth:`~durably.core.Toolset.list_tools`."""
        return [self._listed(each) for each in (await self._make(run)).values()]

    async def call_tool(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> str | ToolOutcome:
        """See :meth:`~durably.core.Toolset.call_tool`."""
        found = await self._find(listed, run)
        if found is None:
            return ToolOutcome(
                content=f"{listed.name} is not there any more: the toolset {self.name!r} has changed", is_error=True
            )
        if found.spec.parameters != listed.parameters:
            logger.warning(
                "the parameters of %s have changed since run %s listed them", listed.name, current_step().run_id
            )
        if found.is_async:
            return await found.run(arguments, run)
        outcome = await asyncio.to_thread(found.run_sync, arguments, run)
        return await outcome if inspect.isawaitable(outcome) else outcome

    async def needs_approval(self, listed: ListedTool, arguments: JSONObject | str, run: RunContext) -> bool:
        """See :meth:`~durably.core.Toolset.needs_approval`: the tool's own ``requires_approval=`` decides."""
        found = await self._find(listed, run)
        return True if found is None else await asyncio.to_thread(found.needs_approval, arguments)

    async def _find(self, listed: ListedTool, run: RunContext) -> Tool | None:
        """Return a tool of a run as this process has it, or ``None`` if it is not there any more."""
        made = self._made.get(current_step().run_id) or await self._make(run)
        return made.get(listed.name)

    async def _make(self, run: RunContext) -> dict[str, Tool]:
        """Have the callable make the tools of a run, and keep them for its calls."""
        given = {} if self._asks is None else self._asks.given(run)
        answer = self._fn(**given)
        tools = await answer if inspect.isawaitable(answer) else answer
        made = [each if isinstance(each, Tool) else define_tool(each, {}) for each in tools]
        by_name = {each.name: each.bound(self._agent, self._context) for each in made}
        if len(by_name) < len(made):
            raise DefinitionError(f"the toolset {self.name!r} made two tools of one name")
        self._made[current_step().run_id] = by_name
        while len(self._made) > KEPT_RUNS:
            self._made.popitem(last=False)
        return by_name

    def _listed(self, tool: Tool) -> ListedTool:
        where = f"the tool {tool.name!r} of the toolset {self.name!r}"
        if type(tool) is not Tool:
            raise DefinitionError(
                f"{where} is a {type(tool).__name__}: a toolset makes plain tools, whose code runs in a step; give the "
                "others to the agent itself"
            )
        return ListedTool(
            name=tool.name,
            description=tool.spec.description,
            parameters=dict(tool.spec.parameters),
            retries=tool.retries,
            timeout=timeout_seconds(tool.timeout, where),
            effect=tool.effect,
            on_error=tool.on_error,
            requires_approval=bool(tool.requires_approval),
            approval_by_arguments=callable(tool.requires_approval),
            approval_timeout=timeout_seconds(tool.approval_timeout, where),
        )


def toolset(fn: Makes, *, name: str | None = None) -> FunctionToolset:
    """Make a toolset of a callable that returns tools. It is called in a step, once for each run.

    The names, descriptions and schemas are recorded: a run that moves to another worker keeps the same tools. A process
    that must run such a tool and does not have it calls the callable again.

    Args:
        fn: A sync or async callable without parameters, or with one, ``ctx: ToolContext[Customer]``. It returns
            functions with type hints, or tools made by :func:`~durably.core.tool`.
        name: The name of the toolset. Default: the callable's name.

    Raises:
        DefinitionError: If it has no name, or takes something else.
    """
    title = name or str(getattr(fn, "__name__", ""))
    if not callable(fn) or not title:
        raise DefinitionError(
            f"toolset({fn!r}): give a function that returns tools, or a name: toolset(fn, name='files')"
        )
    check_tool_name(title)
    return FunctionToolset(fn, title, instructions_context(fn, {}, f"toolset {title!r}"))


def makes_tools(fn: object, names: Mapping[str, object]) -> bool:
    """Return whether a callable says by its return annotation that it makes tools, as ``-> list[Tool]`` does.

    Args:
        fn: The callable.
        names: Local names that its annotation may use.
    """
    if isinstance(fn, Function) or not callable(fn):
        return False
    try:
        returns = awaited(hint_of(fn, "return", names))
    except Exception:  # an annotation is code; what is wrong with it is told where the tool is defined
        return False
    origin = get_origin(returns)
    return isinstance(origin, type) and issubclass(origin, Sequence) and Tool in _parts(get_args(returns))


def _parts(types: tuple[object, ...]) -> list[object]:
    return [each for tp in types for each in (get_args(tp) or (tp,))]
