"""What a run can be found by, in the memo of its workflow: a list of workflows shows memos, and no inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from durably.core import Event
from durably.core.cause import session_key_of

__all__ = ["INFO", "run_info", "run_memo"]

INFO = "durably-run"
"""The name of the memo."""


def run_memo(event: Event, *, tags: Sequence[str] = (), root: str | None = None) -> dict[str, Any] | None:
    """The memo of a run, or ``None`` if there is nothing to say.

    Args:
        event: What starts it.
        tags: Its tags.
        root: The run at the top of the calls that led to it, or ``None``.
    """
    info = {"tags": list(tags), "session_key": session_key_of(event), "root": root}
    known = {name: value for name, value in info.items() if value}
    return {INFO: known} if known else None


def run_info(memo: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a ``RunView`` that a memo knows; none for a run of before this was written."""
    info = dict(memo.get(INFO) or {})
    return {**info, "tags": tuple(info.get("tags", ()))}
