# For type checkers, which cannot follow __getattr__ in __init__.py.
from durably.core.public import *  # noqa: F403
from durably.core.public import __all__ as __all__
