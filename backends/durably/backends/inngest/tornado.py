"""Serving the functions of a backend from a Tornado app.

Not by the SDK's own ``serve``, which cannot run async functions: requests are handed on to the backend's ASGI app.
"""

from __future__ import annotations

try:
    import httpx
    import tornado.web
except ImportError as error:
    raise ImportError("serving from Tornado needs its packages: pip install 'durably[inngest]' tornado") from error

from durably.backends.inngest.backend import InngestBackend

__all__ = ["serve"]


def serve(app: tornado.web.Application, backend: InngestBackend) -> None:
    """Serve a backend's functions at ``/api/inngest``.

    Args:
        app: The app.
        backend: What to serve. It need not be entered with ``async with``.
    """
    transport = httpx.ASGITransport(backend.app)

    class Handler(tornado.web.RequestHandler):
        async def _hand_on(self) -> None:
            request = self.request
            async with httpx.AsyncClient(transport=transport, timeout=None) as http:
                answer = await http.request(
                    request.method or "GET",
                    request.full_url(),
                    content=request.body,
                    headers=list(request.headers.get_all()),
                )
            self.set_status(answer.status_code)
            for name, value in answer.headers.items():
                self.set_header(name, value)
            self.finish(answer.content)

        get = post = put = _hand_on

    app.add_handlers(r".*", [("/api/inngest", Handler)])
