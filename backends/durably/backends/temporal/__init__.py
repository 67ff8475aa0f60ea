"""Durable functions and agents on a Temporal cluster."""

try:
    import temporalio  # noqa: F401
except ImportError as error:
    raise ImportError("the Temporal backend needs temporalio: pip install 'durably[temporal]'") from error

from durably.backends.temporal.backend import TemporalBackend

__all__ = ["TemporalBackend"]
