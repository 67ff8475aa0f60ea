"""The functions of a program that begin by rules: singletons of each mode, and what a cron starts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from durably.core import Context, Event, Function, Singleton, current_step, function
from durably.core.flow import Cron, CronTick
from durably.testing.fuzz.programs import SingletonMode
from durably.testing.fuzz.world import World

__all__ = ["HOLD", "TICK", "clockwork", "rival", "rival_event"]

HOLD = 7.0
"""Seconds for which a run of a singleton holds its key."""

TICK = "program/tick"


def rival_event(mode: SingletonMode) -> str:
    """The name of the event that starts a singleton."""
    return f"program/{mode}"


def rival(mode: SingletonMode, world: World, pace: float) -> Function[Any, Any]:
    """A singleton that notes when it has its key, and when no more.

    Args:
        mode: What it does with rivals.
        world: Where it notes that.
        pace: Seconds that one second of a program takes.
    """

    async def note(kind: str, key: str) -> None:
        world.note(kind, f"{mode}/{key}", current_step().run_id)

    @function(f"rival-{mode}", triggers=[rival_event(mode)], singleton=Singleton("key", mode=mode))
    async def contend(ctx: Context[dict[str, Any]]) -> None:
        key = str(ctx.input["key"])
        await ctx.step.run("enter", note, "entered", key)
        await ctx.step.sleep("hold", HOLD * pace)
        await ctx.step.run("leave", note, "left", key)

    return contend


def clockwork(missed: Literal["once", "each"], world: World, token: str = "") -> Function[Any, Any]:
    """What a cron starts once a month: it notes the time that it stands for, and tells of it.

    Args:
        missed: What becomes of times at which no worker was up.
        world: Where it notes that.
        token: Part of its id.
    """

    async def note(at: datetime) -> None:
        world.note("tick", f"{missed} {at.isoformat()}", current_step().run_id)

    @function(f"clockwork-{missed}{token and f'-{token}'}", cron=Cron("0 12 1 * *", missed=missed))
    async def tick(ctx: Context[CronTick]) -> None:
        await ctx.step.run("note", note, ctx.input.at)
        await ctx.step.send_event("tick", Event(TICK, {"missed": missed}))

    return tick
