# What type checkers see: the names, without the wait for the first of them.
from durably.core.public import *  # noqa: F403
from durably.core.public import __all__ as __all__
