"""Serving the functions of a backend from a FastAPI app."""

from __future__ import annotations

from typing import Any

try:
    import fastapi
    import inngest.fast_api
except ImportError as error:
    raise ImportError("serving from FastAPI needs its packages: pip install 'durably[inngest]' fastapi") from error

from durably.backends.inngest.backend import InngestBackend

__all__ = ["serve"]


def serve(app: fastapi.FastAPI, backend: InngestBackend, **options: Any) -> None:
    """Serve a backend's functions at ``/api/inngest``.

    Args:
        app: The app.
        backend: What to serve. It need not be entered with ``async with``.
        options: Passed to the SDK's own ``serve`` as they are, such as ``serve_path``.
    """
    inngest.fast_api.serve(app, backend.client, backend.inngest_functions, **options)
