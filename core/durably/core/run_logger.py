"""The logger of a run, which is silent during replay and masks secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from durably.core.secrets import Redactor
from durably.core.steps import _current

__all__ = ["RunLogger"]


class RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs under ``durably.run.<function>``, each line once.

    Every log record has the attributes ``run_id``, ``function``, ``step`` and ``attempt``. Inside the body of a step
    the last two are the step's; elsewhere ``step`` is empty and the attempt is that of the function.

    Args:
        function: The id of the function.
        run_id: The run.
        attempt: The number of the function's attempt.
        redactor: Masks secrets.
        replaying: Returns whether the code is at a recorded step now.
    """

    def __init__(
        self, function: str, run_id: str, attempt: int, redactor: Redactor, replaying: Callable[[], bool]
    ) -> None:
        # Each pass has a logger of its own. A filter added to the shared one would stay there for ever.
        shared = logging.getLogger(f"durably.run.{function}")
        own = logging.Logger(shared.name)
        own.parent = shared
        own.addFilter(redactor)
        super().__init__(own, {"run_id": run_id, "function": function, "step": "", "attempt": attempt})
        self._replaying = replaying

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  # the standard library's name
        return super().isEnabledFor(level) and not self._replaying()

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields to those that the caller gives; the standard library would drop the caller's."""
        info = _current.get()
        inside = {} if info is None else {"step": info.key, "attempt": info.attempt}
        return msg, {**kwargs, "extra": {**kwargs.get("extra", {}), **(self.extra or {}), **inside}}
