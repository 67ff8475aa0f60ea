"""What all attempts on one worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.core.body_threads import BodyThreads
from durably.core.observer import Observers
from durably.core.secrets import Redactor
from durably.core.services import EngineServices
from durably.core.steps import Point, Probe

__all__ = ["Environment"]


@dataclass(slots=True, kw_only=True)
class Environment:
    """What all attempts on one worker share.

    Attributes:
        resources: Clients, pools and secrets by name, for bodies. Never recorded.
        redactor: Masks secrets in all that is written.
        max_payload_bytes: The largest value a step or a function may return, as JSON.
        threads: Whether a sync body may leave the event loop's thread.
        probe: Where the harness looks on, or ``None``.
        body_threads: Where sync bodies run.
        bodies: The tasks of the bodies that run now, so that the harness can end them with the worker.
        observers: Who is told what happens.
        services: What the engine offers to the bodies of agents.
    """

    resources: Mapping[str, Any]
    redactor: Redactor
    max_payload_bytes: int
    threads: bool = True
    probe: Probe | None = None
    body_threads: BodyThreads = field(default_factory=BodyThreads)
    bodies: set[asyncio.Task[Any]] = field(default_factory=set)
    observers: Observers = field(default_factory=Observers)
    services: EngineServices = field(default_factory=EngineServices)

    async def pass_point(self, name: str, function: str, run_id: str, key: str = "") -> None:
        """Report a point and wait where the harness wants to wait."""
        if self.probe is not None:
            pause = self.probe(Point(name, function, run_id, key))
            if pause is not None:
                await pause
