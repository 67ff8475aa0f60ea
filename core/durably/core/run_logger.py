"""The logger that a run is given: silent while its steps are replayed, and without secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable

from durably.core.secrets import Redactor

__all__ = ["RunLogger"]


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs under ``durably.run.<function>``, each line once.

    Args:
        function: The id of the function.
        run_id: The run; every record has it as an attribute.
        redactor: What masks secrets.
        replaying: Whether the code is among its recorded steps now.
    """

    def __init__(self, function: str, run_id: str, redactor: Redactor, replaying: Callable[[], bool]) -> None:
        # A logger of this pass's own, so that its filter ends with it; the shared one would keep every backend's.
        shared = logging.getLogger(f"durably.run.{function}")
        own = logging.Logger(shared.name)
        own.parent = shared
        own.addFilter(redactor)
        super().__init__(own, {"run_id": run_id})
        self._replaying = replaying

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        return not self._replaying() and super().isEnabledFor(level)
