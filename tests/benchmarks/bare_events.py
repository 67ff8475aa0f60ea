"""What is started and signalled on temporalio alone, beside events."""

from __future__ import annotations

from temporalio import workflow

__all__ = ["BareCrowd", "BareStart"]


@workflow.defn
class BareStart:
    """Ends at once."""

    @workflow.run
    async def run(self) -> None:
        """Do nothing."""


@workflow.defn
class BareCrowd:
    """Ends when so many signals have come."""

    def __init__(self) -> None:
        self._told = 0

    @workflow.run
    async def run(self, signals: int) -> None:
        """Wait."""
        await workflow.wait_condition(lambda: self._told >= signals)

    @workflow.signal
    def tell(self, data: dict[str, str]) -> None:
        """One more has come."""
        self._told += 1
