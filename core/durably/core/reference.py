"""A durable function seen from outside: its id, what goes in and what comes out.

Owns: what is needed to call a function. Does not own: its code and how it is run (``functions.py``).
"""

from __future__ import annotations

from typing import Any, Generic, Self, TypeVar

from durably.core.errors import DefinitionError
from durably.core.ids import check_function_id
from durably.core.serialization import Codec, codec_for

__all__ = ["FunctionRef", "In", "Out"]

In = TypeVar("In")
Out = TypeVar("Out")


class FunctionRef(Generic[In, Out]):
    """Calls a function that another program serves: its id and its types are enough for ``step.invoke``.

    It is frozen, and equal only to itself.

    Args:
        id: The function's id, unique in a backend.
        input_type: The type its input is validated to.
        output_type: The type its result is read back as.

    Attributes:
        id: The function's id.
        input: Validates its input, and writes it as JSON.
        output: Reads its result.

    Raises:
        DefinitionError: If the id or one of the types cannot be used.
    """

    __slots__ = ("__weakref__", "id", "input", "output")

    id: str
    input: Codec
    output: Codec

    def __init__(self, id: str, *, input_type: object = Any, output_type: object = Any) -> None:
        try:
            check_function_id(id)
        except (TypeError, ValueError) as error:
            raise DefinitionError(str(error)) from None
        self.id = id
        self.input = codec_for(input_type).check()
        self.output = codec_for(output_type).check()

    def __setattr__(self, name: str, value: object) -> None:
        # A slot is empty until __init__ fills it. Filled, it stays: records and workers refer to what it holds.
        if hasattr(self, name) or not hasattr(type(self), name):
            raise AttributeError(
                f"{type(self).__name__} {self.id!r} is frozen: make a new one instead of setting {name!r}"
            )
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} {self.id!r} is frozen: {name!r} cannot be deleted")

    def _replace(self, **attributes: object) -> Self:
        """A copy with other values of some attributes, for a harness that runs changed code under the same id."""
        made = object.__new__(type(self))
        for name in _slots(type(self)):
            setattr(made, name, attributes.get(name, getattr(self, name)))
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"


def _slots(cls: type) -> list[str]:
    names = (name for base in cls.__mro__ for name in getattr(base, "__slots__", ()))
    return [name for name in names if name != "__weakref__"]
