"""The contract and the loop of durably. Imports pydantic and the standard library, nothing else.

The names stand in ``public.py``, which is loaded when the first of them is asked for, as pydantic does with its own: a
program that imports much and runs no agent does not wait for this one.
"""

from importlib import import_module


def __getattr__(name: str) -> object:
    public = import_module("durably.core.public")
    names = {each: getattr(public, each) for each in public.__all__}
    globals().update(names, __all__=public.__all__)
    try:
        return globals()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(import_module("durably.core.public").__all__)
