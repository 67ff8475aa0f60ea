"""The tools of a request to Anthropic, and what its own tools must have beside them.

Written after https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview and
https://docs.anthropic.com/en/docs/agents-and-tools/mcp-connector.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from durably.core.model import ToolSpec
from durably.testing.models.wire.strict import InvalidRequest, check_schema, only, take
from durably.testing.models.wire.strict_schema import check_strict_for_claude

__all__ = ["check_container", "check_server_tools", "tools_of"]

_OWN = re.compile(
    r"(?P<name>web_search|web_fetch|code_execution|bash|text_editor|computer|memory|tool_search_tool_(?:bm25|regex))"
    r"(?:_\d{8})?"
)
_FIELDS = frozenset(
    """type name description input_schema cache_control strict defer_loading input_examples allowed_callers
    eager_input_streaming""".split()  # noqa: SIM905  # a list of ten lines is harder to read
)
STRICT_TOOLS = 20


def tools_of(data: Mapping[str, Any], beta: str) -> list[ToolSpec]:
    """The caller's tools, after a look at those of the provider's own."""
    specs: list[ToolSpec] = []
    names: list[str] = []
    deferred = 0
    tools = data.get("tools", [])
    for place, each in enumerate(tools):
        where = f"tools.{place}"
        kind = each.get("type") or "custom"
        deferred += bool(each.get("defer_loading"))
        if each.get("defer_loading") and each.get("cache_control"):
            raise InvalidRequest(f"{where}: tools with defer_loading=true cannot have cache_control set")
        if kind == "mcp_toolset":
            _check_toolset(each, data, beta, where)
        elif kind != "custom":
            names.append(_own_name(each, kind, where))
        else:
            only(each, _FIELDS, where)
            check_schema(each.get("name"), each.get("input_schema"), where)
            if each.get("strict"):
                check_strict_for_claude(each["input_schema"], f"{where}.custom")
            names.append(each["name"])
            specs.append(
                ToolSpec(name=each["name"], description=each.get("description", ""), parameters=each["input_schema"])
            )
    if len(set(names)) < len(names):
        raise InvalidRequest("tools: Tool names must be unique.")
    if sum(bool(each.get("strict")) for each in tools) > STRICT_TOOLS:
        raise InvalidRequest(f"Too many strict tools. The maximum number of strict tools supported is {STRICT_TOOLS}.")
    if tools and deferred == len(tools):
        raise InvalidRequest("At least one tool must have defer_loading=false.")
    _check_servers(data)
    _check_choice(data.get("tool_choice"), names)
    return specs


def _own_name(tool: Mapping[str, Any], kind: str, where: str) -> str:
    found = _OWN.fullmatch(kind)
    if found is None:
        raise InvalidRequest(f"{where}: Input tag {kind!r} does not match any of the expected tags")
    name: str = take(tool, "name", str, where)
    if found["name"] not in ("text_editor", name):
        raise InvalidRequest(f"{where}.{kind}.name: Input should be '{found['name']}'")
    return name


def _check_toolset(tool: Mapping[str, Any], data: Mapping[str, Any], beta: str, where: str) -> None:
    if "mcp-client-2025-11-20" not in beta:
        raise InvalidRequest(f"{where}: Input tag 'mcp_toolset' does not match any of the expected tags")
    name = take(tool, "mcp_server_name", str, where)
    if name not in [each.get("name") for each in data.get("mcp_servers", ())]:
        raise InvalidRequest(f"{where}: MCP server {name!r} not found in mcp_servers")


def _check_servers(data: Mapping[str, Any]) -> None:
    used = [each.get("mcp_server_name") for each in data.get("tools", ())]
    for place, server in enumerate(data.get("mcp_servers", ())):
        only(server, ("type", "name", "url", "authorization_token"), f"mcp_servers.{place}")
        if not take(server, "url", str, f"mcp_servers.{place}").startswith("https://"):
            raise InvalidRequest(f"mcp_servers.{place}.url: must start with https://")
        if used.count(take(server, "name", str, f"mcp_servers.{place}")) != 1:
            raise InvalidRequest(f"mcp_servers.{place}: exactly one MCP toolset must refer to this server")


def _check_choice(choice: Mapping[str, Any] | None, names: list[str]) -> None:
    if choice is None:
        return
    if choice.get("type") not in ("auto", "any", "tool", "none"):
        raise InvalidRequest(f"tool_choice: unknown type {choice}")
    if not names:
        raise InvalidRequest("tool_choice: may only be given with tools")
    if choice["type"] == "tool" and choice.get("name") not in names:
        raise InvalidRequest(f"tool_choice: there is no tool {choice.get('name')!r}")


def check_server_tools(messages: list[Mapping[str, Any]]) -> None:
    """Refuse a use of one of the provider's own tools without its result, and a result without its use.

    Both are recorded in https://github.com/BerriAI/litellm/pull/31672 and
    https://github.com/UKGovernmentBEIS/inspect_ai/pull/4603. A use may stand open at the end, where the answer goes on.
    """
    uses: dict[str, str] = {}
    for place, message in enumerate(messages):
        blocks = message["content"] if isinstance(message["content"], list) else []
        if message["role"] == "user":
            waits = any(block.get("type") == "tool_result" for block in blocks)
            if uses and not waits:
                use_id, name = next(iter(uses.items()))
                raise InvalidRequest(
                    f"messages.{place - 1}: `{name}` tool use with id `{use_id}` was found without a corresponding "
                    f"`{name}_tool_result` block"
                )
            continue
        for block in blocks:
            if block.get("type") in ("server_tool_use", "mcp_tool_use"):
                uses[take(block, "id", str, f"messages.{place}")] = block.get("name", "")
            elif _is_server_result(block):
                use_id = take(block, "tool_use_id", str, f"messages.{place}")
                if uses.pop(use_id, None) is None:
                    raise InvalidRequest(
                        f"messages.{place}: unexpected `tool_use_id` found in `{block['type']}` blocks: {use_id}. Each "
                        f"`{block['type']}` block must have a corresponding `server_tool_use` block before it."
                    )


def _is_server_result(block: Mapping[str, Any]) -> bool:
    kind = str(block.get("type"))
    return kind.endswith("_tool_result")


def check_container(data: Mapping[str, Any]) -> None:
    """Refuse results for code that waits in a container which the request does not name.

    Recorded: https://github.com/anthropics/anthropic-sdk-typescript/issues/1114.
    """
    if data.get("container"):
        return
    called = {block["id"] for block in _blocks(data["messages"]) if _is_from_code(block)}
    last = data["messages"][-1]
    results = last["content"] if isinstance(last["content"], list) else []
    if any(block.get("tool_use_id") in called for block in results):
        raise InvalidRequest(
            "container_id is required when there are pending tool uses generated by code execution with tools."
        )


def _blocks(messages: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for message in messages:
        if isinstance(message["content"], list):
            yield from message["content"]


def _is_from_code(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_use" and "code_execution" in str((block.get("caller") or {}).get("type"))
