"""Models behind real providers. Each provider is a module of its own, which needs the provider's extra.

``durably.providers.anthropic``, ``durably.providers.openai`` and ``durably.providers.litellm`` are imported by name,
or found by strings such as ``"anthropic:claude-opus-4-6"``.
"""

from durably.core import FallbackModel
from durably.providers.keys import Key

__all__ = ["FallbackModel", "Key"]
