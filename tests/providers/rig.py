"""An agent on a provider that is crashed at every point: what it is made of, and what is seen of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from durably.backends import MemoryBackend
from durably.core import Agent, Backend, Function, current_step, tool
from durably.core.history import StepRecord
from durably.core.model import StreamedDelta, StreamingModel
from durably.testing import Report, crash_matrix
from durably.testing.crash.engines import Engine, Store
from durably.testing.models.llm_server import Fault, LLMServer
from durably.testing.models.scripted import Reply
from durably.testing.models.wire.http import HTTPRequest
from tests.providers.cases import Case

ANSWER = "Order 7 is on its way, and will be there on Monday."


@dataclass
class Cell:
    """What was seen of one cell of a matrix.

    Attributes:
        found: The orders that the tool looked up, by idempotency key: the world.
        shown: What the sink got.
        received: The requests that reached the server.
        store: What outlived the crashes.
    """

    found: dict[str, str] = field(default_factory=dict)
    shown: list[StreamedDelta] = field(default_factory=list)
    received: list[HTTPRequest] = field(default_factory=list)
    store: Store | None = None

    def records(self, key: str) -> list[StepRecord]:
        """Those of one step, oldest first."""
        assert self.store is not None
        return [record for record in self.store.journal.records(self.store.run_id) if record.key == key]


@dataclass
class Rig:
    """Makes the cells of a matrix: an agent on a provider, and a server that fails in the same way each time."""

    model: StreamingModel
    resources: dict[str, Any]
    server: LLMServer
    faults: Sequence[Fault | None] = ()
    streamed: bool = False
    tools: bool = False
    cells: list[Cell] = field(default_factory=list)

    def build(self) -> tuple[Agent, Cell]:
        """The agent and the world of one more cell."""
        cell = Cell()
        self.server.fail(*self.faults)
        self.server.received = cell.received

        @tool
        async def find(order: str) -> str:
            """Find an order."""
            cell.found[current_step().idempotency_key] = order
            return f"order {order} is on its way"

        agent = Agent(
            "shop",
            model=self.model,
            instructions="Be brief.",
            tools=[find] if self.tools else [],
            sink=cell.shown.append if self.streamed else None,
        )
        self.cells.append(cell)
        return agent, cell

    def open(self, functions: Sequence[Function[Any, Any]], store: Store) -> Backend:
        self.cells[-1].store = store
        return MemoryBackend(
            functions,
            journal=store.journal,
            clock=store.clock(),
            seed=store.seed,
            evict="always" if store.evict else "never",
            resources=self.resources,
        )

    async def crash(self, *, build: Callable[[], Any] | None = None, **options: Any) -> Report:
        """Crash everywhere, and hold what comes of it to the laws."""
        engine = Engine(name="memory", open=self.open, journal=lambda store: store.journal)
        report = await crash_matrix(
            build or self.build,
            "Where is order 7?",
            backend=engine,
            state=lambda cell: sorted(cell.found.values()),
            **options,
        )
        assert report.ok, report
        self.cells = [cell for cell in self.cells if cell.received]  # one is built only to be looked at
        return report


@asynccontextmanager
async def rig(case: Case, *script: Reply, **fields: Any) -> AsyncIterator[Rig]:
    async with LLMServer(*script) as server, case.reused(server) as (model, resources):
        yield Rig(model, resources, server, **fields)
