"""What is made of a tool that a server lists, and of a result that it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from durably.core import DefinitionError
from durably.core.messages import ContentPart, FilePart, TextPart
from durably.core.tools import Effect, ToolOutcome
from durably.core.toolsets import ListedTool

try:
    from mcp.types import (
        AudioContent,
        CallToolResult,
        ContentBlock,
        ImageContent,
        ResourceLink,
        TextContent,
        TextResourceContents,
        Tool,
    )
except ImportError as error:
    raise ImportError("MCPServer needs the package mcp: pip install 'durably[mcp]'") from error

__all__ = ["Choice", "listed", "outcome"]

STRUCTURED = "structured_content"
"""The field of a result's metadata that holds what a server gives as structured content."""


PROTOCOL = "io.modelcontextprotocol/"
"""What the protocol's own fields of ``_meta`` begin with: the server's name, at each result."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which tools of a server an agent gets, and by which rules they run. See :class:`~durably.mcp.MCPServer`."""

    prefix: str
    tools: frozenset[str] | None
    effect: Effect | Mapping[str, Effect] | None
    requires_approval: bool | frozenset[str]
    approval_timeout: float | None
    retries: int | None
    timeout: float | None

    def effect_of(self, tool: Tool) -> Effect:
        """Return what a second execution of a tool would do."""
        if isinstance(self.effect, str):
            return self.effect
        if self.effect is not None and tool.name in self.effect:
            return self.effect[tool.name]
        hints = tool.annotations
        if hints is not None and hints.read_only_hint:
            return "pure"
        return "at_most_once" if hints is not None and hints.idempotent_hint is False else "idempotent"

    def asks(self, tool: Tool) -> bool:
        """Return whether a person must approve a call of a tool."""
        asks = self.requires_approval
        return asks if isinstance(asks, bool) else tool.name in asks


def listed(server: str, tools: Sequence[Tool], choice: Choice) -> list[ListedTool]:
    """Return the tools that an agent gets, as a record keeps them.

    Args:
        server: The server's name.
        tools: What the server lists.
        choice: Which of them.

    Raises:
        DefinitionError: If one that is named is not there, or two would have one name for the model.
    """
    there = {each.name for each in tools}
    asked = choice.requires_approval if isinstance(choice.requires_approval, frozenset) else frozenset()
    by_name = choice.effect if isinstance(choice.effect, Mapping) else {}
    missing = sorted(({*(choice.tools or ()), *asked, *by_name}) - there)
    if missing:
        raise DefinitionError(
            f"the MCP server {server!r} has no tool {missing[0]!r}; its tools are: {', '.join(sorted(there)) or 'none'}"
        )
    made: dict[str, ListedTool] = {}
    for each in tools:
        if choice.tools is None or each.name in choice.tools:
            one = _listed(each, choice)
            if one.name in made:
                raise DefinitionError(
                    f"two tools of the MCP server {server!r} would be {one.name!r} for the model: leave one out, tools="
                )
            made[one.name] = one
    return list(made.values())


def _listed(tool: Tool, choice: Choice) -> ListedTool:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{choice.prefix}{tool.name}")[:64]
    asks = choice.asks(tool)
    return ListedTool(
        name=name,
        description=tool.description or tool.title or "",
        parameters=tool.input_schema,
        source_name=None if name == tool.name else tool.name,
        effect=choice.effect_of(tool),
        retries=choice.retries,
        timeout=choice.timeout,
        requires_approval=asks,
        approval_timeout=choice.approval_timeout if asks else None,
    )


def outcome(result: CallToolResult | str) -> str | ToolOutcome:
    """Return what the model is told of a result, and what is kept of it for programs."""
    if isinstance(result, str):
        return ToolOutcome(content=result, is_error=True)
    parts = [_part(each) for each in result.content]
    structured = result.structured_content
    if not parts and structured is not None:
        parts = [TextPart(text=json.dumps(structured, ensure_ascii=False))]
    metadata: dict[str, Any] = {}
    if structured is not None:
        metadata[STRUCTURED] = structured
    own = {key: value for key, value in (result.meta or {}).items() if not key.startswith(PROTOCOL)}
    if own:
        metadata["_meta"] = own
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    content: str | list[ContentPart] = "\n".join(texts) if len(texts) == len(parts) else parts
    if isinstance(content, str) and not metadata and not result.is_error:
        return content
    return ToolOutcome(content=content, is_error=result.is_error, metadata=metadata or None)


def _part(block: ContentBlock) -> ContentPart:
    if isinstance(block, TextContent):
        return TextPart(text=block.text)
    if isinstance(block, ImageContent | AudioContent):
        return FilePart(media_type=block.mime_type, data=block.data)
    if isinstance(block, ResourceLink):
        return TextPart(text=f"{block.title or block.name}: {block.uri}")
    resource = block.resource
    if isinstance(resource, TextResourceContents):
        return TextPart(text=resource.text)
    kind = resource.mime_type or "application/octet-stream"
    return FilePart(media_type=kind, data=resource.blob, name=str(resource.uri))
