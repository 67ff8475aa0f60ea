"""How a function becomes a tool: the decorator, its options, and what it refuses.

Does not own: the schema of the arguments (``tool_arguments.py``), and what a call does (``tools.py``).
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Never, NoReturn, TypedDict, Unpack, overload

from durably.core.annotations import awaited, innermost, is_async, resolve_hints, uncached
from durably.core.durable_tools import CodeTool, FunctionTool, function_arguments
from durably.core.durations import timeout_seconds
from durably.core.errors import DefinitionError
from durably.core.functions import Function
from durably.core.messages import JSONObject
from durably.core.mistakes import check_known
from durably.core.model import ToolSpec
from durably.core.serialization import codec_for
from durably.core.steps import Duration
from durably.core.tool_arguments import arguments_model
from durably.core.tool_context import asked_context
from durably.core.tools import Effect, Tool, check_tool_name

__all__ = ["ToolOptions", "define_tool", "tool"]


class ToolFields(TypedDict, total=False):
    """What a provider is told of a tool. :class:`~durably.core.model.ToolSpec` has an attribute for each.

    Keys:
        strict: Whether the provider holds the model to the schema of the arguments. All of them are then required.
        deferred: Whether the model must look the tool up, with :class:`~durably.core.server_tools.ToolSearch`.
        examples: Arguments of good calls. A provider that takes none reads them in the description.
        native: Fields that a provider alone knows, by its name: ``{"anthropic": {"allowed_callers": ["direct"]}}``.
    """

    strict: bool
    deferred: bool
    examples: Sequence[JSONObject]
    native: Mapping[str, JSONObject]


logger = logging.getLogger("durably")

_WITHOUT_DOCSTRINGS = 2
"""The level of optimization from which on Python drops docstrings."""

_NOT_KEPT = {"steps", *ToolFields.__annotations__}
"""The options that are no attributes of the tool: they choose its kind, or stand in what the provider is told."""


class ToolOptions(ToolFields, total=False):
    """The options of a tool. :class:`Tool` has an attribute for each that is not one of :class:`ToolFields`.

    Keys:
        retries: How often an unexpected exception is retried. Default: as often as the agent's other steps.
        timeout: Seconds, or a ``timedelta``, that one attempt may take. Default: no limit.
        effect: ``"pure"``, ``"idempotent"`` (the default) or ``"at_most_once"``. See :data:`Effect`.
        on_error: ``"report"`` (the default) or ``"raise"``.
        requires_approval: Whether a person must approve each call, or a function of the arguments that says so.
            Default: no.
        approval_timeout: How long to wait for the person. Default: for ever.
        steps: Whether the code runs in the run itself, as durable code, and may run steps through ``ctx.step`` of its
            :class:`~durably.core.ToolContext`. Default: it runs in a step.
    """

    retries: int | None
    timeout: Duration | None
    effect: Effect
    on_error: Literal["report", "raise"]
    requires_approval: bool | Callable[..., bool]
    approval_timeout: Duration | None
    steps: bool


@overload
def tool(
    fn: Callable[..., object] | Function[Any, Any],
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    output_type: object = None,
    **options: Unpack[ToolOptions],
) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    output_type: object = None,
    **options: Unpack[ToolOptions],
) -> Callable[[Callable[..., object]], Tool]: ...
def tool(
    fn: Callable[..., object] | Function[Any, Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    output_type: object = None,
    **options: Unpack[ToolOptions],
) -> Tool | Callable[[Callable[..., object]], Tool]:
    """Make a sync or async function a tool. The model sees its name, its docstring and its type hints.

    A parameter is described with ``Annotated[str, Field(description="...")]``. Invalid arguments and ``ToolError``
    go back to the model as an error result. Any other exception is retried as a step, and then reported.

    Args:
        fn: The function, a ``functools.partial`` or an object with ``__call__``; or a durable function, which each call
            invokes. Leave it out to give options: ``@tool(retries=1)``.
        name: The tool's name for the model. Default: the function's name.
        description: The tool's description for the model. Default: the docstring.
        output_type: The type of the result in JSON. Default: the return annotation.
        options: See :class:`ToolOptions`.

    Returns:
        The tool, or a decorator if ``fn`` is left out.

    Raises:
        DefinitionError: If a parameter has no type hint, no JSON schema, or a default that is not JSON; if its values
            could only be checked while the function uses them, such as ``Iterable[int]``; or if the result has no JSON
            form.
    """
    # Without the caller's locals, annotations that name a class defined inside a test function would not resolve.
    names = sys._getframe(1).f_locals

    def decorate(fn: Callable[..., object] | Function[Any, Any]) -> Tool:
        return define_tool(fn, names, name=name, description=description, output_type=output_type, **options)

    return decorate if fn is None else decorate(fn)


def define_tool(
    fn: Callable[..., object] | Function[Any, Any],
    names: Mapping[str, object],
    *,
    name: str | None = None,
    description: str | None = None,
    output_type: object = None,
    **options: Unpack[ToolOptions],
) -> Tool:
    """Return the tool that a function makes. See :func:`tool`.

    Args:
        fn: The function.
        names: Local names that its annotations may use.
        name: See :func:`tool`.
        description: See :func:`tool`.
        output_type: See :func:`tool`.
        options: See :class:`ToolOptions`.

    Raises:
        DefinitionError: See :func:`tool`.
    """
    if isinstance(fn, Function):
        if output_type is not None:
            raise DefinitionError(f"tool({fn!r}): a durable function has an output_type of its own: leave it out here")
        return _define_function(fn, name, description, options)
    name = name or str(getattr(fn, "__name__", ""))
    where = f"tool {name!r}"
    check_known(where, options, ToolOptions.__annotations__)
    _check_callable(fn, name, where)
    check_tool_name(name)
    _check_options(options, where)
    given = () if output_type is None else ("return",)
    hints = resolve_hints(fn, names, where, given=given, options={"return": "output_type"})
    asks = asked_context(hints, where)
    hidden = None if asks is None else asks.parameter
    arguments, schema = arguments_model(fn, name, hints, where, hidden=hidden)
    given_names = [each for each in inspect.signature(fn).parameters if each != hidden]
    _check_predicate(options.get("requires_approval", False), given_names, where)
    result_type = awaited(hints.get("return", Any)) if output_type is None else output_type
    _check_result(result_type, where)
    description = description or _docstring(fn)
    if not description and sys.flags.optimize >= _WITHOUT_DOCSTRINGS:
        logger.warning("%s has no description for the model: 'python -OO' drops docstrings; write description=", where)
    spec = ToolSpec(name=name, description=description, parameters=schema, **_told(options))
    kind = CodeTool if options.get("steps") else Tool
    made = kind(spec=spec, fn=uncached(fn), arguments=arguments, result_type=result_type, asks=asks)
    if isinstance(made, CodeTool):
        _check_code(made, options, where)
    return _with(made, options)


def _with(made: Tool, options: ToolOptions) -> Tool:
    kept: dict[str, Any] = {option: value for option, value in options.items() if option not in _NOT_KEPT}
    return replace(made, **kept)


def _told(options: ToolOptions) -> dict[str, Any]:
    return {option: value for option, value in options.items() if option in ToolFields.__annotations__}


def _define_function(fn: Function[Any, Any], name: str | None, description: str | None, options: ToolOptions) -> Tool:
    """Return the tool that a durable function answers."""
    name = name or re.sub(r"[^A-Za-z0-9_-]", "_", fn.id)
    where = f"tool {name!r}"
    check_tool_name(name)
    check_known(where, options, ToolOptions.__annotations__)
    for option in ("retries", "effect", "steps"):
        if option in options:
            raise DefinitionError(f"{where} is a durable function, which has its own {option}: leave out {option}=")
    _check_options(options, where)
    arguments, schema, takes = function_arguments(fn, name)
    _check_predicate(options.get("requires_approval", False), schema.get("properties", {}), where)
    description = description or inspect.getdoc(fn.handler) or ""
    spec = ToolSpec(name=name, description=description, parameters=schema, **_told(options))
    made = FunctionTool(
        spec=spec, arguments=arguments, result_type=fn.output.type, function=fn, takes=takes, uses=(fn,)
    )
    return _with(made, options)


def _check_code(made: CodeTool, options: ToolOptions, where: str) -> None:
    """Refuse what durable code cannot have."""
    for option in ("retries", "timeout", "effect"):
        if option in options:
            raise DefinitionError(f"{where} runs steps of its own, which have their own {option}: leave out {option}=")
    if not is_async(made.fn):
        raise DefinitionError(f"{where} runs steps of its own, and awaits them: write it with 'async def'")
    if made.reads_world:
        raise DefinitionError(
            f"{where}: its code runs again on each replay, and a validator of a parameter might come to another "
            "verdict then: check the value in the code, or in a step of it"
        )


def _check_callable(fn: object, name: str, where: str) -> None:
    if isinstance(fn, classmethod):
        raise DefinitionError(f"{where}: leave out @classmethod and make a tool of the method, tool(Shop.look)")
    if not callable(fn) or inspect.isclass(fn):
        raise DefinitionError(f"{where}: {fn!r} is not a function: write one with 'def' that does what is wanted")
    if not name:
        raise DefinitionError(f"{fn!r} has no name that the model could call it by: tool(..., name='look_up')")
    inner = innermost(fn)
    if inspect.isasyncgenfunction(inner) or inspect.isgeneratorfunction(inner):
        raise DefinitionError(
            f"{where} is a generator, and a step has one result: collect the values in a list and return that"
        )


def _check_result(result_type: object, where: str) -> None:
    if result_type in (Never, NoReturn):
        return
    try:
        codec_for(result_type).check()
    except DefinitionError as error:
        raise DefinitionError(f"{where}: its result: {error}") from error


def _docstring(fn: Callable[..., object]) -> str:
    while isinstance(fn, partial):  # its own docstring is that of functools.partial
        fn = fn.func
    return inspect.getdoc(fn) or ""


def _check_predicate(predicate: object, given: Collection[str], where: str) -> None:
    if not callable(predicate):
        return
    if is_async(predicate):
        raise DefinitionError(f"{where}: requires_approval= must be a sync function: it decides by the arguments alone")
    takes = inspect.signature(predicate).parameters
    unknown = [name for name, each in takes.items() if name not in given or each.kind is each.POSITIONAL_ONLY]
    if unknown:
        raise DefinitionError(
            f"{where}: requires_approval= takes {unknown[0]!r}, which is no parameter of the tool; it is called with "
            f"those that it names, of: {', '.join(given) or 'none'}"
        )


def _check_options(options: ToolOptions, where: str) -> None:
    effect = options.get("effect", "idempotent")
    if effect not in ("pure", "idempotent", "at_most_once"):
        raise DefinitionError(f"{where}: effect {effect!r}: use 'pure', 'idempotent' or 'at_most_once'")
    try:
        timeout_seconds(options.get("timeout"), f"{where}: timeout")
        timeout_seconds(options.get("approval_timeout"), f"{where}: approval_timeout")
    except (TypeError, ValueError) as error:
        raise DefinitionError(str(error)) from None
    if options.get("approval_timeout") is not None and not options.get("requires_approval"):
        raise DefinitionError(f"{where}: approval_timeout= says how long to wait for requires_approval=True; add it")
