"""A durable function seen from outside: its id, what goes in and what comes out."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from durably.core.errors import DefinitionError
from durably.core.ids import check_step_id
from durably.core.serialization import Codec, codec_for

__all__ = ["FunctionRef", "In", "Out"]

In = TypeVar("In")
Out = TypeVar("Out")


class FunctionRef(Generic[In, Out]):
    """Enough to call a function that another program serves.

    Args:
        id: The function's id, unique in a backend.
        input_type: What its input is validated to.
        output_type: What its result is rebuilt to.

    Raises:
        DefinitionError: If the id or one of the types cannot be used.
    """

    id: str
    input: Codec
    output: Codec

    def __init__(self, id: str, *, input_type: Any = Any, output_type: Any = Any) -> None:
        try:
            check_step_id(id)
        except ValueError as error:
            raise DefinitionError(f"function id: {error}") from None
        vars(self).update(id=id, input=codec_for(input_type).check(), output=codec_for(output_type).check())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} {self.id!r} is frozen: make a new one instead of setting {name!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"
