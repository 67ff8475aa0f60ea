"""The budget of a run: what an agent may spend, in dollars, tokens, tool calls or time.

Owns: the limits, and when they are near or reached. Does not own: counting, which the loop does from records
(``progress.py``, ``spending.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from durably.core.counts import is_count
from durably.core.durations import Duration, duration_seconds
from durably.core.error_text import shown
from durably.core.errors import DefinitionError, NonRetriableError
from durably.core.model import ModelResponse
from durably.core.named_values import NamedValues
from durably.core.spending import Spent

__all__ = ["Budget"]


@dataclass(frozen=True, kw_only=True)
class Budget(NamedValues):
    """Ends a run that has spent this much, before its next turn.

    The spending of sub-agents counts if the run waits for them, and they get only what is left, unless
    ``delegate(share_budget=False)`` says otherwise. Sub-agents that are asked in one turn get equal parts of it; what
    one does not spend is there again in the next turn. The turn that exceeds the limit is finished, so that every tool
    call has its result. A run may therefore spend more than its budget, by one call of the model for itself and for
    each sub-agent that works at that moment.

    Args:
        cost: US dollars.
        tokens: Tokens, read and written together.
        tool_calls: Calls of tools.
        time: How long it may take, from its first turn on, crashes and waits included. The clock is read in a step
            ``check-time`` before each turn.
        warn_at: The share of a limit from which on the model is told how much is spent.

    Raises:
        DefinitionError: If none of the four is given, or one of them is out of range.
    """

    _example = 'Budget(cost=0.5, time="10m")'

    cost: float | None = None
    tokens: int | None = None
    tool_calls: int | None = None
    time: Duration | None = None
    warn_at: float = 0.8

    def __post_init__(self) -> None:
        counts = [limit for limit in (self.tokens, self.tool_calls) if limit is not None]
        spans = [limit for limit in (self.cost, self.seconds) if limit is not None]
        if not (counts or spans) or not all(is_count(limit, 1) for limit in counts) or not all(map(_is_amount, spans)):
            raise DefinitionError(
                "a budget is a cost in US dollars, a number of tokens, one of tool calls, a time, or several of them, "
                f"each above 0: Budget(cost=0.5, time='10m'), not {shown(self)}"
            )
        if not 0 < self.warn_at <= 1:
            raise DefinitionError(f"a budget's warn_at is a share, such as 0.8, not {shown(self.warn_at)}")

    @property
    def seconds(self) -> float | None:
        """The time in seconds, or ``None``."""
        if self.time is None:
            return None
        try:
            return duration_seconds(self.time, "Budget: time")
        except (TypeError, ValueError) as error:
            raise DefinitionError(str(error)) from None

    def check_price(self, response: ModelResponse) -> None:
        """Refuse a response without a price if dollars are counted.

        Raises:
            NonRetriableError: If the price is unknown.
        """
        if self.cost is not None and response.cost is None:
            raise NonRetriableError(
                f"the budget is in dollars, and the price of {response.model or 'the model'} is not known: give the "
                "agent a budget in tokens, Budget(tokens=...), or say whose prices count: OpenAIModel(prices='...')"
            )

    def share(self, spent: Spent) -> float:
        """Return the spent share of the limit that is closest to being reached; 1 or more is all of it."""
        limits = ((self.tokens, spent.tokens), (self.tool_calls, spent.tool_calls), (self.seconds, spent.seconds))
        shares = [used / limit for limit, used in limits if limit is not None]
        if self.cost is not None:
            shares.append(1.0 if spent.cost is None else spent.cost / self.cost)
        return max(shares)

    def is_spent(self, spent: Spent) -> bool:
        """Return whether a run that spent this may take no further turn."""
        return self.share(spent) >= 1

    def left(self, spent: Spent) -> Budget:
        """Return what is left of it after this much; at least a tiny amount."""
        return Budget(
            cost=None
            if self.cost is None
            else max(self.cost - (self.cost if spent.cost is None else spent.cost), 1e-9),
            tokens=None if self.tokens is None else max(self.tokens - spent.tokens, 1),
            tool_calls=None if self.tool_calls is None else max(self.tool_calls - spent.tool_calls, 1),
            time=None if self.seconds is None else max(self.seconds - spent.seconds, 0.001),
            warn_at=self.warn_at,
        )

    def divided(self, shares: int) -> Budget:
        """Return one of so many equal parts of it, at least a tiny amount. Time is not divided: it passes for all.

        Args:
            shares: The number of parts, 1 or more.
        """
        return Budget(
            cost=None if self.cost is None else self.cost / shares,
            tokens=None if self.tokens is None else max(self.tokens // shares, 1),
            tool_calls=None if self.tool_calls is None else max(self.tool_calls // shares, 1),
            time=self.time,
            warn_at=self.warn_at,
        )

    def within(self, other: Budget | None) -> Budget:
        """Return a budget with the lower limit of each kind."""
        if other is None:
            return self
        return Budget(
            cost=_narrower(self.cost, other.cost),
            tokens=_narrower(self.tokens, other.tokens),
            tool_calls=_narrower(self.tool_calls, other.tool_calls),
            time=_narrower(self.seconds, other.seconds),
            warn_at=self.warn_at,
        )

    def warning(self, spent: Spent) -> int | None:
        """Return how much is spent, in percent, if the model should be told."""
        share = self.share(spent)
        return int(share * 100) if share >= self.warn_at else None


N = TypeVar("N", int, float)


def _narrower(one: N | None, other: N | None) -> N | None:
    given = [limit for limit in (one, other) if limit is not None]
    return min(given) if given else None


def _is_amount(limit: object) -> bool:
    # NaN is above nothing, and nothing is above it: such a budget would never be spent.
    return isinstance(limit, int | float) and not isinstance(limit, bool) and math.isfinite(limit) and limit > 0
