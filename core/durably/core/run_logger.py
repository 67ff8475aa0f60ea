"""The logger of a run, which is silent during replay and masks secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable

from durably.core.secrets import Redactor

__all__ = ["RunLogger"]


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs under ``durably.run.<function>``, each line once.

    Args:
        function: The id of the function.
        run_id: The run. Every log record has it as an attribute.
        redactor: Masks secrets.
        replaying: Returns whether the code is at a recorded step now.
    """

    def __init__(self, function: str, run_id: str, redactor: Redactor, replaying: Callable[[], bool]) -> None:
        # Each pass has a logger of its own. A filter added to the shared one would stay there for ever.
        shared = logging.getLogger(f"durably.run.{function}")
        own = logging.Logger(shared.name)
        own.parent = shared
        own.addFilter(redactor)
        super().__init__(own, {"run_id": run_id})
        self._replaying = replaying

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        return not self._replaying() and super().isEnabledFor(level)
