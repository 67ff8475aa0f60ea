"""What a run of an agent has spent: counted while it goes, and told by its error if it fails.

Owns: the count. Does not own: what counts (``progress.py``), and the limits (``budget.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from durably.core.error_spending import carried_spending, carry_spending
from durably.core.errors import NonDeterminismError
from durably.core.model import Usage

__all__ = ["Spent", "spent_by"]


@dataclass(slots=True)
class Spent:
    """What a run has spent so far.

    Attributes:
        tokens: Tokens, read and written.
        cost: US dollars; ``None`` if the price of any is not known.
        tool_calls: Calls of tools, those of agents included that it asked and waited for.
        seconds: From its first turn on.
        usages: The tokens of each model call, and of each agent that it waited for.
    """

    tokens: int = 0
    cost: float | None = 0.0
    tool_calls: int = 0
    seconds: float = 0.0
    usages: list[Usage] = field(default_factory=list)

    def add(self, usage: Usage, cost: float | None, tool_calls: int = 0) -> None:
        """Count an answer of a model, or all that another agent spent."""
        self.usages.append(usage)
        self.tokens += usage.input_tokens + usage.output_tokens
        self.cost = None if self.cost is None or cost is None else self.cost + cost
        self.tool_calls += tool_calls

    def add_failure(self, error: BaseException) -> None:
        """Count what agents had spent whose failures, alone or in a group, fail this run."""
        spent = spent_by(error)
        if spent is not None:
            self.add(spent.usage, spent.cost, spent.tool_calls)
        elif isinstance(error, BaseExceptionGroup):
            for each in error.exceptions:
                self.add_failure(each)

    @property
    def usage(self) -> Usage:
        """All tokens, by their kind."""
        return sum(self.usages, Usage())

    @contextmanager
    def told_by_errors(self) -> Iterator[None]:
        """A block whose exceptions tell what was spent, to whoever waits for the run."""
        try:
            yield
        except NonDeterminismError:
            raise  # code that does not fit did not come to all that was recorded
        except Exception as error:
            carry_spending(error, self.to_data())
            raise

    @classmethod
    def of_data(cls, data: dict[str, Any]) -> Self:
        """Read what :meth:`to_data` returned."""
        spent = cls()
        spent.add(Usage.model_validate(data["usage"]), data["cost"], data["tool_calls"])
        return spent

    def to_data(self) -> dict[str, Any]:
        """Return what an error carries of it, and a step records, as JSON data."""
        return {"usage": self.usage.model_dump(mode="json"), "cost": self.cost, "tool_calls": self.tool_calls}


def spent_by(error: BaseException) -> Spent | None:
    """Return what the run of an agent had spent that failed with this error, or ``None`` if the error does not say."""
    data = carried_spending(error)
    return None if data is None else Spent.of_data(data)
