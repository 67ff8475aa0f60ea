"""The budget of a run: what an agent may spend, in dollars or tokens.

Owns: the limit, and when it is reached. Does not own: counting, which the loop does from records (``loop.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

from durably.core.errors import DefinitionError, NonRetriableError
from durably.core.model import ModelResponse

__all__ = ["Budget"]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Ends a run that has spent this much: it takes no further turn.

    What other agents spend counts if the run waits for them. The turn that crosses the limit is finished, so that no
    tool call stays without its result. A run may therefore spend somewhat more than its budget.

    Args:
        cost: US dollars.
        tokens: Tokens, read and written together.

    Raises:
        DefinitionError: If neither is given, or one of them is not above 0.
    """

    cost: float | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        given = [limit for limit in (self.cost, self.tokens) if limit is not None]
        if not given or min(given) <= 0:
            raise DefinitionError("a budget is a cost in US dollars, a number of tokens, or both, each above 0")

    def check_price(self, response: ModelResponse) -> None:
        """Refuse a response without a price if dollars are counted.

        Raises:
            NonRetriableError: If the price is not known.
        """
        if self.cost is not None and response.cost is None:
            raise NonRetriableError(
                f"the budget is in dollars, and the price of {response.model or 'the model'} is not known: give the "
                "agent a budget in tokens, Budget(tokens=...), or say whose prices count: OpenAIModel(prices='...')"
            )

    def is_spent(self, tokens: int, cost: float | None) -> bool:
        """Return whether a run that spent this may take no further turn.

        Args:
            tokens: The tokens it spent.
            cost: The dollars it spent. ``None``, the cost after a delegate has failed, counts as too much.
        """
        return (self.tokens is not None and tokens >= self.tokens) or (
            self.cost is not None and (cost is None or cost >= self.cost)
        )
