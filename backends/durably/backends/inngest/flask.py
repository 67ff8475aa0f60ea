"""Serving the functions of a backend from a Flask app."""

from __future__ import annotations

from typing import Any

try:
    import flask
    import inngest.flask
except ImportError as error:
    raise ImportError("serving from Flask needs its packages: pip install 'durably[inngest]' 'flask[async]'") from error

from durably.backends.inngest.backend import InngestBackend

__all__ = ["serve"]


def serve(app: flask.Flask, backend: InngestBackend, **options: Any) -> None:
    """Serve a backend's functions at ``/api/inngest``.

    Args:
        app: The app.
        backend: What to serve. It need not be entered with ``async with``.
        options: Passed to the SDK's own ``serve`` as they are, such as ``serve_path``.
    """
    backend.suspended.seconds = 0  # no event loop outlives a request here, so code cannot wait for the next one
    inngest.flask.serve(app, backend.client, backend.inngest_functions, **options)
