"""Models of real providers. Each provider is a module of its own, which needs the extra of the same name.

Import ``durably.providers.anthropic``, ``durably.providers.openai`` or ``durably.providers.litellm``, or name a model
by a string such as ``"anthropic:claude-opus-4-6"``.
"""

from durably.core import FallbackModel
from durably.providers.keys import Key

__all__ = ["FallbackModel", "Key"]
