"""The annotations of users' functions, as types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_type_hints

from durably.core.errors import DefinitionError

__all__ = ["resolve_hints"]


def resolve_hints(fn: Callable[..., object], names: Mapping[str, object], where: str) -> dict[str, object]:
    """Return the annotations of a function as types.

    Args:
        fn: The function.
        names: Local names that its annotations may use.
        where: What the error calls the function.

    Raises:
        DefinitionError: If an annotation names something that does not exist.
    """
    try:
        return get_type_hints(fn, localns=names, include_extras=True)
    except NameError as error:
        raise DefinitionError(
            f"{where}: an annotation cannot be resolved ({error}). Import the name at run time, not only under "
            "TYPE_CHECKING"
        ) from None
