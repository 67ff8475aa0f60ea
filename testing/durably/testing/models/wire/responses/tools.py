"""The tools of a request, those of the provider's own among them.

Written after https://platform.openai.com/docs/api-reference/responses/create#responses-create-tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from durably.core.model import ToolSpec
from durably.testing.models.wire.strict import InvalidRequest, check_schema, only
from durably.testing.models.wire.strict_schema import check_strict

__all__ = ["tools_of"]

_FUNCTION = ("type", "name", "description", "parameters", "strict", "defer_loading", "allowed_callers", "output_schema")
_OWN: Mapping[str, tuple[str, ...]] = {
    "web_search": (),
    "web_search_2025_08_26": (),
    "web_search_preview": (),
    "file_search": ("vector_store_ids",),
    "code_interpreter": ("container",),
    "image_generation": (),
    "mcp": ("server_label",),
    "tool_search": (),
    "custom": ("name",),
}
"""The provider's own tools, and the fields that each requires."""


def tools_of(data: Mapping[str, Any]) -> list[ToolSpec]:
    """The caller's tools, after a look at those of the provider's own."""
    specs = []
    tools = data.get("tools", [])
    kinds = [each.get("type") for each in tools]
    for place, each in enumerate(tools):
        where = f"tools[{place}]"
        if each.get("defer_loading") and "tool_search" not in kinds:
            raise InvalidRequest(f"{where}.defer_loading: deferred tools need the tool 'tool_search'")
        if each.get("type") in _OWN:
            _check_own(each, where)
        elif each.get("type") == "function":
            specs.append(_function(each, where))
        else:
            raise InvalidRequest(f"Invalid value: {each.get('type')!r}. ({where}.type)")
    choice = data.get("tool_choice")
    if choice is not None:
        name = choice.get("name") if isinstance(choice, Mapping) else None
        hosted = isinstance(choice, Mapping) and choice.get("type") in kinds and choice["type"] != "function"
        if choice not in ("auto", "none", "required") and not hosted and name not in {spec.name for spec in specs}:
            raise InvalidRequest(f"Tool choice {choice!r} not found in 'tools' parameter.")
    return specs


def _check_own(tool: Mapping[str, Any], where: str) -> None:
    for name in _OWN[tool["type"]]:
        if not tool.get(name):
            raise InvalidRequest(f"Missing required parameter: '{where}.{name}'.")
    if tool["type"] == "mcp" and not (tool.get("server_url") or tool.get("connector_id")):
        raise InvalidRequest(f"{where}: one of 'server_url' or 'connector_id' must be provided.")


def _function(tool: Mapping[str, Any], where: str) -> ToolSpec:
    only(tool, _FUNCTION, where)
    check_schema(tool.get("name"), tool.get("parameters"), where)
    if tool.get("strict", True):
        check_strict(tool["parameters"], f"Invalid schema for function '{tool['name']}'")
    return ToolSpec(name=tool["name"], description=tool.get("description", ""), parameters=tool["parameters"])
