"""When a field is left out of a model's JSON: ``Field(exclude_if=is_falsy)``.

pydantic asks this of each such field of each value that is written, so both are functions of C: a function of Python
would be most of what it costs to write a short record.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import is_, not_

__all__ = ["is_falsy", "is_none"]

is_falsy: Callable[[object], bool] = not_
"""Leave out ``None``, ``False``, 0 and what is empty."""

is_none: Callable[[object], bool] = partial(is_, None)
"""Leave out ``None`` alone."""
