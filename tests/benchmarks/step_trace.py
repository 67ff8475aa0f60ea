"""Which files of the library execution enters for one new `step.run`, and how often, on each engine.

`tests/benchmarks/entries.py` defines an entry. The step is the second new one of a run, in a worker that has done such
a run before, so that caches are filled. It is counted from the call in the user's code until the code has the value, on
all threads. On Inngest the request that runs the body is counted from its own beginning, which is the delivery of the
step before.

Called as: python -m tests.benchmarks.step_trace [ENGINE ...]. Exits with 1 if a limit is not kept.
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import tempfile
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from temporalio.testing import WorkflowEnvironment

from durably.backends import MemoryBackend, SQLiteBackend
from durably.backends.inngest import InngestBackend
from durably.backends.temporal import TemporalBackend
from durably.core import Backend, Context, function
from durably.core.ids import new_id
from durably.testing.inngest import InngestEngine
from tests.benchmarks.entries import Recorder, quick_commits

__all__ = ["ENGINES", "LIMITS", "Limit", "NotAvailableError", "Trace", "trace"]

ROUNDS = 3
"""How often a step is traced. The shortest trace counts: a worker's polling and heartbeats fall into some."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a trace may come to.

    Attributes:
        files: How many files may be entered.
        entries: How often each of them may be, or ``None``.
    """

    files: int
    entries: int | None = None


LIMITS = {
    "memory": Limit(files=11, entries=3),
    "sqlite": Limit(files=12, entries=4),
    "temporal": Limit(files=14),
    "inngest": Limit(files=14),
}


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The files that one step enters.

    Attributes:
        files: How often each is entered, by its path in the checkout, in the order of the first entries.
    """

    files: Mapping[str, int]

    @property
    def entries(self) -> int:
        """How often any file is entered."""
        return sum(self.files.values())

    def broken(self, limit: Limit) -> list[str]:
        """A sentence for each way in which a limit is not kept."""
        found = []
        if len(self.files) > limit.files:
            found.append(f"{len(self.files)} files are entered, the limit is {limit.files}")
        if limit.entries is not None:
            often = (f"{file} {count} times" for file, count in self.files.items() if count > limit.entries)
            found += [f"{each}, the limit is {limit.entries}" for each in often]
        return found


class NotAvailableError(Exception):
    """The engine's server cannot be started here."""


async def echo(text: str) -> str:
    return text


@function("traced")
async def traced(ctx: Context[None]) -> str:
    recorder: Recorder = ctx.resources["recorder"]
    await ctx.step.run("first", echo, "one")
    recorder.begin()
    value = await ctx.step.run("second", echo, "two")
    recorder.end()
    return value


App = Callable[..., Awaitable[None]]
RunOnce = Callable[[], Awaitable[object]]
Engine = Callable[[Recorder], AbstractAsyncContextManager[RunOnce]]


def invoking(backend: Backend) -> RunOnce:
    """Runs the function and waits for it, on an engine whose waiting does no work."""
    return lambda: backend.invoke(traced)


@asynccontextmanager
async def memory(recorder: Recorder) -> AsyncIterator[RunOnce]:
    async with MemoryBackend([traced], resources={"recorder": recorder}) as backend:
        yield invoking(backend)


@asynccontextmanager
async def sqlite(recorder: Recorder) -> AsyncIterator[RunOnce]:
    with tempfile.TemporaryDirectory() as directory, quick_commits():
        async with SQLiteBackend(Path(directory) / "runs.db", [traced], resources={"recorder": recorder}) as backend:
            yield invoking(backend)


@asynccontextmanager
async def temporal(recorder: Recorder) -> AsyncIterator[RunOnce]:
    try:
        server = await WorkflowEnvironment.start_local(
            dev_server_existing_path=str(Path(sysconfig.get_path("scripts")) / "temporal"),
            dev_server_log_level="error",
        )
    except (OSError, RuntimeError) as error:
        raise NotAvailableError(f"Temporal's dev server does not start: {error}") from error
    async with (
        server,
        TemporalBackend(
            server.client, task_queue=new_id(), functions=[traced], resources={"recorder": recorder}
        ) as backend,
    ):
        yield invoking(backend)


@asynccontextmanager
async def inngest(recorder: Recorder) -> AsyncIterator[RunOnce]:
    engine = InngestEngine()

    def serve(app: App) -> AbstractAsyncContextManager[str]:
        async def announced(scope: Any, receive: Any, send: Any) -> None:
            recorder.request()
            await app(scope, receive, send)

        return engine.serve(announced)

    resources = {"recorder": recorder}
    async with InngestBackend(engine.client(), [traced], serve=serve, now=engine.now, resources=resources) as backend:

        async def run() -> None:
            await backend.start(traced)
            await engine.rest()  # not `result()`: whoever waits for it asks the server again and again

        yield run


ENGINES: dict[str, Engine] = {"memory": memory, "sqlite": sqlite, "temporal": temporal, "inngest": inngest}


def trace(engine: str) -> Trace:
    """Trace one new step.

    Args:
        engine: One of ``ENGINES``.

    Raises:
        NotAvailableError: If its server cannot be started here.
    """
    return asyncio.run(_trace(ENGINES[engine]))


async def _trace(engine: Engine) -> Trace:
    recorder = Recorder()
    traces = []
    with recorder.installed():
        async with engine(recorder) as run:
            await run()
            for _ in range(ROUNDS):
                recorder.arm()
                await run()
                if recorder.state != "done":
                    raise RuntimeError(f"the step was not traced to its end: {recorder.state}")
                traces.append(Trace(files=Counter(recorder.entered)))
    return min(traces, key=lambda each: each.entries)


def report(engine: str) -> bool:
    """Print an engine's table; whether its limit is kept."""
    try:
        found = trace(engine)
    except NotAvailableError as error:
        print(f"\n{engine}: left out, {error}")
        return True
    limit = LIMITS[engine]
    each = "" if limit.entries is None else f", each entered {limit.entries} times at most"
    print(f"\n{engine}: one new step\n")
    width = max(map(len, found.files))
    for number, (file, count) in enumerate(found.files.items(), 1):
        print(f"{number:4}  {file:{width}}{count:5}")
    print(f"\n      {len(found.files)} files, {found.entries} entries; the limit is {limit.files} files{each}")
    broken = found.broken(limit)
    for sentence in broken:
        print(f"      broken: {sentence}")
    return not broken


def main(engines: list[str]) -> int:
    """Print the table of each engine."""
    warnings.simplefilter("ignore", DeprecationWarning)
    kept = [report(each) for each in engines]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(ENGINES)))
