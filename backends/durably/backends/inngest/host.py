"""What the code of a run needs of the worker it runs in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from durably.backends.inngest.suspended_code import Held
from durably.core import Event
from durably.core.history import StepRecord
from durably.core.secrets import Redactor
from durably.core.steps import Probe

__all__ = ["Host"]


class Host(Protocol):
    """A worker."""

    probe: Probe | None
    resources: Mapping[str, Any]
    redactor: Redactor
    max_payload_bytes: int
    held: Held
    known: dict[str, tuple[list[str], list[StepRecord]]]
    """What this worker has read of a run: the hashes of the steps, and the records in them."""

    def now(self) -> float: ...
    def crash(self, signal: BaseException) -> None: ...
    def met(self, run_id: str, theirs: str, stack: Sequence[str] = ()) -> None: ...
    def app_of(self, function_id: str) -> str: ...
    async def send(self, *events: Event) -> list[str]: ...
    async def abandon(self, child: str) -> None: ...
