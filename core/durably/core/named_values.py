"""Values that are written with their names alone: ``Debounce(period="5s")``."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from durably.core.error_text import shown
from durably.core.errors import DefinitionError

__all__ = ["NamedValues"]


class NamedValues:
    """The base of a dataclass with ``kw_only=True`` that says how it is written when it was written otherwise."""

    _example: ClassVar[str]

    # Before the __init__ of the dataclass, which would only say how many arguments it takes.
    def __new__(cls, *args: Any, **values: Any) -> Self:
        if args:
            said = ", ".join(shown(each) for each in args)
            raise DefinitionError(f"{cls.__name__}({said}): write each value with its name: {cls._example}")
        return super().__new__(cls)
