"""Items of a conversation that need each other, and what the provider says where one is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably.testing.models.wire.strict import InvalidRequest, take

__all__ = ["Pairs", "check_stored"]

_CALLED = {
    "function_call": "function call",
    "custom_tool_call": "custom tool call",
    "local_shell_call": "local shell call",
    "shell_call": "shell call",
    "apply_patch_call": "apply patch call",
    "computer_call": "computer call",
}
"""Calls that the caller answers, as the provider names them.

Recorded: https://github.com/diegosouzapw/OmniRoute/issues/8946 and
https://github.com/router-for-me/CLIProxyAPI/issues/2368.
"""


class Pairs:
    """The calls of a conversation and their outputs."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._open: dict[str, tuple[str, str]] = {}
        self._asked: set[str] = set()

    def take(self, item: Mapping[str, Any], where: str) -> None:
        """Note a call, an output or an approval."""
        kind = item.get("type", "message")
        if kind in _CALLED:
            call_id = take(item, "call_id", str, where)
            if call_id in self._ids:
                raise InvalidRequest(f"{where}: duplicate call_id {call_id!r}")
            self._ids.add(call_id)
            self._open[call_id] = kind, item.get("name", "")
        elif kind.endswith("_call_output"):
            self.answer(item, where)
        elif kind == "mcp_approval_request":
            self._asked.add(take(item, "id", str, where))
        elif kind == "mcp_approval_response" and take(item, "approval_request_id", str, where) not in self._asked:
            raise InvalidRequest(f"{where}: No approval request found with id {item['approval_request_id']!r}.")

    def answer(self, item: Mapping[str, Any], where: str) -> str:
        """Note an output, and return the name of the tool that it is of."""
        call_id = take(item, "call_id", str, where)
        kind = str(item["type"]).removesuffix("_output")
        opened, name = self._open.get(call_id, ("", ""))
        if opened != kind:
            called = _CALLED.get(kind, kind)
            raise InvalidRequest(f"No tool call found for {called} output with call_id {call_id}. ({where})")
        del self._open[call_id]
        return name

    def check(self) -> None:
        """Refuse a conversation with a call that nobody answered."""
        for call_id, (kind, _) in self._open.items():
            raise InvalidRequest(f"No tool output found for {_CALLED[kind]} {call_id}.")


def check_stored(item: Mapping[str, Any], *, stored: bool) -> None:
    """Refuse a reasoning item by its id alone, if the provider stores nothing.

    Recorded: https://github.com/can1357/oh-my-pi/issues/41.
    """
    if item.get("type") == "reasoning" and not stored and not item.get("encrypted_content"):
        raise InvalidRequest(
            f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is set to false. Try "
            "again with `store` set to true, or remove this item from your input.",
            status=404,
        )
