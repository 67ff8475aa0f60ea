"""Senders hold off while hubs are behind, and only then."""

from __future__ import annotations

import asyncio

import pytest

from durably.backends.temporal import hub_pressure
from durably.backends.temporal.hub_pressure import SIGNALS, HubPressure

pytestmark = pytest.mark.asyncio


async def test_all_who_come_while_hubs_are_behind_wait_and_one_looks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_pressure, "PAUSE", 0)
    looks, catch_up = 0, asyncio.Event()

    async def behind() -> bool:
        nonlocal looks
        looks += 1
        return not catch_up.is_set()

    pressure = HubPressure(behind)
    for _ in range(SIGNALS - 1):
        await pressure.admit()
    assert looks == 0, "who sends little does not ask"
    held = [asyncio.ensure_future(pressure.admit()) for _ in range(20)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert not any(each.done() for each in held)
    assert looks > 1, "it is looked again until they have caught up"
    held[0].cancel()  # who gives up does not let the others go, nor hold them
    catch_up.set()
    await asyncio.gather(*held[1:])
    before = looks
    await pressure.admit()
    assert looks == before, "the next look is due after as many signals again"


async def test_an_error_of_the_look_reaches_those_who_wait_and_the_next_one_looks_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hub_pressure, "SIGNALS", 1)
    errors = [RuntimeError("no answer")]

    async def behind() -> bool:
        if errors:
            raise errors.pop()
        return False

    pressure = HubPressure(behind)
    with pytest.raises(RuntimeError, match="no answer"):
        await pressure.admit()
    await pressure.admit()
