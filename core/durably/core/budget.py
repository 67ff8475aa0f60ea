"""What one run of an agent may spend."""

from __future__ import annotations

from dataclasses import dataclass

from durably.core.errors import DefinitionError, NonRetriableError
from durably.core.model import ModelResponse

__all__ = ["Budget"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A run that has spent this much takes no further turn. What agents it asks and waits for spend counts too.

    The turn that goes over is finished, so that no tool call stays without its result: a budget is a line that a run
    crosses once, not a wall.

    Args:
        cost: US dollars.
        tokens: Tokens read and written.

    Raises:
        DefinitionError: If neither is given, or one is not above 0.
    """

    cost: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        given = [limit for limit in (self.cost, self.tokens) if limit is not None]
        if not given or min(given) <= 0:
            raise DefinitionError("a budget is a cost in US dollars, a number of tokens, or both, each above 0")

    def check_price(self, response: ModelResponse) -> None:
        """Refuse to go on with a model whose price is not known, where dollars are counted.

        Raises:
            NonRetriableError: If that is so.
        """
        if self.cost is not None and response.cost is None:
            raise NonRetriableError(
                f"the budget is in dollars, and the price of {response.model or 'the model'} is not known: give the "
                "agent a budget in tokens, Budget(tokens=...)"
            )

    def is_spent(self, tokens: int, cost: float | None) -> bool:
        """Whether a run that spent this may take no further turn. A cost that is not known (of a delegate that failed)
        counts as spent."""
        return (self.tokens is not None and tokens >= self.tokens) or (
            self.cost is not None and (cost is None or cost >= self.cost)
        )
