"""The engine that a user names, as a URL or as ``MODULE:OBJECT``, and how it is opened.

Owns: what the names mean. A URL gives a client: it looks at runs and starts them, and runs none of their code. An
object gives what the program made, with its functions and secrets; commands that only look open it as a client too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from durably.backends import SQLiteBackend
from durably.cli.target import TargetError, failing, load_object
from durably.core import Backend, Function
from durably.core.approval import ApprovalDecision
from durably.core.approval_desk import answer_approval

__all__ = ["AddressError", "Program", "load_backend", "open_client", "open_program"]

FORMS = "sqlite:///runs.db, temporal://HOST:PORT/NAMESPACE?task_queue=QUEUE, inngest://HOST:PORT/APP or MODULE:OBJECT"

CONNECT_SECONDS = 5.0

FORGOTTEN_SLASH = "a path in this folder has three slashes, sqlite:///runs.db, and one from the root four"


class AddressError(TargetError):
    """The name stands for no engine; the message says what to write."""


async def load_backend(address: str) -> Backend:
    """The backend that a name stands for, not opened yet.

    Args:
        address: See ``FORMS``.

    Raises:
        AddressError: If it stands for none.
    """
    url = _split(address)
    if url.scheme in _SCHEMES:
        return await _SCHEMES[url.scheme](url)
    if "://" in address:
        raise AddressError(f"there is no engine {url.scheme!r}: write {FORMS}")
    if ":" not in address:
        raise AddressError(f"{address!r} names no engine: write {FORMS}")
    return await _made(address)


def _split(address: str) -> SplitResult:
    """The parts of a URL; one with a part that its engine has no use for is refused, and not half understood."""
    try:
        url = urlsplit(address)
        _ = url.port  # checked only when it is asked for
    except ValueError as error:
        raise AddressError(f"{address!r} is no URL: {error}") from None
    unknown = sorted(parse_qs(url.query, keep_blank_values=True).keys() - _OPTIONS.get(url.scheme, set()))
    if url.scheme in _SCHEMES and (unknown or url.fragment):
        what = f"option {unknown[0]!r}" if unknown else f"part {url.fragment!r}"
        raise AddressError(
            f"{address!r} has the {what}, which is no part of a name: write {FORMS}; %3F for '?', %23 for '#'"
        )
    return url


class Program:
    """A client of an engine, and the functions of the program that named it: what approvals are answered with.

    Args:
        client: The engine, open.
        functions: The program's functions by id; none for an engine that is named by a URL.
    """

    def __init__(self, client: Backend, functions: Mapping[str, Function[Any, Any]]) -> None:
        self.client = client
        self.functions = functions
        self.now = client.now
        self.history = client.history
        self.question_history = client.question_history
        self.live_run_ids = client.live_run_ids
        self.asking_runs = client.asking_runs
        self.send_events = client.send_events
        self.received = client.received

    async def decide(
        self, approval: str, *, approved: bool, reason: str = "", by: str | None = None, arguments: Any = None
    ) -> ApprovalDecision:
        """Answer a question; the arguments of a tool are checked by the program's own tool.

        Raises:
            ApprovalNotPendingError: If it is not pending.
            SerializationError: If the arguments do not fit the tool, or nothing here knows the tool.
        """
        return await answer_approval(self, approval, approved=approved, reason=reason, by=by, arguments=arguments)


@asynccontextmanager
async def open_program(address: str, *, work: bool = False) -> AsyncIterator[Program]:
    """What a name stands for, opened.

    Args:
        address: The name.
        work: Whether the program's functions run here too; otherwise runs are only looked at.

    Raises:
        AddressError: If the name stands for no engine.
    """
    backend = await load_backend(address)
    async with backend if work else as_client(backend) as client:
        if not work and backend.name == "inngest":
            # Its server knows the runs of every app: only those of functions that a backend knows are listed. They were
            # not there when the client was opened, so they are not served.
            client.functions.update(backend.functions)
        yield Program(client, backend.functions)


@asynccontextmanager
async def open_client(address: str) -> AsyncIterator[Backend]:
    """The client of :func:`open_program` alone."""
    async with open_program(address) as program:
        yield program.client


def as_client(backend: Any) -> Backend:
    """The same engine without functions: whoever only looks takes up no run. It masks the same secrets."""
    client: Any = backend
    if backend.name == "sqlite":
        client = SQLiteBackend(backend.journal.path, clock=backend.clock)
    elif backend.name == "temporal":
        client = type(backend)(backend.client, task_queue=backend.task_queue)
    elif backend.name == "inngest":
        client = type(backend)(backend.client)
    client.environment.redactor = backend.redactor
    return client  # type: ignore[no-any-return]


async def _made(address: str) -> Backend:
    """The object of a program: a backend, or a function that makes one."""
    found = load_object(address)
    if callable(found) and not isinstance(found, Backend):
        with failing(address):
            found = found()
            if inspect.isawaitable(found):
                found = await found
    if not isinstance(found, Backend):
        raise AddressError(f"{address} is {found!r}: give a backend, or a function without arguments that makes one")
    return found


async def _sqlite(url: SplitResult) -> Backend:
    return SQLiteBackend(_existing_file(url))


def _existing_file(url: SplitResult) -> Path:
    """The file, which must be there: SQLite would make it, and a mistyped name would be an engine without runs."""
    path = Path(unquote(url.path.removeprefix("/")))
    if url.netloc or not path.name:
        raise AddressError(f"{url.geturl()!r} names no file: {FORGOTTEN_SLASH}")
    if not path.exists():
        raise AddressError(f"there is no file {path.absolute()}: {FORGOTTEN_SLASH}")
    return path


async def _temporal(url: SplitResult) -> Backend:
    queue = _option(url, "task_queue")
    if not url.netloc or queue is None:
        raise AddressError(
            f"{url.geturl()!r} names no task queue: write temporal://localhost:7233/default?task_queue=support"
        )
    temporal = _needs("temporal")
    await _check_reachable(url, 7233)
    client_type = import_module("temporalio.client").Client
    client = await client_type.connect(f"{url.hostname}:{url.port or 7233}", namespace=url.path.strip("/") or "default")
    backend: Backend = temporal.TemporalBackend(client, task_queue=queue)
    return backend


async def _inngest(url: SplitResult) -> Backend:
    app = unquote(url.path.strip("/"))
    if not url.netloc or not app:
        raise AddressError(f"{url.geturl()!r} names no app: write inngest://localhost:8288/my-app")
    backend_module = _needs("inngest")
    await _check_reachable(url, 8288)
    origin = f"http://{url.netloc}"
    client = import_module("inngest").Inngest(
        app_id=app, api_base_url=origin, event_api_base_url=origin, is_production=False
    )
    backend: Backend = backend_module.InngestBackend(client)
    return backend


_OPTIONS = {"temporal": {"task_queue"}}
"""What may stand behind the ``?``."""

_SCHEMES: dict[str, Callable[[SplitResult], Awaitable[Backend]]] = {
    "sqlite": _sqlite,
    "temporal": _temporal,
    "inngest": _inngest,
}


async def _check_reachable(url: SplitResult, port: int) -> None:
    """Refuse a server that nobody runs, before its client retries for a while and says it in words of its own."""
    host, port = url.hostname or "", url.port or port
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:  # TimeoutError is one
        raise AddressError(f"no {url.scheme} server answers at {host}:{port}: {error or 'it took too long'}") from error
    writer.close()


def _option(url: SplitResult, name: str) -> str | None:
    values = parse_qs(url.query).get(name)
    return values[-1] if values else None


def _needs(engine: str) -> Any:
    """The module of an engine, which needs an extra of its own."""
    try:
        return import_module(f"durably.backends.{engine}")
    except ImportError as error:
        raise AddressError(str(error)) from error
