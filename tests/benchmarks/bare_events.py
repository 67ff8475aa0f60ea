"""What is started and signalled on temporalio alone, beside events."""

from __future__ import annotations

from temporalio import workflow

__all__ = ["BareStart", "BareWait"]


@workflow.defn
class BareStart:
    """Ends at once."""

    @workflow.run
    async def run(self) -> None:
        """Do nothing."""


@workflow.defn
class BareWait:
    """Ends with its first signal."""

    def __init__(self) -> None:
        self._told = False

    @workflow.run
    async def run(self) -> None:
        """Wait."""
        await workflow.wait_condition(lambda: self._told)

    @workflow.signal
    def tell(self, data: dict[str, str]) -> None:
        """It has come."""
        self._told = True
