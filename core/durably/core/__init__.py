"""The contract and the loop of durably. It imports pydantic, `typing_extensions` and the standard library.

``public.py`` lists the names of this level. It is loaded when the first of them is used, so that a program which
imports durably and runs no agent does not wait for it; pydantic loads its names in the same way. Messages, the model
port, flow control, histories and rarer errors are in the modules ``messages``, ``model``, ``flow``, ``history`` and
``errors``.
"""

from importlib import import_module


def __getattr__(name: str) -> object:
    public = import_module("durably.core.public")
    names = {each: getattr(public, each) for each in public.__all__}
    # Kept in the module, so that __getattr__ is not called for these names again.
    globals().update(names, __all__=public.__all__)
    try:
        return globals()[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted(import_module("durably.core.public").__all__)
