"""Durable functions and agents on Inngest."""

try:
    import inngest  # noqa: F401
except ImportError as error:
    raise ImportError("the Inngest backend needs inngest: pip install 'durably[inngest]'") from error

from durably.backends.inngest.backend import InngestBackend

__all__ = ["InngestBackend"]
