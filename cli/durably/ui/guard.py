"""Whom the page listens to, and what its answers let a browser do.

What a run recorded may be hostile, and so may other pages that are open in the same browser. The guard stands before
everything else: it asks for the password, refuses a host name that is not ours (a name that an attacker's server points
at this machine), and refuses a change that does not come from a page of ours. The headers let a browser run no script
but ours and load nothing from elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "Guard", "user_of"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""The names under which only this machine reaches the page."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

SAFE_METHODS = frozenset({"GET", "HEAD"})


class Guard:
    """Middleware before the whole page.

    Args:
        app: The page.
        hosts: The names that a request may be for; empty for any, which needs a password.
        password: What a user must give, with any name; ``None`` for a page that only this machine reaches.
    """

    def __init__(self, app: ASGIApp, *, hosts: Iterable[str] = LOOPBACK, password: str | None = None) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._password = password
        if not self._hosts and not password:
            raise ValueError("a page that answers to any name needs a password")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if name != "cache-control" or name not in headers:
                        headers[name] = value
            await send(message)

        refusal = self._refusal(scope["method"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        """Why a request is not answered, or ``None``."""
        host = headers.get("host", "")
        if self._hosts and _name_of(host) not in self._hosts:
            return PlainTextResponse(f"this page does not answer to the name {host!r}", 421)
        if self._password is not None and not self._knows_password(headers.get("authorization", "")):
            return PlainTextResponse(
                "a password is needed", 401, {"www-authenticate": 'Basic realm="durably", charset="UTF-8"'}
            )
        if method not in SAFE_METHODS and not _is_same_origin(headers, host):
            return PlainTextResponse("a change must come from this page itself", 403)
        return None

    def _knows_password(self, authorization: str) -> bool:
        given = _credentials(authorization)
        return given is not None and secrets.compare_digest(given[1], (self._password or "").encode())


def user_of(request: Request) -> str:
    """The name that was given with the password, or an empty text."""
    given = _credentials(request.headers.get("authorization", ""))
    return "" if given is None else given[0].decode("utf-8", "replace")


def _credentials(authorization: str) -> tuple[bytes, bytes] | None:
    """The name and the password of a header, or ``None``."""
    kind, _, encoded = authorization.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        return None
    return name, password


def _name_of(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_same_origin(headers: Headers, host: str) -> bool:
    """Whether a browser says that a request comes from a page of this very origin. Browsers say so with every POST."""
    origin = headers.get("origin", "")
    return urlsplit(origin).netloc == host and headers.get("sec-fetch-site", "same-origin") == "same-origin"
