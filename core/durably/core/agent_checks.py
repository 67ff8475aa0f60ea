"""What an agent's parts must be, and what to write where one is something else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durably.core.budget import Budget
from durably.core.compaction import Compaction
from durably.core.counts import is_count
from durably.core.durations import timeout_seconds
from durably.core.error_text import shown
from durably.core.errors import DefinitionError
from durably.core.mistakes import check_objects

__all__ = ["check_parts"]

_OBJECTS: Mapping[str, tuple[type, str]] = {
    "budget": (Budget, "Budget(tokens=100_000)"),
    "compaction": (Compaction, "Compaction(at_tokens=150_000)"),
}


def check_parts(
    agent: object,
    *,
    instructions: object,
    tools: object,
    max_iterations: object,
    output_retries: object,
    validates_text: bool,
    model_options: object,
    sink: object,
    model_timeout: Any,
    **parts: Any,
) -> None:
    """Refuse parts of an agent that cannot be what they are for.

    Args:
        agent: Its name.
        instructions: Its system prompt, or what returns it.
        tools: Its tools.
        max_iterations: How many turns a run may take.
        output_retries: How many further answers.
        validates_text: Whether it has a validator, and no type, of its answer.
        model_options: Parameters of the provider's own, or what returns them.
        sink: Who is told of the pieces of answers.
        model_timeout: How long one call of the model may take.
        parts: Parts that are objects: ``budget`` and ``compaction``.

    Raises:
        DefinitionError: If one is something else.
    """
    if not isinstance(agent, str):
        raise DefinitionError(f"an agent's name is a text, such as 'support', not {shown(agent)}")
    where = f"agent {agent!r}"
    if not isinstance(instructions, str) and not callable(instructions):
        raise DefinitionError(
            f"{where}: instructions= is the system prompt, or a function that returns it, not {shown(instructions)}"
        )
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise DefinitionError(f"{where}: tools= is a list, such as tools=[get_order], not {shown(tools)}")
    if not is_count(max_iterations, 1):
        raise DefinitionError(f"{where}: max_iterations must be 1 or more, not {shown(max_iterations)}")
    if not is_count(output_retries, 0):
        raise DefinitionError(f"{where}: output_retries is a number of further answers, 0 or more")
    if validates_text:
        raise DefinitionError(f"{where}: output_validator= checks a typed answer: add output_type=")
    if model_options is not None and not isinstance(model_options, Mapping) and not callable(model_options):
        raise DefinitionError(
            f"{where}: model_options= is a dict of the provider's parameters, such as {{'temperature': 0}}, or a "
            f"function that returns one, not {shown(model_options)}"
        )
    try:
        timeout_seconds(model_timeout, f"{where}: model_timeout")
    except (TypeError, ValueError) as error:
        raise DefinitionError(str(error)) from None
    if sink is not None and not isinstance(sink, str) and not callable(sink):
        raise DefinitionError(f"{where}: sink= is a function of each piece of an answer, not {shown(sink)}")
    check_objects(where, parts, _OBJECTS)
