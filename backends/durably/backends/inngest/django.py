"""Serving the functions of a backend from a Django app."""

from __future__ import annotations

from typing import Any

try:
    import django.urls  # type: ignore[import-untyped]  # it has no types of its own
    import inngest.django
except ImportError as error:
    raise ImportError("serving from Django needs its packages: pip install 'durably[inngest]' django") from error

from durably.backends.inngest.backend import InngestBackend

__all__ = ["serve"]


def serve(backend: InngestBackend, **options: Any) -> django.urls.URLPattern:
    """A URL pattern for ``urlpatterns`` that serves a backend's functions at ``/api/inngest``.

    Args:
        backend: What to serve. It need not be entered with ``async with``.
        options: Passed to the SDK's own ``serve`` as they are, such as ``serve_path``.
    """
    backend.suspended.seconds = 0  # no event loop outlives a request here, so code cannot wait for the next one
    return inngest.django.serve(backend.client, backend.inngest_functions, **options)
